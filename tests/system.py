"""What the tests of whole runs share: folders that cannot be written, and waiting for another process."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write anywhere, so root becomes nobody for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def wait_until(condition: Callable[[], object]) -> None:
    """Waits as long as it takes; what never comes is ended by the limit that every test has."""
    while not condition():
        time.sleep(0.02)
