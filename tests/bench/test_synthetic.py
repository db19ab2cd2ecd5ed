"""Made-up rows have the form of real ones."""

import itertools

import numpy as np
import pytest

from dreamerjax.bench.synthetic import EPISODE_LENGTH, filled_replay, synthetic_rows
from dreamerjax.config import ReplayConfig
from dreamerjax.types import ActionSpec, ObsSpec, Spaces

SPACES = Spaces((ObsSpec("state", (4,)), ObsSpec("image", (6, 5, 3))), (ActionSpec("discrete", 3),))


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_rows_tell_episodes_as_environments_do(kind):
    spaces = SPACES._replace(actions=(ActionSpec(kind, 3),))
    rows = list(itertools.islice(synthetic_rows(spaces, num_envs=4, seed=0), 600))
    first, last, terminal = (
        np.stack([getattr(row, f"is_{name}") for row in rows]) for name in ("first", "last", "terminal")
    )
    assert first[0].all()
    np.testing.assert_array_equal(first[1:], last[:-1])
    assert not (first & last).any()
    assert not (terminal & ~last).any()
    assert 0 < terminal.sum() < last.sum()
    assert 0.7 < last.sum() * EPISODE_LENGTH / last.size < 1.3
    action, reward = (np.stack([getattr(row, name) for row in rows]) for name in ("prev_action", "reward"))
    assert (action[first] == 0).all()
    assert (reward[first] == 0).all()
    if kind == "discrete":
        assert (action[~first].sum(-1) == 1).all()
    assert len(np.unique(reward[~first])) == (~first).sum()


def test_observations_have_the_type_of_their_rank():
    row = next(synthetic_rows(SPACES, num_envs=2, seed=0))
    assert {name: (value.shape, value.dtype) for name, value in row.obs.items()} == {
        "state": ((2, 4), np.float32),
        "image": ((2, 6, 5, 3), np.uint8),
    }
    assert {value.dtype for value in row[1:3]} == {np.dtype(np.float32)}


def test_a_replay_is_filled():
    spaces = SPACES._replace(obs=SPACES.obs[:1])
    replay = filled_replay(ReplayConfig(capacity=31), spaces, num_envs=3, seed=0)
    assert len(replay) == 30
    batch = replay.sample(2, 10, 1)
    assert (np.abs(batch.obs["state"]).sum(-1) > 0).all()
