"""Gymnasium's `reward_threshold`, the mean return that counts as solved, if it applies to an environment.

It does not apply if the rewards or the episode length differ from those of the registered environment: with other
arguments, another time limit, or a wrapper that may change the reward. It applies with repeated actions
(`env.action_repeat`), because their rewards are summed.
"""

import math
import numbers
from collections.abc import Iterator
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.wrappers import (
    FrameStackObservation,
    HumanRendering,
    OrderEnforcing,
    PassiveEnvChecker,
    RecordEpisodeStatistics,
    RecordVideo,
    RenderCollection,
    StickyAction,
    TimeAwareObservation,
    TimeLimit,
)

from dreamerjax.envs import Goal

# Wrappers with their own `step` that do not change the reward. (The number of the time limit is compared.)
HARMLESS = (
    FrameStackObservation,
    HumanRendering,
    OrderEnforcing,
    PassiveEnvChecker,
    RecordEpisodeStatistics,
    RecordVideo,
    RenderCollection,
    TimeAwareObservation,
    TimeLimit,
)
PLAIN_STEPS = (gymnasium.Wrapper.step, gymnasium.ObservationWrapper.step, gymnasium.ActionWrapper.step)
DRAWING = "render_mode"  # affects pictures only


def registered_goal(env: gymnasium.Env) -> Goal:
    """The threshold in the `spec` of an environment with its wrappers, or why it does not apply."""
    spec = getattr(env.unwrapped, "spec", None)
    threshold = getattr(spec, "reward_threshold", None)
    if not isinstance(spec, EnvSpec) or not isinstance(threshold, numbers.Real) or not math.isfinite(threshold):
        return Goal()
    changed = next(_changes(env, spec), None)
    if changed:
        return Goal(None, f"the reward_threshold {threshold:g} of {spec.id} does not apply: {changed}")
    return Goal(float(threshold), f"the reward_threshold of {spec.id}")


def _changes(env: gymnasium.Env, spec: EnvSpec) -> Iterator[str]:
    """Describes the differences from the registered environment."""
    registered = gymnasium.registry.get(spec.id)
    wrappers, limit = list(_wrappers(env)), None
    for wrapper in wrappers:
        limit = wrapper._max_episode_steps if type(wrapper) is TimeLimit else limit
    if registered is None:  # the environment has a spec that is not registered
        own: list[str] = []
    else:
        own = [f"{one.entry_point}" for one in registered.additional_wrappers]
        maker = registered.entry_point
        maker = load_env_creator(maker) if isinstance(maker, str) else maker
        is_env = isinstance(maker, type) and not issubclass(maker, gymnasium.Wrapper)
        if is_env and type(env.unwrapped) is not maker:
            yield f"it is a {type(env.unwrapped).__name__}"
        if limit != registered.max_episode_steps:
            yield f"its time limit is {limit or 'none'} instead of {registered.max_episode_steps or 'none'}"
        if (given := _arguments(spec)) != (usual := _arguments(registered)):
            yield f"its arguments are {given or 'none'} instead of {usual or 'none'}"
    for wrapper in wrappers:
        if not _keeps_reward(wrapper) and f"{type(wrapper).__module__}:{type(wrapper).__name__}" not in own:
            yield f"{type(wrapper).__name__} may change the reward"


def _wrappers(env: Any) -> Iterator[gymnasium.Wrapper]:
    """The wrappers, outermost first."""
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env


def _arguments(spec: EnvSpec) -> dict[str, Any]:
    return {name: value for name, value in spec.kwargs.items() if name != DRAWING}


def _keeps_reward(wrapper: gymnasium.Wrapper) -> bool:
    kind = type(wrapper)
    if kind in HARMLESS or kind.__module__.startswith("dreamerjax."):
        return True
    return kind.step in PLAIN_STEPS and not isinstance(wrapper, StickyAction)
