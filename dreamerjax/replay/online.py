"""The online queue: puts each window-length sequence of new rows into one of the next batches."""

from collections import deque
from typing import Any

from dreamerjax.replay.saving import Meta
from dreamerjax.replay.windows import Windows


class OnlineQueue:
    """New windows that no batch has contained yet."""

    def __init__(self, length: int, *, num_envs: int, first: int) -> None:
        """Makes an empty queue.

        Args:
            length: rows in a window; 0: nothing is ever queued.
            num_envs: environments that are stepped together.
            first: the step at which the first window starts.
        """
        self._length, self._num_envs = length, num_envs
        self._next = first + length  # number of steps at which the next windows are complete
        self._waiting: deque[tuple[int, int]] = deque()  # (first step, environment)

    def added(self, steps: int) -> None:
        """Queues the newest window of each environment as soon as it is complete.

        Args:
            steps: how many steps were added since the replay began.
        """
        if self._length and steps >= self._next:
            first = steps - self._length
            self._waiting.extend((first, env) for env in range(self._num_envs))
            self._next += self._length

    def put_into(self, windows: Windows, *, oldest: int) -> None:
        """Replaces drawn windows [U, 1, B] by those that wait; one that was overwritten meanwhile is dropped."""
        updates, _, batch_size = windows.first.shape
        for update in range(updates):
            for place in range(batch_size):
                if not self._waiting:
                    return
                first, env = self._waiting.popleft()
                if first >= oldest:
                    windows.first[update, 0, place], windows.env[update, 0, place] = first, env

    def state(self, steps: int) -> dict[str, Any]:
        """What `load` needs, counted from the newest of so many steps."""
        return {"online_in": self._next - steps, "queue": [(steps - first, env) for first, env in self._waiting]}

    def load(self, meta: Meta, *, steps: int) -> None:
        """Takes over what `state` returned."""
        self._next = steps + meta["online_in"]
        self._waiting = deque((steps - age, env) for age, env in meta["queue"])
