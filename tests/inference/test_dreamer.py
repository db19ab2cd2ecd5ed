"""The public API: acting, encoding and dreaming."""

from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest

import dreamerjax
from dreamerjax.agent.dream import dream, encode, look
from dreamerjax.envs import EnvError
from dreamerjax.inference.dreamer import Dreamer
from dreamerjax.inference.open_loop import compare_open_loop, end_error, trusted_steps
from dreamerjax.runs.checkpoint import CheckpointError
from dreamerjax.runs.export import export
from dreamerjax.runs.load import load_run
from dreamerjax.runs.run_folder import RunFolderError
from dreamerjax.types import Batch
from tests.tiny_run import make_run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "a", steps=(100, 200))


@pytest.fixture(scope="module")
def agent(run_dir: Path) -> Dreamer:
    return dreamerjax.load(run_dir)


def test_an_episode_is_played_and_seen(agent: Dreamer) -> None:
    episode = agent.play(seed=1, frames=True)
    length = len(episode)
    assert episode.rows.is_first[:, 0].tolist() == [True] + [False] * (length - 1)
    assert episode.rows.is_last[-1, 0]
    assert episode.ret == length - 1
    assert episode.actions.shape == (length - 1, 1, 2)
    assert episode.frames is not None
    assert episode.frames.shape == (length, 400, 600, 3)
    seen = agent.encode(episode)
    assert seen.value.shape == seen.kl.shape == seen.post_entropy.shape == (length, 1)
    assert seen.obs["state"].shape == (length, 1, 4)
    assert seen.states[3].stoch.shape[0] == 1
    np.testing.assert_array_equal(agent.play(seed=1).rows.obs["state"], episode.rows.obs["state"])


@pytest.mark.parametrize("policy", ["greedy", "sample", "random", lambda obs, key: np.eye(2)[[1]]])
def test_each_policy_can_act(agent: Dreamer, policy: object) -> None:
    episode = agent.play(policy=policy, steps=4)  # pyright: ignore[reportArgumentType]
    assert len(episode) == 5
    assert (episode.actions.sum(-1) == 1).all()
    if callable(policy):
        assert (episode.actions[..., 1] == 1).all()


def test_an_environment_must_have_the_spaces_of_the_agent(agent: Dreamer) -> None:
    own = gymnasium.make("CartPole-v1")
    assert agent.play(own, seed=2, steps=5).rows.reward.sum() == 5
    with pytest.raises(EnvError, match="expected 1 with the agent's"):
        agent.play(gymnasium.make("Pendulum-v1"))


def test_encoding_is_that_of_the_pure_function_for_any_length(agent: Dreamer) -> None:
    episode = agent.play(policy="random", seed=3, steps=6)
    loaded = agent.loaded
    pure = encode(
        loaded.agent, loaded.state.params, Batch(**episode.rows._asdict()), jax.random.PRNGKey(0), cont_discount=1.0
    )
    seen = agent.encode(episode)
    # The first state of an episode does not depend on the samples; nor does the input of its value, up to rounding.
    np.testing.assert_allclose(seen.states[0].deter, pure.states[0].deter, atol=1e-6)
    np.testing.assert_allclose(seen.post_logits[0], pure.post_logits[0], atol=1e-5)


def test_dreams_have_the_shapes_that_are_asked_for(agent: Dreamer) -> None:
    episode = agent.play(seed=1, steps=8)
    seen = agent.encode(episode)
    under_policy = agent.dream(seen.states[2], horizon=7, copies=5)
    assert under_policy.obs["state"].shape == (7, 5, 4)
    assert (under_policy.action.sum(-1) == 1).all()
    given = agent.dream(seen.states[2], actions=episode.actions[2:6], copies=3)
    assert given.reward.shape == (4, 3)
    np.testing.assert_array_equal(given.action, np.repeat(episode.actions[2:6], 3, 1))
    by_function = agent.dream(seen.states[2], actions=lambda obs, key: np.eye(2)[[0]], horizon=3)
    assert (by_function.action[..., 0] == 1).all()
    assert ((given.cont >= 0) & (given.cont <= 1)).all()
    with pytest.raises(ValueError, match="A = 2"):
        agent.dream(seen.states[2], actions=np.zeros((3, 5)))


def test_copies_of_a_state_are_next_to_each_other(agent: Dreamer) -> None:
    rows = jax.tree.map(
        lambda *x: np.concatenate(x, 1), *(agent.play(policy="random", seed=s, steps=4).rows for s in (1, 2))
    )
    state = agent.encode(rows).states[2]
    actions = np.zeros((1, 2, 2), np.float32)
    actions[..., 0] = 1
    both = agent.dream(state, actions=actions, copies=3)
    deter = both.states[0].deter
    for first in (0, 3):  # the same state under the same action has the same recurrent state
        for other in (1, 2):
            np.testing.assert_allclose(deter[first], deter[first + other], atol=1e-6)
    assert not np.allclose(deter[0], deter[3])


def test_a_dream_starts_where_the_pure_one_does(agent: Dreamer) -> None:
    episode = agent.play(seed=1, steps=8)
    state = agent.encode(episode).states[4]
    loaded = agent.loaded
    actions = episode.actions[4:5]
    pure = dream(
        loaded.agent,
        loaded.state.params,
        state,
        jax.random.PRNGKey(0),
        horizon=1,
        cont_discount=loaded.state.knobs.cont_discount,
        actions=actions,
    )
    np.testing.assert_allclose(agent.dream(state, actions=actions).states[0].deter, pure.states[0].deter, atol=1e-6)


def test_look_does_what_observing_does(agent: Dreamer) -> None:
    """A dreamed step and then a look is `observe_step` with the same numbers."""
    episode = agent.play(seed=1, steps=6)
    loaded, seen = agent.loaded, agent.encode(episode)
    dreamed = agent.dream(seen.states[2], actions=episode.actions[2:3])
    obs = {name: x[3] for name, x in episode.rows.obs.items()}
    state, surprise = look(loaded.agent, loaded.state.params, dreamed.states[0], obs, jax.random.PRNGKey(1))
    np.testing.assert_allclose(state.deter, seen.states[3].deter, atol=1e-5)
    np.testing.assert_allclose(surprise, seen.kl[3], rtol=1e-4)


def test_checkpoints_by_step(run_dir: Path) -> None:
    assert dreamerjax.checkpoint_steps(run_dir) == [100, 200]
    assert dreamerjax.load(run_dir).loaded.env_steps == 200
    assert dreamerjax.load(run_dir, step=100).loaded.env_steps == 100
    with pytest.raises(CheckpointError, match=r"no checkpoint 150 .* one of: 100, 200"):
        dreamerjax.load(run_dir, step=150)


def test_an_agent_is_loaded_without_its_environment(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object, **options: object) -> None:
        raise EnvError("not installed")

    monkeypatch.setattr("dreamerjax.envs.make_single", missing)
    monkeypatch.setattr("dreamerjax.envs.serial.make_single", missing)
    agent = dreamerjax.load(run_dir)
    with pytest.raises(EnvError, match="not installed"):
        agent.play()


def test_an_exported_agent_is_the_same_up_to_rounding(run_dir: Path, tmp_path: Path) -> None:
    (run_dir / "metrics.jsonl").write_text('{"step": 1}\n')
    written = export(run_dir, tmp_path / "gift", steps=[100, None])
    assert [path.name for path in written] == ["0000000100", "0000000200"]
    there, here = load_run(tmp_path / "gift"), load_run(run_dir)
    assert there.agent.spaces == here.agent.spaces
    assert (there.env_steps, there.config) == (here.env_steps, here.config)
    for a, b in zip(jax.tree.leaves(there.state), jax.tree.leaves(here.state), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
    assert (tmp_path / "gift" / "metrics.jsonl").exists()
    with pytest.raises(RunFolderError, match="exists"):
        export(run_dir, tmp_path / "gift")


def test_fidelity_of_dreams(agent: Dreamer) -> None:
    compared = compare_open_loop(agent, acting="random", context=3, horizon=12, starts=6, copies=2)
    error = compared.error("state")
    count = compared.rows.reward.shape[1]
    assert [dream.obs["state"].shape for dream in compared.dreams] == [(12, count, 4)] * 2
    assert error.shape == (12, count, 4)
    truth = compared.rows.obs["state"][5, 0] - np.median([dream.obs["state"][5, 0] for dream in compared.dreams], 0)
    if compared.known[5, 0]:
        np.testing.assert_allclose(error[5, 0], np.abs(truth), rtol=1e-5)
    assert np.isnan(error[~compared.known]).all()
    assert (compared.survival <= 1).all()


def test_a_dream_that_continues_after_its_episode_has_actions(agent: Dreamer, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    dream = agent.dream
    monkeypatch.setattr(agent, "dream", lambda *args, **rest: given.append(rest["actions"]) or dream(*args, **rest))
    compared = compare_open_loop(agent, acting="random", context=1, horizon=60, starts=8, copies=1)
    reset = compared.rows.is_first
    assert reset.any()
    assert (compared.rows.prev_action[reset] == 0).all()  # the row of a reset has no action
    assert (given[0].sum(-1) == 1).all()
    np.testing.assert_array_equal(given[0][~reset], compared.rows.prev_action[~reset])


def test_trusted_steps() -> None:
    error = np.array([[0.0, 3.0, 1.0], [1.0, 0.0, np.nan], [5.0, 0.0, np.nan]])
    assert trusted_steps(error, 2.0).tolist() == [2, 0, 3]


def test_end_error(agent: Dreamer) -> None:
    compared = compare_open_loop(agent, acting="random", context=1, horizon=60, starts=8, copies=1)
    real = compared.rows.is_terminal.argmax(0)
    late = compared._replace(dreams=[dream.replace(cont=np.ones_like(dream.cont)) for dream in compared.dreams])
    for n in range(8):
        late.dreams[0].cont[real[n] + n % 3 :, n] = 0.1
    assert end_error(late).tolist() == [n % 3 for n in range(8)]
    over = np.arange(60)[:, None] >= real - 1  # given instead of the continue head
    assert end_error(late, over).tolist() == [-1] * 8
