"""The same numbers on this back-end as on the CPU? One real update, forward and backward, on both.

The update is cut open: the loss metrics show the forward pass, the moved parameters and optimizer moments
the backward pass. Both machines get the same parameters, rows and random keys, in float32 with the most exact
matrix multiplication, so what remains is rounding. Latents are sampled, and rounding can tip a sample that lies
on the edge; the check is small enough for that to be rare, and tolerates none: run it again with another seed
before you believe in a fault.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dreamerjax.agent.agent import build_agent, init_train_state
from dreamerjax.agent.train_step import train_step
from dreamerjax.config import AgentConfig, Config, ModelConfig, OptimizerConfig, ReturnsConfig, resolve
from dreamerjax.host.backend import Backend
from dreamerjax.types import ActionSpec, Array, Batch, Metrics, ObsSpec, Spaces, TrainState

TOLERANCE = 1e-3  # of the largest magnitude in the same array; float32 rounding stays below 1e-4
LENGTH, SIZE, HORIZON = 6, 4, 3  # T, B, H


class Difference(NamedTuple):
    """How far one array is from the CPU's."""

    name: str
    relative: float  # largest difference over the largest magnitude


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
        seed: of parameters, rows and keys.

    Returns:
        The differences of every metric, parameter and optimizer moment, with a verdict.
    """
    spaces = Spaces((ObsSpec("state", (4,)),), (ActionSpec("discrete", 2),))
    config = resolve(
        Config(
            agent=AgentConfig(
                model=ModelConfig(size="300k"),
                returns=ReturnsConfig(imagination_horizon=HORIZON),
                optimizer=OptimizerConfig(warmup_updates=0),
                precision="float32",
            )
        )
    )
    agent = build_agent(config.agent, spaces)

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return train_step(agent, state, batch)[:2]

    compiled = jax.jit(update)
    cpu, device = jax.devices("cpu")[0], jax.devices()[0]
    with jax.default_matmul_precision("highest"):
        with jax.default_device(cpu):
            state = jax.jit(functools.partial(init_train_state, agent))(jax.random.PRNGKey(seed))
            batch = _rows(spaces, seed)
            state = _as_if_learned(state, bins=config.agent.model.bins, seed=seed)
            if backend.platform == "cpu":
                with jax.disable_jit():
                    reference = jax.device_get(update(state, batch))
            else:
                reference = jax.device_get(compiled(state, batch))
        with jax.default_device(device):
            result = jax.device_get(compiled(*jax.device_put((state, batch), device)))
    differences = _differences(result, reference)
    passed = all(d.relative <= TOLERANCE for d in differences)
    other = "the same operations one by one" if backend.platform == "cpu" else "the CPU"
    lines = [
        f"{backend.platform} ({backend.device}) against {other}: {len(differences)} arrays of one update, float32."
    ]
    lines += [f"  {d.relative:8.1e}  {d.name}" for d in differences[:8]]
    lines.append(
        f"Verdict: {'the same numbers' if passed else 'DIFFERENT NUMBERS'} (tolerance {TOLERANCE:g} of each array's "
        "largest magnitude; the largest differences are listed)."
    )
    return Report(passed, differences, "\n".join(lines))


def _as_if_learned(state: TrainState, *, bins: int, seed: int) -> TrainState:
    """A state whose every gradient is worth comparing.

    Heads start at zero, and with them the actor's gradient: so all parameters are moved. Moved alone, the farthest
    two-hot bins, of 5e8, would drown returns in rounding: so a bin is the less likely the farther it is.
    """
    generator = np.random.default_rng(seed)

    def moved(leaf: Array) -> Array:
        noise = jnp.asarray(generator.normal(0.0, 0.1, leaf.shape), leaf.dtype)
        return leaf + noise - (3 * jnp.abs(jnp.arange(bins) - bins // 2) if leaf.shape == (bins,) else 0)

    params, slow_critic = jax.tree.map(moved, (state.params, state.slow_critic))
    return dataclasses.replace(state, params=params, slow_critic=slow_critic)


def _rows(spaces: Spaces, seed: int) -> Batch:
    """Random rows with episode starts and ends."""
    generator = np.random.default_rng(seed)
    shape = (LENGTH, SIZE)
    is_last = generator.random(shape) < 0.2
    choice = generator.integers(spaces.action_size, size=shape)
    return Batch(
        obs={spec.name: jnp.float32(generator.normal(size=(*shape, *spec.shape))) for spec in spaces.obs},
        prev_action=jax.nn.one_hot(choice, spaces.action_size),
        reward=jnp.float32(generator.normal(size=shape)),
        is_first=jnp.asarray(np.concatenate([np.ones((1, SIZE), bool), is_last[:-1]])),
        is_last=jnp.asarray(is_last),
        is_terminal=jnp.asarray(is_last & (generator.random(shape) < 0.5)),
    )


def _differences(result: object, reference: object) -> list[Difference]:
    """Every array of floats, furthest first; not a number counts as infinitely far."""
    differences = []
    for (path, there), here in zip(
        jax.tree_util.tree_leaves_with_path(result), jax.tree.leaves(reference), strict=True
    ):
        if not jnp.issubdtype(there.dtype, jnp.floating):
            continue
        scale = max(float(np.abs(here).max()), 1e-6)
        relative = float(np.abs(there - here).max()) / scale
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        differences.append(Difference(name, relative if np.isfinite(relative) else float("inf")))
    return sorted(differences, key=lambda d: -d.relative)
