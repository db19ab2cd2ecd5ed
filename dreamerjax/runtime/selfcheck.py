"""The same numbers on this back-end as on the CPU? One real update, forward and backward, on both.

The update is cut open, and each part gets the same numbers on both machines: the metrics show the forward pass, the
gradients the backward pass, and the optimizer is compared apart from them, on the CPU's gradients. For it divides each
gradient by the gradient's own size: where a gradient is 0 but for rounding, rounding alone decides between a full step
up and a full step down, on a healthy machine, too.

Everything is computed in float32 with the most exact matrix multiplication, so what remains is rounding. Latents are
sampled, and rounding can tip a sample that lies on the edge, after which all numbers are others: with 3,000 samples of
four classes and errors of 1e-6, about one healthy machine in fifty has one. A fault shows with every seed, so a
difference counts only if another seed has one, too.
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
FLOOR = 1e-3  # no array of gradients is measured by less than this share of the largest magnitude in its network
SMALLEST = 1e-12  # gradients below it are 0 for the optimizer: see `_resolved`
EARLIER = 3  # updates of the optimizer before the one that is compared, so that its moments are not zero
SEEDS = 2  # that must all show a difference
LENGTH, SIZE, HORIZON = 6, 4, 3  # T, B, H
SPACES = Spaces((ObsSpec("state", (4,)),), (ActionSpec("discrete", 2),))

Grads = dict[str, Variables]  # by field of `Params`


class Machine(NamedTuple):
    """How one machine computes the two parts of an update: from arrays of any device to arrays of numpy."""

    gradients: Callable[[TrainState, Batch], tuple[Metrics, Grads]]
    optimizer: Callable[[TrainState, Grads], TrainState]


class Difference(NamedTuple):
    """How far one array is from the CPU's."""

    name: str
    relative: float  # largest difference over the magnitude that it is measured by


class Report(NamedTuple):
    """The verdict, and why."""

    passed: bool
    differences: list[Difference]  # largest first
    text: str


def compare_with_cpu(backend: Backend, *, seed: int = 0) -> Report:
    """Makes one update on the back-end and one on the CPU.

    On the CPU itself, the compiled update is compared with the same operations one by one, without the compiler's
    fusions.

    Args:
        backend: selected with `also_cpu`.
        seed: of parameters, rows and keys; the next one is tried, too, if there are differences.

    Returns:
        The differences of every metric and gradient, and of every step and moment of the optimizer, with a verdict.
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
        lines.append("Only one seed shows a difference: rounding tipped a sample that lay on the edge.")
    lines.append(
        f"Verdict: {'the same numbers' if passed else 'DIFFERENT NUMBERS'} (tolerance {TOLERANCE:g} of each array's "
        "largest magnitude; the largest differences are listed)."
    )
    return Report(passed, differences, "\n".join(lines))


def compare_updates(agent: Agent, machine: Machine, reference: Machine, *, seed: int = 0) -> list[Difference]:
    """Every array of one update on both machines, furthest first.

    Args:
        agent: the static parts.
        machine: in question.
        reference: whose numbers are right.
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
    """Traced once for all devices."""

    def gradients(state: TrainState, batch: Batch) -> tuple[Metrics, Grads]:
        found = update_gradients(agent, state, batch)
        return found.metrics, found.grads

    return Machine(jax.jit(gradients), jax.jit(functools.partial(apply_gradients, agent)))


def uncompiled(machine: Machine) -> Machine:
    """The same operations without a compiler that sees more than one of them."""

    def uncompiled(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            with jax.disable_jit():
                return function(*inputs)

        return run

    return Machine(uncompiled(machine.gradients), uncompiled(machine.optimizer))


def _config() -> Config:
    return resolve(
        Config(
            agent=AgentConfig(
                model=ModelConfig(size="300k"),
                world_model=WorldModelConfig(free_nats=0.1),  # the prior gets no gradient where its KL is below
                returns=ReturnsConfig(imagination_horizon=HORIZON),
                optimizer=OptimizerConfig(warmup_updates=0),
                precision="float32",
            )
        )
    )


def _random_state(agent: Agent, seed: int) -> TrainState:
    """A state whose every gradient is worth comparing.

    Heads start at zero, and with them the actor's gradient: so all parameters are random here. Then the farthest
    two-hot bins, of 5e8, would drown returns in rounding: so a bin is the less likely the farther it is. Learning rates
    are 1, or the parameters' own rounding would hide what the optimizer adds to them.
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
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)  # as the optimizer's first state is
    knobs = init_knobs(agent.config)
    knobs = dataclasses.replace(knobs, **{name: jnp.ones(()) for name in vars(knobs) if name.endswith("learning_rate")})
    return dataclasses.replace(zeros, params=params, slow_critic=slow_critic, knobs=knobs, key=key)


def _resolved(grads: Grads) -> Grads:
    """The gradients with 0 for those that the optimizer cannot resolve in float32.

    The square of a gradient of 1e-18 is below float32's normal numbers. Some machines keep it and some take it for 0,
    as they may; divided by its root, the step is 1 on the former and 300 on the latter.
    """
    return jax.tree.map(lambda x: np.where(np.abs(x) < SMALLEST, np.zeros_like(x), x), grads)


def _with_moments(machine: Machine, state: TrainState, grads: Grads, seed: int) -> TrainState:
    """The state with the optimizer's moments after some updates on gradients of this size; nothing else has moved.

    Without a past, every step would be plus or minus one, whatever the gradient.
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
    """Every array of floats of one group; not a number counts as infinitely far.

    An array is measured by the largest magnitude in it, and by no less than a share of the largest in its group, the
    floor. A gradient is a sum whose terms may cancel, and rounding is a share of the terms, not of what they leave: an
    array of gradients that are 0 but for rounding has nothing in it to be measured by. Its terms are of the size of
    the other gradients of its network, which come from the same losses. `TOLERANCE` times `FLOOR` of these are 1e-6,
    sixteen times the rounding of a float32.

    Args:
        name: of the group, in front of the arrays' own.
        result: a pytree of arrays.
        reference: the same with the right numbers.
        floor: a share of the largest magnitude in the group; 0 where numbers are no sums.
    """
    pairs = [
        (path, np.asarray(there), np.asarray(here))
        for (path, there), here in zip(
            jax.tree_util.tree_leaves_with_path(result), jax.tree.leaves(reference), strict=True
        )
        if jnp.issubdtype(there.dtype, jnp.floating)
    ]
    largest = [float(np.abs(here).max()) for _, _, here in pairs]
    least = max(floor * max(largest, default=0.0), float(np.finfo(np.float32).tiny))
    differences = []
    for (path, there, here), own in zip(pairs, largest, strict=True):
        with np.errstate(invalid="ignore"):
            relative = float(np.abs(there - here).max()) / max(own, least)
        full = f"{name}.{jax.tree_util.keystr(path, simple=True, separator='.')}"
        differences.append(Difference(full, relative if np.isfinite(relative) else float("inf")))
    return differences
