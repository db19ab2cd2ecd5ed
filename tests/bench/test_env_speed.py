"""What is measured about the path from an environment to the replay; not how fast it is."""

import json

import pytest

from dreamerjax import cli
from dreamerjax.bench import env_speed
from dreamerjax.config import EnvConfig


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(env_speed, "STEPS", 30)


def test_every_step_of_a_round_is_made_on_both_sides(monkeypatch):
    """Time stands still but for the steps: each plain one takes 1 s, each of ours 3 s."""
    now = [0.0]
    monkeypatch.setattr(env_speed.time, "perf_counter", lambda: now[0])

    def slow(method, seconds):
        def run(*arguments, **options):
            now[0] += seconds
            return method(*arguments, **options)

        return run

    make_single, make_env = env_speed.make_single, env_speed.make_env

    def single(config):
        env = make_single(config)
        env.step, env.reset = slow(env.step, 1.0), slow(env.reset, 1.0)
        return env

    def vector(config, **options):
        env = make_env(config, **options)
        env.step = slow(env.step, 3.0 * env.num_envs)
        return env

    monkeypatch.setattr(env_speed, "make_single", single)
    monkeypatch.setattr(env_speed, "make_env", vector)
    monkeypatch.setattr(env_speed, "VectorEnv", object)
    for num_envs, result in zip(
        (1, 4, 16), env_speed.measure_env(EnvConfig(id="gym:CartPole-v1"), rounds=2), strict=True
    ):
        assert result["num_envs"] == num_envs
        assert result["plain_steps_per_second"] == pytest.approx(1.0, rel=0.15)  # some keyword resets are not slowed
        assert result["our_steps_per_second"] == pytest.approx(1 / 3)
        assert result["overhead_microseconds"] == pytest.approx(2e6 * num_envs, rel=0.15)


def test_the_command_prints_a_table_or_json(capsys):
    assert cli.main(["bench", "--env", "cartpole", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [(r["env"], r["num_envs"]) for r in results] == [("gym:CartPole-v1", num_envs) for num_envs in (1, 4, 16)]
    assert all(r["overhead_lowest"] <= r["overhead_microseconds"] <= r["overhead_highest"] for r in results)
    assert cli.main(["bench", "--env", "cartpole"]) == 0
    assert "plain Gymnasium" in capsys.readouterr().out
    assert cli.main(["bench", "--env", "cartpol"]) == 2
    assert "Did you mean `cartpole`?" in capsys.readouterr().err
