"""The tree of moments of a dream with its real environment."""

from pathlib import Path

import numpy as np
import pytest

import dreamerjax
from dreamerjax.envs import EnvError
from dreamerjax.inference.dreamer import Dreamer
from dreamerjax.play import tree as tree_module
from dreamerjax.play.compiled_agent import CompiledAgent
from dreamerjax.play.episodes import StartEpisode, start_episodes
from dreamerjax.play.tree import Tree
from tests.tiny_run import make_run

LEFT, RIGHT = np.array([[1.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)


@pytest.fixture(scope="module")
def compiled(dreamer: Dreamer) -> CompiledAgent:
    return CompiledAgent(dreamer)


@pytest.fixture
def tree(dreamer: Dreamer, compiled: CompiledAgent):
    made = Tree(dreamer, compiled, seed=3)
    made.begin()
    yield made
    made.close()


def real(tree: Tree) -> np.ndarray:
    assert tree.now.real is not None
    return tree.now.real.rows.obs["state"][0]


def test_the_real_environment_steps_like_gymnasium(tree: Tree) -> None:
    import gymnasium

    env = gymnasium.make("CartPole-v1")
    env.reset()
    env.unwrapped.state = real(tree)  # pyright: ignore[reportAttributeAccessIssue]
    for action in (0, 1, 1):
        tree.step(LEFT if action == 0 else RIGHT)
        np.testing.assert_allclose(real(tree), env.step(action)[0], atol=1e-6)


def test_going_back_restores_the_moment_and_another_action_adds_a_branch(tree: Tree) -> None:
    for _ in range(4):
        tree.step(LEFT)
    fourth, there = tree.now.number, real(tree)
    tree.go(2)
    at_two, latent = real(tree), np.asarray(tree.now.output.state.deter)
    tree.step(RIGHT)
    assert tree.now.parent == 2
    assert tree.now.step == 3
    assert not np.allclose(real(tree), there)
    tree.go(2)
    np.testing.assert_array_equal(real(tree), at_two)
    np.testing.assert_array_equal(tree.now.output.state.deter, latent)
    tree.step(LEFT)
    tree.step(LEFT)
    np.testing.assert_array_equal(real(tree), there)  # the environment is deterministic
    tree.go(fourth)
    np.testing.assert_array_equal(real(tree), there)
    assert len(tree) == 8


def test_going_to_an_unknown_moment_changes_nothing(tree: Tree) -> None:
    tree.step(LEFT)
    assert tree.go(99) is None
    assert tree.now.number == 1


def test_the_dream_continues_after_the_real_episode(tree: Tree) -> None:
    while not tree.step(LEFT).real.rows.is_last[0]:  # pyright: ignore[reportOptionalMemberAccess]
        assert len(tree) < 50
    last = real(tree)
    assert np.isfinite(tree.now.output.surprise)
    after = tree.step(LEFT)
    assert after.real is not None
    assert after.real.over
    assert np.isnan(after.output.surprise)
    np.testing.assert_array_equal(real(tree), last)
    assert tree.picture(after) is not None
    tree.go(1)
    assert not tree.step(RIGHT).real.over  # pyright: ignore[reportOptionalMemberAccess]


def test_an_observing_agent_has_the_latent_states_of_the_real_episode(dreamer: Dreamer, tree: Tree) -> None:
    rows = [tree.now.real.rows]  # pyright: ignore[reportOptionalMemberAccess]
    for action in (LEFT, RIGHT, RIGHT):
        moment = tree.step(action)
        assert moment.blind == 0
        rows.append(moment.real.rows)  # pyright: ignore[reportOptionalMemberAccess]
    import jax

    seen = dreamer.encode(jax.tree.map(lambda *x: np.stack(x), *rows))
    # The first recurrent state follows from the zero state without sampling, so it must agree.
    tree.go(0)
    np.testing.assert_allclose(tree.now.output.state.deter, seen.states[0].deter, atol=1e-6)


def test_steps_without_observation_are_counted_along_each_branch(tree: Tree) -> None:
    tree.step(LEFT)
    tree.observing = False
    assert [tree.step(LEFT).blind for _ in range(3)] == [1, 2, 3]
    tree.go(2)
    assert tree.step(RIGHT).blind == 2
    tree.observing = True
    assert tree.step(RIGHT).blind == 0


def test_a_dream_starts_at_any_row_of_an_episode(dreamer: Dreamer, tree: Tree) -> None:
    episode = start_episodes(dreamer)[0]
    for t in (0, 5, 10_000):
        tree.begin(episode, t)
        there = episode.rows.obs["state"][min(t, len(episode.rows.reward) - 1), 0]
        np.testing.assert_allclose(real(tree), there, atol=1e-6)
        np.testing.assert_allclose(tree.picture(tree.now), tree.picture(tree.now))
    # Without a seed, the environment is set to the row's state.
    tree.begin(StartEpisode("replayed", episode.rows, None), 5)
    tree.step(LEFT)
    direct = real(tree)
    tree.begin(episode, 5)
    tree.step(LEFT)
    np.testing.assert_allclose(real(tree), direct, atol=1e-5)


def test_the_number_of_moments_is_limited(monkeypatch: pytest.MonkeyPatch, tree: Tree) -> None:
    monkeypatch.setattr(tree_module, "MAX_MOMENTS", 50)
    monkeypatch.setattr(tree_module, "KEPT_PATH", 20)
    tree.step(LEFT)
    tree.go(0)
    for _ in range(120):
        tree.step(LEFT)
    assert 30 <= len(tree) <= 50
    assert tree.root.number > 50
    numbers = {moment.number for moment in tree}
    assert all(moment.parent in numbers for moment in tree if moment is not tree.root)
    assert tree.go(1) is None


def test_a_dream_without_the_real_environment(
    monkeypatch: pytest.MonkeyPatch, dreamer: Dreamer, compiled: CompiledAgent
) -> None:
    def missing(*args: object, **options: object) -> None:
        raise EnvError("gym:CartPole-v1 is not installed.")

    monkeypatch.setattr("dreamerjax.inference.dreamer.make_env", missing)
    tree = Tree(dreamer, compiled, seed=0)
    assert "not installed" in tree.trouble
    assert start_episodes(dreamer) == []
    tree.begin()
    moment = tree.step(LEFT)
    assert moment.real is None
    assert tree.picture(moment) is None
    assert np.isfinite(moment.output.value)


def test_pixels_are_shown_as_observed_by_the_agent(tmp_path: Path) -> None:
    dreamer = dreamerjax.load(make_run(tmp_path / "a", obs="pixels"))
    tree = Tree(dreamer, CompiledAgent(dreamer), seed=0)
    tree.begin()
    picture = tree.picture(tree.step(LEFT))
    assert picture is not None
    assert picture.shape == (32, 48, 3)
    tree.close()
