"""Work in a thread of its own, such as compiling, whose errors are not lost.

Python must not end while a thread is in the compiler: the process would abort ("FATAL: exception not rethrown", exit
code 134). So these threads are no daemons, and Python waits for them; who does not want to wait asks `any_running` and
ends the process by `os._exit`.
"""

import threading
from collections.abc import Callable


class Background(threading.Thread):
    """`compiling = Background(compile)` starts at once."""

    def __init__(self, work: Callable[[], None]) -> None:
        """Starts to work.

        Args:
            work: what to do.
        """
        super().__init__(daemon=False)
        self._work, self._error = work, None
        self.start()

    def run(self) -> None:
        """Works; in the thread."""
        try:
            self._work()
        except BaseException as error:  # for whoever waits
            self._error = error

    @property
    def running(self) -> bool:
        """Whether it still works.

        Raises:
            Exception: what the work raised.
        """
        if self._error is not None:
            raise self._error
        return self.is_alive()

    def wait(self) -> None:
        """Waits until the work is done.

        Raises:
            Exception: what the work raised.
        """
        self.join()
        if self._error is not None:
            raise self._error


def any_running() -> bool:
    """Whether any such thread still works, in the whole process."""
    return any(isinstance(thread, Background) for thread in threading.enumerate())
