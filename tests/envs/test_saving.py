"""Environments that cannot be pickled or unpickled."""

import pytest

from dreamerjax.envs import StateError
from tests.envs.odd_envs import Counting, serial


class Pickled(Counting):
    """Raises the given error when it is pickled or unpickled."""

    writing = reading = None

    def __getstate__(self):
        if self.writing:
            raise self.writing
        return vars(self)

    def __setstate__(self, state):
        if state.get("reading"):
            raise state["reading"]
        vars(self).update(state)


ERRORS = [ValueError("ctypes objects"), RuntimeError("no"), RecursionError(), KeyError("x"), OSError(5, "I/O")]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_after_an_error_while_pickling_there_is_no_state(error):
    env = serial(Pickled(writing=error))
    env.reset()
    assert env.state() is None


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_an_error_while_unpickling_leaves_the_environment_unchanged(error):
    env = serial(Pickled(reading=error))
    env.reset()
    state = env.state()
    assert state is not None
    with pytest.raises(StateError, match=f"saved state of module:Env cannot be read: {type(error).__name__}"):
        env.load(state)
    assert env.reset().is_first.all()
