"""The learner on a tiny agent: which parameters the policy gets, and how far ahead of the device it runs."""

import itertools
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamerjax.agent.agent import build_agent
from dreamerjax.config import AgentConfig, OptimizerConfig, ReturnsConfig
from dreamerjax.training import learner as module
from dreamerjax.training.learner import DISPATCHES_AHEAD, Learner
from dreamerjax.types import ActionSpec, Batch, ObsSpec, Spaces
from tests.tiny import MODEL

CONFIG = AgentConfig(
    model=MODEL, returns=ReturnsConfig(imagination_horizon=2), optimizer=OptimizerConfig(warmup_updates=0)
)
AGENT = build_agent(CONFIG, Spaces((ObsSpec("state", (3,)),), (ActionSpec("discrete", 2),)))
U, T, B = 2, 4, 2


def batches(seed: int) -> Batch:
    rng, lead = np.random.default_rng(seed), (U, T, B)
    return Batch(
        obs={"state": np.float32(rng.normal(size=(*lead, 3)))},
        prev_action=np.eye(2, dtype=np.float32)[rng.integers(2, size=lead)],
        reward=np.float32(rng.normal(size=lead)),
        is_first=rng.random(lead) < 0.2,
        is_last=np.zeros(lead, bool),
        is_terminal=np.zeros(lead, bool),
    )


def make(**options) -> Learner:
    learner = Learner(AGENT, seed=0, **options)
    learner.compile(("joint",), batches(0))
    while learner.compiling:
        time.sleep(0.01)
    return learner


def host(tree):
    return jax.tree.map(np.array, tree)


@pytest.fixture(scope="module")
def newest() -> list:
    """Parameters before and after each of three dispatches."""
    learner = make()
    seen = [host(learner.policy_params)]
    for seed in range(3):
        learner.update(batches(seed), "joint")
        assert learner.policy_params is learner.state.params
        seen.append(host(learner.policy_params))
    return seen


def test_on_the_learners_device_the_policy_has_the_newest_parameters(newest):
    for before, after in itertools.pairwise(newest):
        with pytest.raises(AssertionError):
            chex.assert_trees_all_equal(before, after)


def test_on_a_device_of_its_own_the_policy_is_exactly_one_dispatch_behind(newest):
    device = jax.local_devices(backend="cpu")[0]
    learner = make(policy_device=device)
    lagging = [host(learner.policy_params)]
    for seed in range(3):
        learner.update(batches(seed), "joint")
        assert jax.tree.leaves(learner.policy_params)[0].devices() == {device}
        lagging.append(host(learner.policy_params))
    chex.assert_trees_all_equal(lagging, [newest[0], newest[0], newest[1], newest[2]])
    chex.assert_trees_all_equal(host(learner.state.params), newest[3])

    learner.restore(jax.tree.map(jnp.copy, learner.state))
    chex.assert_trees_all_equal(host(learner.policy_params), newest[3])


def test_the_host_runs_only_so_far_ahead_of_the_device(monkeypatch):
    waited = []
    monkeypatch.setattr(module.jax, "block_until_ready", lambda results: waited.append(results))
    learner = make()
    metrics = [learner.update(batches(seed), "joint").metrics for seed in range(4)]
    assert [id(results) for results in waited] == [id(results) for results in metrics[: 4 - DISPATCHES_AHEAD]]
