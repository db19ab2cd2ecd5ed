"""The self-check: passes where the numbers are the same, and names what differs where they are not."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamerjax import cli
from dreamerjax.agent.agent import init_train_state
from dreamerjax.config import ModelConfig
from dreamerjax.host import selfcheck
from dreamerjax.host.backend import Backend
from dreamerjax.host.selfcheck import TOLERANCE, Difference, Report, compare_with_cpu

CPU = Backend("cpu", "a test")
ACCELERATOR = Backend("rocm", "a test")  # whose device is the CPU, too
SHAPES = {"deter": 16, "hidden": 8, "groups": 4, "classes": 4, "blocks": 4, "bins": 31}
LAYERS = {f"{part}_layers": 1 for part in ("encoder", "decoder", "actor", "critic", "prior")}


@pytest.fixture(autouse=True)
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfcheck, "ModelConfig", lambda size: ModelConfig(size=size, **SHAPES, **LAYERS))


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a small update in the place of the real one, with a fault where it is compiled, but not step by step."""

    def add(fault: Callable[[Any, Any], tuple[Any, Any]]) -> None:
        def update(agent: Any, state: Any, batch: Any) -> tuple[Any, Any]:
            moved = jax.tree.map(lambda x: x + 0.125, state.params)
            state = dataclasses.replace(state, step=state.step + 1, params=moved)
            metrics = {"loss": batch.reward.mean(), "share": batch.is_last.mean()}
            compiled = isinstance(batch.reward, jax.core.Tracer)
            return fault(state, metrics) if compiled else (state, metrics)

        def initial(agent: Any, key: Any) -> Any:
            shapes = jax.eval_shape(lambda key: init_train_state(agent, key), key)
            return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)

        monkeypatch.setattr(selfcheck, "train_step", update)
        monkeypatch.setattr(selfcheck, "init_train_state", initial)

    return add


def no_fault(state: Any, metrics: Any) -> tuple[Any, Any]:
    return state, metrics


def wrong_loss(state: Any, metrics: Any) -> tuple[Any, Any]:
    return state, metrics | {"loss": 1.01 * metrics["loss"]}


def wrong_parameter(state: Any, metrics: Any) -> tuple[Any, Any]:
    """One number in one array."""
    first, *rest = jax.tree.leaves(state.params.critic)
    first = first.at[(0,) * first.ndim].add(1.0)
    critic = jax.tree.unflatten(jax.tree.structure(state.params.critic), [first, *rest])
    return dataclasses.replace(state, params=dataclasses.replace(state.params, critic=critic)), metrics


def no_number(state: Any, metrics: Any) -> tuple[Any, Any]:
    return state, metrics | {"share": metrics["share"] * jnp.nan}


def test_the_real_update_on_a_back_end_with_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    differences = selfcheck._differences
    monkeypatch.setattr(selfcheck, "_differences", lambda *both: compared.append(both) or differences(*both))
    report = compare_with_cpu(ACCELERATOR)
    metrics = compared[0][1][1]
    for part in ("world_model", "actor", "critic"):
        assert metrics[f"{part}_grad_norm"] > 1e-3, "a gradient that vanishes would make every back-end right"
    assert 1e-3 < abs(metrics["return_mean"]) < 1e3, "a return of millions would drown in rounding"
    assert report.passed
    assert "Verdict: the same numbers" in report.text
    assert "against the CPU" in report.text
    names = {difference.name for difference in report.differences}
    for part in ("params.world_model", "params.actor", "params.critic", "opt_state.world_model", "slow_critic"):
        assert any(name.startswith(f"0.{part}") for name in names), "the backward pass"
    assert {"1.reconstruction_loss", "1.actor_loss", "1.critic_loss"} <= names, "the forward pass"


def test_no_fault_passes(plant: Callable[..., None]) -> None:
    plant(no_fault)
    report = compare_with_cpu(CPU)
    assert report.passed
    assert report.differences[0].relative <= 1e-6
    assert "the same operations one by one" in report.text


@pytest.mark.parametrize(
    ("fault", "name"), [(wrong_loss, "1.loss"), (wrong_parameter, "0.params.critic."), (no_number, "1.share")]
)
def test_a_fault_is_found_and_named(plant: Callable[..., None], fault: Any, name: str) -> None:
    plant(fault)
    report = compare_with_cpu(CPU)
    assert not report.passed
    worst, second = report.differences[:2]
    assert worst.name.startswith(name)
    assert worst.relative > TOLERANCE > second.relative
    assert "DIFFERENT NUMBERS" in report.text
    assert worst.name in report.text


@pytest.mark.parametrize(
    ("there", "here", "relative"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([1.0, -4.0], [1.0, 4.0], 2.0),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 1e-6], [0.0, 0.0], 1.0),
        ([np.nan, 1.0], [1.0, 1.0], np.inf),
        ([1.0, 1.0], [np.nan, 1.0], np.inf),
        ([np.inf, 1.0], [1.0, 1.0], np.inf),
    ],
)
def test_differences_by_hand(there: list[float], here: list[float], relative: float) -> None:
    with np.errstate(all="ignore"):
        found = selfcheck._differences({"a": np.float32(there)}, {"a": np.float32(here)})
    assert found == [Difference("a", pytest.approx(relative))]


def test_differences_are_sorted_and_leave_out_whole_numbers() -> None:
    there = {"a": np.float32([1.0]), "b": {"c": np.float32([3.0])}, "steps": np.int32([9])}
    here = {"a": np.float32([1.0]), "b": {"c": np.float32([2.0])}, "steps": np.int32([1])}
    assert [(d.name, d.relative) for d in selfcheck._differences(there, here)] == [("b.c", 0.5), ("a", 0.0)]


@pytest.mark.parametrize(("passed", "code"), [(True, 0), (False, 1)])
def test_the_command_prints_the_report_and_ends_with_its_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], passed: bool, code: int
) -> None:
    monkeypatch.setattr(selfcheck, "compare_with_cpu", lambda backend: Report(passed, [], f"On {backend.platform}."))
    monkeypatch.setattr("dreamerjax.cli.common.enable_compilation_cache", lambda: None)
    assert cli.main(["selfcheck", "--backend", "cpu"]) == code
    assert capsys.readouterr().out == "On cpu.\n"
