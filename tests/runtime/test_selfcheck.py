"""The self-check passes if the numbers are the same, and names the differences if they are not."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from dreamerjax import cli
from dreamerjax.agent.agent import Agent, build_agent
from dreamerjax.agent.optimizer import build_optimizer
from dreamerjax.agent.train_step import update_gradients
from dreamerjax.config import ModelConfig, OptimizerConfig
from dreamerjax.runtime import selfcheck
from dreamerjax.runtime.backend import Backend
from dreamerjax.runtime.selfcheck import TOLERANCE, Difference, Machine, Report, compare_with_cpu, machine_of
from tests.flawed import Flaw, flawed

CPU = Backend("cpu", "a test")
ACCELERATOR = Backend("rocm", "a test")  # its device is also the CPU
SHAPES = {"deter": 16, "hidden": 8, "groups": 4, "classes": 4, "blocks": 4, "bins": 31}
PARTS = ("world_model", "actor", "critic")
LAYERS = {f"{part}_layers": 1 for part in ("encoder", "decoder", "actor", "critic", "prior")}


MODEL = ModelConfig(size="300k", **SHAPES, **LAYERS)
OF_OPTIMIZER = {f"{kind}.{part}" for kind in ("step", "moments") for part in PARTS} | {"slow_critic"}
RECURRENT = (4, 4, 4)  # shape of the kernel of the recurrent layer, in blocks


class Devices(NamedTuple):
    """A machine with correct numbers, and one for each fault."""

    agent: Agent
    right: Machine
    flawed: Callable[..., Machine]

    def with_optimizer(self, optimizer: optax.GradientTransformation) -> Machine:
        other = machine_of(self.agent._replace(optimizer=optimizer), jax.devices()[0])
        return self.right._replace(optimizer=other.optimizer)


@pytest.fixture(scope="module")
def devices() -> Devices:
    config = dataclasses.replace(selfcheck._config().agent, model=MODEL)
    agent = build_agent(config, selfcheck.SPACES)
    inputs = (selfcheck._random_state(agent, 0), selfcheck._rows(0))
    right = machine_of(agent, jax.devices()[0])

    def update(representation_scale: Any, state: Any, batch: Any) -> Any:
        """With the weight of one loss as data, so that the program without the loss is not compiled again."""
        world_model = dataclasses.replace(config.world_model, representation_scale=representation_scale)
        changed = agent._replace(config=dataclasses.replace(config, world_model=world_model))
        gradients = update_gradients(changed, state, batch)
        return gradients.metrics, gradients.grads

    compiled = jax.jit(flawed(update, jnp.float32(0.1), *inputs, kernel=RECURRENT))

    def machine(flaw: Flaw, representation_scale: float = config.world_model.representation_scale) -> Machine:
        weight = jnp.float32(representation_scale)
        return right._replace(gradients=lambda *inputs: jax.device_get(compiled(flaw, weight, *inputs)))

    return Devices(agent, machine(Flaw()), machine)


def found(devices: Devices, machine: Machine, *, seed: int = 0) -> dict[str, float]:
    """The differences above the tolerance."""
    differences = selfcheck.compare_updates(devices.agent, machine, devices.right, seed=seed)
    return {name: relative for name, relative in differences if relative > TOLERANCE}


def groups(names: Iterable[str]) -> set[str]:
    """metrics, gradient.actor, ..."""
    return {".".join(name.split(".")[: 1 if name.startswith(("metrics", "slow_critic")) else 2]) for name in names}


def test_no_part_of_the_update_vanishes(devices: Devices) -> None:
    state, batch = selfcheck._random_state(devices.agent, 0), selfcheck._rows(0)
    metrics, grads = devices.right.gradients(state, batch)
    for part in ("world_model", "actor", "critic"):
        assert metrics[f"{part}_grad_norm"] > 1e-3, "a gradient of 0 would pass on every back-end"
        assert all(np.abs(x).max() > 1e-5 for x in jax.tree.leaves(grads[part]))
    assert 1e-3 < abs(metrics["return_mean"]) < 1e3, "a return of millions would have large rounding errors"
    compared = groups(
        difference.name for difference in selfcheck.compare_updates(devices.agent, devices.right, devices.right)
    )
    assert compared == OF_OPTIMIZER | {"metrics", *(f"gradient.{part}" for part in PARTS)}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rounding_of_all_products_passes(devices: Devices, seed: int) -> None:
    """Rounds off the last bit of the mantissa of all factors, forward and backward."""
    differences = selfcheck.compare_updates(devices.agent, devices.flawed(Flaw(bits=22)), devices.right, seed=seed)
    assert 1e-8 < differences[0].relative < TOLERANCE / 10
    assert all(relative == 0 for name, relative in differences if not name.startswith(("metrics", "gradient")))


@pytest.mark.parametrize("seed", [0, 1])
def test_gradients_that_are_zero_up_to_rounding_pass(devices: Devices, seed: int) -> None:
    """Another order of summation: an error relative to the largest gradient, also where the gradient itself is 0."""
    generator = np.random.default_rng(seed)

    def exact(state: Any, batch: Any) -> Any:
        """The actor's hidden layer has no gradient; unused two-hot bins have almost none."""
        metrics, grads = devices.right.gradients(state, batch)
        grads["actor"]["params"]["mlp"] = jax.tree.map(np.zeros_like, grads["actor"]["params"]["mlp"])
        return metrics, grads

    def rounded(state: Any, batch: Any) -> Any:
        metrics, grads = exact(state, batch)
        for name, grad in grads.items():
            error = 1e-7 * max(np.abs(x).max() for x in jax.tree.leaves(grad))
            grads[name] = jax.tree.map(lambda x, e=error: x + np.float32(e * generator.uniform(-1, 1, x.shape)), grad)
        return metrics, grads

    reference = devices.right._replace(gradients=exact)
    differences = selfcheck.compare_updates(
        devices.agent, devices.right._replace(gradients=rounded), reference, seed=seed
    )
    assert 1e-5 < differences[0].relative < TOLERANCE / 5


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "flaw", [Flaw(transposed=True), Flaw(bits=10), Flaw(bits=7)], ids=["transposed", "TF32", "bfloat16"]
)
def test_a_fault_of_the_products_is_found(devices: Devices, flaw: Flaw, seed: int) -> None:
    """One layer multiplies by the transpose of its kernel; or the factors of all products are rounded."""
    differing = found(devices, devices.flawed(flaw), seed=seed)
    assert max(differing.values()) > 1.5 * TOLERANCE
    assert groups(differing) >= {"gradient.actor", "gradient.world_model"}
    assert not groups(differing) & OF_OPTIMIZER, "the optimizer is compared separately"


def test_a_loss_that_is_left_out_is_found(devices: Devices) -> None:
    """Only the gradients show it: the metric of this loss is correct."""
    differing = found(devices, devices.flawed(Flaw(), representation_scale=0.0))
    assert groups(differing) >= {"gradient.world_model"}
    assert "metrics.representation_loss" not in differing
    assert not groups(differing) & (OF_OPTIMIZER | {"gradient.actor", "gradient.critic"})


def test_a_term_of_a_loss_that_is_left_out_is_found(devices: Devices) -> None:
    """The entropy, a thirtieth of the actor's advantage."""

    def elsewhere(state: Any, batch: Any) -> Any:
        knobs = dataclasses.replace(state.knobs, entropy_scale=jnp.zeros(()))
        return devices.right.gradients(dataclasses.replace(state, knobs=knobs), batch)

    assert "gradient.actor" in groups(found(devices, devices.right._replace(gradients=elsewhere)))


def negated(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    def update(grads: Any, state: Any, params: Any = None) -> Any:
        direction, state = optimizer.update(grads, state, params)
        return jax.tree.map(jnp.negative, direction), state

    return optax.GradientTransformation(optimizer.init, update)


OPTIMIZER = OptimizerConfig(warmup_updates=0)


@pytest.mark.parametrize(
    "optimizer",
    [
        negated(build_optimizer(OPTIMIZER)),
        build_optimizer(dataclasses.replace(OPTIMIZER, epsilon=1e-8)),
        build_optimizer(dataclasses.replace(OPTIMIZER, beta1=0.91)),
    ],
    ids=["sign", "epsilon", "momentum"],
)
def test_a_fault_of_the_optimizer_is_found(devices: Devices, optimizer: optax.GradientTransformation) -> None:
    differing = found(devices, devices.with_optimizer(optimizer))
    assert groups(differing) >= {f"step.{part}" for part in PARTS} | {"slow_critic"}
    assert groups(differing) <= OF_OPTIMIZER


def test_no_square_of_a_gradient_underflows_in_the_optimizer(devices: Devices) -> None:
    """An underflow on one machine only would make a step of 300 there and of 1 on the other."""
    state = selfcheck._random_state(devices.agent, 0)

    def of_all_sizes(x: Any) -> np.ndarray:
        return np.geomspace(1e-30, 1.0, x.size, dtype=np.float32).reshape(x.shape)

    grads = {name: jax.tree.map(of_all_sizes, getattr(state.params, name)) for name in PARTS}
    resolved = selfcheck._resolved(grads)
    state = selfcheck._with_moments(devices.right, state, resolved, seed=0)
    for name in PARTS:
        flat, _ = ravel_pytree(resolved[name])
        (squares,) = (
            x for x in jax.tree.leaves(getattr(state.opt_state, name)) if x.shape == flat.shape and min(x) >= 0
        )
        np.testing.assert_array_equal(squares > 0, flat > 0)
        assert 0.1 < (flat == 0).mean() < 0.9


def stub(metrics: Callable[[Any], Any] = float) -> Machine:
    """Computes almost nothing."""

    def gradients(state: Any, batch: Any) -> Any:
        return {"loss": np.float32(metrics(1.5)), "share": np.float32(0.5)}, {}

    return Machine(gradients, lambda state, grads: jax.tree.map(np.asarray, state))


def verdict(monkeypatch: pytest.MonkeyPatch, machine: Machine, backend: Backend = ACCELERATOR) -> Report:
    """The command with the given machine and a correct one."""
    machines = iter([machine, stub()])
    monkeypatch.setattr(selfcheck, "machine_of", lambda agent, device: next(machines))
    return compare_with_cpu(backend)


def test_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    report = verdict(monkeypatch, stub())
    assert report.passed
    assert report.differences[0].relative == 0
    assert report.text.startswith("rocm (a test) against the CPU: ")
    assert report.text.count("seed 0") == 1
    assert "Verdict: the same numbers" in report.text


@pytest.mark.parametrize("wrong", [1.01, float("nan")])
def test_a_difference_with_every_seed_is_a_fault(monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    report = verdict(monkeypatch, stub(lambda x: x * wrong))
    assert not report.passed
    worst, second = report.differences[:2]
    assert worst.name == "metrics.loss"
    assert worst.relative > TOLERANCE > second.relative
    assert "seed 1" in report.text
    assert "DIFFERENT NUMBERS" in report.text


def test_a_difference_with_only_one_seed_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    tips = iter([1.3, 1.0])
    report = verdict(monkeypatch, stub(lambda x: x * next(tips)))
    assert report.passed
    assert "2.0e-01  metrics.loss" in report.text or "3.0e-01  metrics.loss" in report.text
    assert "Only one seed shows a difference" in report.text


def test_the_reference_on_the_cpu_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled function adds to a traced array; without compilation, there is none."""

    @jax.jit
    def loss(x: Any) -> Any:
        return x + 1.0 * isinstance(x, jax.core.Tracer)

    report = verdict(monkeypatch, stub(loss), CPU)
    assert not report.passed
    assert "against the same operations one by one" in report.text


@pytest.mark.parametrize(
    ("there", "here", "relative"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([1.0, -4.0], [1.0, 4.0], 2.0),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 1e-6], [0.0, 1e-6], 0.0),
        ([0.0, 2e-9], [0.0, 1e-9], 1.0),
        ([np.nan, 1.0], [1.0, 1.0], np.inf),
        ([1.0, 1.0], [np.nan, 1.0], np.inf),
        ([np.inf, 1.0], [1.0, 1.0], np.inf),
        ([np.inf, 1.0], [np.inf, 1.0], np.inf),
    ],
)
def test_differences_by_hand(there: list[float], here: list[float], relative: float) -> None:
    differences = selfcheck._differences("of", {"a": np.float32(there)}, {"a": np.float32(here)})
    assert differences == [Difference("of.a", pytest.approx(relative))]


def test_the_scale_of_a_small_array_depends_on_its_group() -> None:
    """0 up to rounding, in a group with 100: with a floor of 1e-3, the scale is 0.1."""
    there, here = (
        {"a": np.float32([100.0]), "b": {"c": np.float32([x])}, "steps": np.int32([9])} for x in (2e-6, 1e-6)
    )
    assert selfcheck._differences("of", there, here, floor=1e-3) == [("of.a", 0), ("of.b.c", pytest.approx(1e-5))]
    assert selfcheck._differences("of", there, here) == [("of.a", 0), ("of.b.c", pytest.approx(1))]


@pytest.mark.parametrize(("passed", "code"), [(True, 0), (False, 1)])
def test_the_command_prints_the_report_and_ends_with_its_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], passed: bool, code: int
) -> None:
    monkeypatch.setattr(selfcheck, "compare_with_cpu", lambda backend: Report(passed, [], f"On {backend.platform}."))
    monkeypatch.setattr("dreamerjax.cli.common.enable_compilation_cache", lambda: None)
    assert cli.main(["selfcheck", "--backend", "cpu"]) == code
    assert capsys.readouterr().out == "On cpu.\n"
