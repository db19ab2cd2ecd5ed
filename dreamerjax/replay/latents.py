"""The context of windows: the newest latent state of each row.

The policy computes a state for each new row; every update computes new states for its replayed rows, and returns
them. Returned states are written one draw later, so that nothing waits for the device.
"""

from collections import deque
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np

from dreamerjax.config import ModelConfig
from dreamerjax.replay.ring import Ring
from dreamerjax.replay.saving import Arrays, Meta
from dreamerjax.replay.windows import Windows
from dreamerjax.types import PolicyState, StoredLatent

REFRESHES_BEHIND = 1  # returned batches that are not written yet: these are never waited for


class Drawn(NamedTuple):
    """Replayed rows whose latent states have not been returned."""

    step: np.ndarray  # [U, T, B] steps since the replay began
    env: np.ndarray  # [U, 1, B]


class Latents:
    """One latent state for each row of a ring; a row without one counts as the zero state."""

    def __init__(self, ring: Ring, model: ModelConfig) -> None:
        """Adds the latent states' columns to an empty ring."""
        self._ring = ring
        self._deter = ring.add_column("latent.deter", (model.deter,), np.dtype(np.uint16))  # the bits of bfloat16
        self._stoch = ring.add_column("latent.stoch", (model.groups,), np.dtype(np.uint8))  # as in `StoredLatent`
        self._drawn: deque[Drawn] = deque()
        self._returned: deque[StoredLatent] = deque()  # of the oldest of `drawn`

    def row_added(self) -> None:
        """Clears the state of the row that the newest one has overwritten."""
        self._stoch[self._ring.slot_of(self._ring.added - 1)] = 0

    def keep(self, policy_state: PolicyState) -> None:
        """Stores the policy's latent states after the newest row."""
        latent, slot = policy_state.latent, self._ring.slot_of(self._ring.added - 1)
        self._deter[slot] = np.asarray(latent.deter).astype(ml_dtypes.bfloat16).view(np.uint16)
        self._stoch[slot] = np.asarray(latent.stoch).argmax(-1) + 1

    def context_of(self, windows: Windows) -> StoredLatent:
        """The latent states [U, B, ...] of the rows before the windows [U, 1, B]."""
        slot, env = self._ring.slot_of(windows.first[:, 0] - 1), windows.env[:, 0]
        return _as_stored(self._deter[slot, env], self._stoch[slot, env])

    def shapes(self, updates: int, batch_size: int) -> StoredLatent:
        """Shapes and dtypes of `context_of`, as `jax.ShapeDtypeStruct`s."""
        lead = (updates, batch_size)
        return StoredLatent(
            deter=jax.ShapeDtypeStruct((*lead, self._deter.shape[-1]), np.dtype(ml_dtypes.bfloat16)),  # pyright: ignore[reportArgumentType]
            stoch=jax.ShapeDtypeStruct((*lead, self._stoch.shape[-1]), self._stoch.dtype),  # pyright: ignore[reportArgumentType]
        )

    def drawn(self, step: np.ndarray, env: np.ndarray) -> None:
        """Expects the latent states of these rows from an update, in the order of the draws."""
        self._drawn.append(Drawn(step, env))

    def returned(self, latents: StoredLatent) -> None:
        """Takes the latent states [U, T, B, ...] of the oldest rows drawn; they may still be computed."""
        self._returned.append(latents)

    def write_returned(self) -> None:
        """Stores the returned latent states, but the newest, of the rows that have not been overwritten."""
        ring = self._ring
        while len(self._returned) > REFRESHES_BEHIND:
            drawn, latents = self._drawn.popleft(), self._returned.popleft()
            there = np.broadcast_to(drawn.step >= ring.oldest, drawn.step.shape)
            slot, env = ring.slot_of(drawn.step)[there], np.broadcast_to(drawn.env, there.shape)[there]
            self._deter[slot, env] = np.asarray(latents.deter).view(np.uint16)[there]
            self._stoch[slot, env] = np.asarray(latents.stoch)[there]

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The latent states on their way back; those that are stored are columns of the ring."""
        arrays = {}
        for number, drawn in enumerate(self._drawn):
            arrays |= {f"drawn{number}.age": self._ring.added - drawn.step, f"drawn{number}.copy": drawn.env}
        for number, latents in enumerate(self._returned):
            deter = np.asarray(latents.deter).view(np.uint16)
            arrays |= {f"returned{number}.deter": deter, f"returned{number}.stoch": np.asarray(latents.stoch)}
        return arrays, {"drawn": len(self._drawn), "returned": len(self._returned)}

    def load(self, arrays: Arrays, meta: Meta) -> None:
        """Takes over what `state` returned, after the ring was loaded."""
        self._drawn = deque(
            Drawn(self._ring.added - arrays[f"drawn{number}.age"], np.asarray(arrays[f"drawn{number}.copy"]))
            for number in range(meta["drawn"])
        )
        self._returned = deque(
            _as_stored(*(np.asarray(arrays[f"returned{number}.{part}"]) for part in ("deter", "stoch")))
            for number in range(meta["returned"])
        )


def _as_stored(deter: Any, stoch: Any) -> StoredLatent:
    """A StoredLatent from `deter` as uint16: numpy's files do not know bfloat16."""
    return StoredLatent(deter=deter.view(ml_dtypes.bfloat16), stoch=stoch)
