"""Work in a thread, such as compiling; its errors are raised in the caller.

If Python exits while a thread is in the compiler, the process aborts ("FATAL: exception not rethrown", exit code 134).
These threads are therefore not daemons, and Python waits for them at exit. To exit without waiting, check `any_running`
and call `os._exit`.
"""

import threading
from collections.abc import Callable


class Background(threading.Thread):
    """`compiling = Background(compile)` starts a thread at once."""

    def __init__(self, work: Callable[[], None]) -> None:
        """Starts the thread.

        Args:
            work: the function to call.
        """
        super().__init__(daemon=False)
        self._work, self._error = work, None
        self.start()

    def run(self) -> None:
        """Runs in the thread."""
        try:
            self._work()
        except BaseException as error:  # raised by `wait` and `running`
            self._error = error

    @property
    def running(self) -> bool:
        """Whether the work is unfinished.

        Raises:
            Exception: the work's error.
        """
        if self._error is not None:
            raise self._error
        return self.is_alive()

    def wait(self) -> None:
        """Waits until the work is done.

        Raises:
            Exception: the work's error.
        """
        self.join()
        if self._error is not None:
            raise self._error


def any_running() -> bool:
    """Whether any `Background` thread of the process is running."""
    return any(isinstance(thread, Background) for thread in threading.enumerate())
