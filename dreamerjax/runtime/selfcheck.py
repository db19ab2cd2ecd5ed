"""Checks that this back-end computes the same numbers as the CPU, with one full update on both.

The update is compared in parts with the same inputs on both machines: metrics for the forward pass, gradients for the
backward pass, and the optimizer separately, on the CPU's gradients. The optimizer normalises gradients by their own
size: where a gradient is 0 up to rounding, rounding alone decides between a full step up and a full step down, also on
a healthy machine.

All parts are computed in float32 with the highest matrix multiplication precision, so that only rounding differs.
Latents are sampled, and rounding can change a sample near a threshold, after which all numbers differ: with 3,000
samples of four classes and errors of 1e-6, this happens on about one healthy machine in fifty. A fault appears with
every seed, so a difference counts only if a second seed shows one, too.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dreamerjax.agent.agent import Agent, build_agent, init_knobs, init_train_state
from dreamerjax.agent.train_step import apply_gradients, update_gradients
from dreamerjax.config import (
    AgentConfig,
    Config,
    ModelConfig,
    OptimizerConfig,
    ReturnsConfig,
    WorldModelConfig,
    resolve,
)
from dreamerjax.runtime.backend import Backend
from dreamerjax.types import ActionSpec, Batch, Device, Metrics, ObsSpec, Spaces, TrainState, Variables

TOLERANCE = 1e-3  # of the largest magnitude in the same array; float32 rounding stays below 1e-4
FLOOR = 1e-3  # least scale of an array of gradients, as a share of the largest magnitude in its network
SMALLEST = 1e-12  # smaller gradients are set to 0 for the optimizer: see `_resolved`
EARLIER = 3  # optimizer updates before the compared one, to make its moments nonzero
SEEDS = 2  # the check fails only if all of them show a difference
LENGTH, SIZE, HORIZON = 6, 4, 3  # T, B, H
SPACES = Spaces((ObsSpec("state", (4,)),), (ActionSpec("discrete", 2),))

Grads = dict[str, Variables]  # by field of `Params`


class Machine(NamedTuple):
    """The two parts of an update on one machine: functions from arrays on any device to numpy arrays."""

    gradients: Callable[[TrainState, Batch], tuple[Metrics, Grads]]
    optimizer: Callable[[TrainState, Grads], TrainState]


class Difference(NamedTuple):
    """The difference of one array from the CPU's."""

    name: str
    relative: float  # largest absolute difference, divided by the array's scale


class Report(NamedTuple):
    """The verdict and the differences."""

    passed: bool
    differences: list[Difference]  # largest first
    text: str


def compare_with_cpu(backend: Backend, *, seed: int = 0) -> Report:
    """Compares one update on the back-end with the same update on the CPU.

    On the CPU itself, the compiled update is compared with the same operations executed one by one, without fusion.

    Args:
        backend: selected with `also_cpu`.
        seed: of parameters, rows and keys; if there are differences, the next seed is tried, too.

    Returns:
        The differences of all metrics and gradients, and of all steps and moments of the optimizer, with a verdict.
    """
    agent = build_agent(_config().agent, SPACES)
    machine, here = machine_of(agent, jax.devices()[0]), jax.devices("cpu")[0]
    alone = backend.platform == "cpu"
    reference = uncompiled(machine) if alone else machine_of(agent, here)
    other = "the same operations one by one" if alone else "the CPU"
    lines = []
    for attempt in range(seed, seed + SEEDS):
        differences = compare_updates(agent, machine, reference, seed=attempt)
        passed = all(d.relative <= TOLERANCE for d in differences)
        lines.append(
            f"{backend.platform} ({backend.device}) against {other}: {len(differences)} arrays of one update, float32, "
            f"seed {attempt}."
        )
        lines += [f"  {d.relative:8.1e}  {d.name}" for d in differences[:8]]
        if passed:
            break
    if passed and attempt > seed:
        lines.append("Only one seed shows a difference: rounding changed a sample near its threshold.")
    lines.append(
        f"Verdict: {'the same numbers' if passed else 'DIFFERENT NUMBERS'} (tolerance {TOLERANCE:g} of each array's "
        "largest magnitude; the largest differences are listed)."
    )
    return Report(passed, differences, "\n".join(lines))


def compare_updates(agent: Agent, machine: Machine, reference: Machine, *, seed: int = 0) -> list[Difference]:
    """Compares all arrays of one update on two machines; largest differences first.

    Args:
        agent: the static parts.
        machine: to check.
        reference: with correct numbers.
        seed: of parameters, rows and keys.
    """
    with jax.default_device(jax.devices("cpu")[0]):
        state, batch = _random_state(agent, seed), _rows(seed)
    (metrics, grads), (metrics_there, grads_there) = (each.gradients(state, batch) for each in (reference, machine))
    differences = _differences("metrics", metrics_there, metrics, floor=FLOOR)
    for name, grad in grads.items():
        differences += _differences(f"gradient.{name}", grads_there[name], grad, floor=FLOOR)

    grads = _resolved(grads)
    state = _with_moments(reference, state, grads, seed)
    after, there = (each.optimizer(state, grads) for each in (reference, machine))
    for name in grads:
        before, moved, moved_there = (getattr(x.params, name) for x in (state, after, there))
        steps = (jax.tree.map(np.subtract, x, before) for x in (moved_there, moved))
        differences += _differences(f"step.{name}", *steps)
        differences += _differences(f"moments.{name}", getattr(there.opt_state, name), getattr(after.opt_state, name))
    differences += _differences("slow_critic", there.slow_critic, after.slow_critic)
    return sorted(differences, key=lambda d: -d.relative)


def machine_of(agent: Agent, device: Device) -> Machine:
    """The compiled update on a device."""

    def placed(compiled: Callable[..., Any]) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            with jax.default_device(device), jax.default_matmul_precision("highest"):
                return jax.device_get(compiled(*jax.device_put(inputs, device)))

        return run

    return Machine(*map(placed, _programs(agent)))


@functools.lru_cache(maxsize=1)
def _programs(agent: Agent) -> Machine:
    """The two functions, traced once for all devices."""

    def gradients(state: TrainState, batch: Batch) -> tuple[Metrics, Grads]:
        found = update_gradients(agent, state, batch)
        return found.metrics, found.grads

    return Machine(jax.jit(gradients), jax.jit(functools.partial(apply_gradients, agent)))


def uncompiled(machine: Machine) -> Machine:
    """The same operations, compiled one by one."""

    def eager(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            with jax.disable_jit():
                return function(*inputs)

        return run

    return Machine(eager(machine.gradients), eager(machine.optimizer))


def _config() -> Config:
    return resolve(
        Config(
            agent=AgentConfig(
                model=ModelConfig(size="300k"),
                world_model=WorldModelConfig(free_nats=0.1),  # the prior has no gradient where its KL is below
                returns=ReturnsConfig(imagination_horizon=HORIZON),
                optimizer=OptimizerConfig(warmup_updates=0),
                precision="float32",
            )
        )
    )


def _random_state(agent: Agent, seed: int) -> TrainState:
    """A state with nonzero gradients for all parameters.

    All parameters are random: at initialization, the heads and the actor's gradient are zero. The biases of two-hot
    bins decrease with distance from the centre, because the outermost bins, of 5e8, would dominate returns with
    rounding errors. Learning rates are 1, so that the parameters' rounding does not hide the optimizer's steps.
    """
    generator, bins = np.random.default_rng(seed), agent.config.model.bins

    def random(path: Any, leaf: Any) -> np.ndarray:
        values = generator.normal(1.0 if path[-1].key == "scale" else 0.0, 0.2, leaf.shape)
        if leaf.shape == (bins,):
            values -= 3 * np.abs(np.arange(bins) - bins // 2)
        return values.astype(leaf.dtype)

    key = jax.random.PRNGKey(seed)
    shapes = jax.eval_shape(functools.partial(init_train_state, agent), key)
    params, slow_critic = jax.tree_util.tree_map_with_path(random, (shapes.params, shapes.slow_critic))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)  # also the optimizer's initial state
    knobs = init_knobs(agent.config)
    knobs = dataclasses.replace(knobs, **{name: jnp.ones(()) for name in vars(knobs) if name.endswith("learning_rate")})
    return dataclasses.replace(zeros, params=params, slow_critic=slow_critic, knobs=knobs, key=key)


def _resolved(grads: Grads) -> Grads:
    """Sets gradients to 0 if the optimizer cannot resolve them in float32.

    The square of a gradient of 1e-18 is subnormal in float32. Machines may keep it or flush it to 0; after division by
    its root, the step is 1 on the former and 300 on the latter.
    """
    return jax.tree.map(lambda x: np.where(np.abs(x) < SMALLEST, np.zeros_like(x), x), grads)


def _with_moments(machine: Machine, state: TrainState, grads: Grads, seed: int) -> TrainState:
    """The state with the optimizer's moments after some updates on gradients of this size; all else is unchanged.

    With zero moments, every step would be plus or minus one for any gradient.
    """
    generator = np.random.default_rng(seed)
    for _ in range(EARLIER):
        earlier = jax.tree.map(lambda x: x * generator.normal(size=x.shape).astype(x.dtype), grads)
        state = dataclasses.replace(state, opt_state=machine.optimizer(state, earlier).opt_state)
    return state


def _rows(seed: int) -> Batch:
    """Random rows with episode starts and ends."""
    generator = np.random.default_rng(seed)
    shape = (LENGTH, SIZE)
    is_last = generator.random(shape) < 0.2
    choice = generator.integers(SPACES.action_size, size=shape)
    return Batch(
        obs={spec.name: jnp.float32(generator.normal(size=(*shape, *spec.shape))) for spec in SPACES.obs},
        prev_action=jax.nn.one_hot(choice, SPACES.action_size),
        reward=jnp.float32(generator.normal(size=shape)),
        is_first=jnp.asarray(np.concatenate([np.ones((1, SIZE), bool), is_last[:-1]])),
        is_last=jnp.asarray(is_last),
        is_terminal=jnp.asarray(is_last & (generator.random(shape) < 0.5)),
    )


def _differences(name: str, result: Any, reference: Any, *, floor: float = 0.0) -> list[Difference]:
    """The differences of all float arrays of one group; NaN counts as infinite.

    The scale of an array is its largest magnitude, but at least `floor` times the largest magnitude in its group. A
    gradient is a sum with terms that may cancel, and its rounding error is proportional to the terms, not to the sum:
    an array of gradients that are 0 up to rounding has no scale of its own. Its terms have the size of the network's
    other gradients, which come from the same losses. `TOLERANCE` times `FLOOR` is 1e-6, sixteen times float32's
    rounding.

    Args:
        name: of the group, the prefix of the arrays' names.
        result: a pytree of arrays.
        reference: the same with correct numbers.
        floor: a share of the largest magnitude in the group; 0 for numbers that are not sums.
    """
    pairs = [
        (path, np.asarray(there), np.asarray(here))
        for (path, there), here in zip(
            jax.tree_util.tree_leaves_with_path(result), jax.tree.leaves(reference), strict=True
        )
        if jnp.issubdtype(there.dtype, jnp.floating)
    ]
    largest = [float(np.abs(here).max()) for _, _, here in pairs]
    smallest = max(floor * max(largest, default=0.0), float(np.finfo(np.float32).tiny))
    differences = []
    for (path, there, here), own in zip(pairs, largest, strict=True):
        with np.errstate(invalid="ignore"):
            relative = float(np.abs(there - here).max()) / max(own, smallest)
        full = f"{name}.{jax.tree_util.keystr(path, simple=True, separator='.')}"
        differences.append(Difference(full, relative if np.isfinite(relative) else float("inf")))
    return differences
