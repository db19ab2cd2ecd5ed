"""The plan of a sweep, read from a YAML file: which settings vary over which values, and the metric to optimise."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from dreamerjax.config import Config, ConfigError, family_key, flatten
from dreamerjax.runs.run_folder import different_keys
from dreamerjax.runs.settings import Layer, combine, did_you_mean, typed_layer
from dreamerjax.study.jobs import POOL, Job
from dreamerjax.study.plan_file import read_config_of, read_layer, read_plan_file, read_seeds
from dreamerjax.study.run_metrics import check_metric

Kind = Literal["grid", "search", "population"]
Point = Mapping[str, Any]  # key -> value


class Span(NamedTuple):
    """The range of a number in a search."""

    low: float
    high: float
    log: bool  # sample uniformly in the logarithm


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """One sweep, checked."""

    name: str
    sentence: str
    kind: Kind
    config: Config  # settings of all points, before the varied keys
    over: Mapping[str, tuple[Any, ...] | Span]
    metric: str
    maximize: bool
    seeds: tuple[int, ...]
    trials: int  # search: their number
    prune: bool  # search: stop trials below the median
    source: Path | Config | None  # population: the run that provides the world model, or its settings
    updates: int  # population: updates of each member
    evaluate_every: int  # population: updates between evaluations
    where: str  # the file, for messages

    def config_of(self, point: Point) -> Config:
        """The settings of a point."""
        return _with(self.config, point, self.where)

    def grid(self) -> list[dict[str, Any]]:
        """All points of a grid or population, the last key fastest."""
        values = [choices for choices in self.over.values() if not isinstance(choices, Span)]
        return [dict(zip(self.over, each, strict=True)) for each in itertools.product(*values)]

    def jobs(self, point: Point, pool: Path = POOL) -> list[Job]:
        """The jobs of a point, one per seed."""
        return [Job(dataclasses.replace(self.config_of(point), seed=seed), pool=pool) for seed in self.seeds]


KEYS = {
    "sweep": "a sentence that describes the sweep",
    "kind": f"one of {', '.join(get_args(Kind))}",
    "environment": "a name as for --env",
    "settings": "settings of all points",
    "over": "key: [values], or in a search key: {low: ..., high: ..., log: true}",
    "metric": "the metric to optimise",
    "goal": "maximize or minimize",
    "seeds": "a list of seeds, or their number",
    "trials": "search: number of trials",
    "prune": "search: true stops trials below the median",
    "starts_from": "population: a run folder, or the settings of a run to train first",
    "updates": "population: updates of each member",
    "evaluate_every": "population: updates between evaluations",
    "new_family": "true if the sweep varies the architecture or the environment",
}
# The settings in `Knobs`, which a population may vary. Without the world model's learning rate: it is frozen.
KNOBS = (
    "agent.actor.learning_rate",
    "agent.critic.learning_rate",
    "agent.actor.entropy_scale",
    "agent.returns.discount_horizon",
    "agent.returns.return_lambda",
)
PRUNABLE = ("mean_return", "final_return", "peak_return")
KINDS_OF_KEY: Mapping[str, tuple[Kind, ...]] = {
    "trials": ("search",),
    "prune": ("search",),
    "starts_from": ("population",),
    "updates": ("population",),
    "evaluate_every": ("population",),
    "metric": ("grid", "search"),
    "goal": ("grid", "search"),
}


def read_sweep(file: Path) -> SweepPlan:
    """Reads and checks the YAML file of a sweep.

    Raises:
        ConfigError: a key is missing or unknown, or a value is out of range.
    """
    where = str(file)
    content = read_plan_file(file, KEYS, ("sweep", "kind", "environment", "over"), what="sweep")
    kind: Kind | None = next((each for each in get_args(Kind) if each == content["kind"]), None)
    if kind is None:
        raise ConfigError(f"{where}: kind is {content['kind']!r}, expected {KEYS['kind']}.")
    for key, kinds in KINDS_OF_KEY.items():
        if key in content and kind not in kinds:
            raise ConfigError(f"{where}: `{key}` belongs to a {' or '.join(kinds)}, but kind is {kind}.")
    settings = read_layer(content, "settings", where)
    config = read_config_of(content["environment"], [settings], where)
    metric = str(content.get("metric", "final_return"))
    check_metric(metric)
    goal = content.get("goal", "maximize")
    if goal not in ("maximize", "minimize"):
        raise ConfigError(f"{where}: goal is {goal!r}, expected {KEYS['goal']}.")
    prune = bool(content.get("prune", False))
    if prune and (goal != "maximize" or metric not in PRUNABLE):
        raise ConfigError(
            f"{where}: prune compares greedy returns, expected goal maximize and metric one of {', '.join(PRUNABLE)}."
        )
    plan = SweepPlan(
        name=file.stem,
        sentence=" ".join(str(content["sweep"]).split()),
        kind=kind,
        config=config,
        over=_over(content["over"], kind, where),
        metric=metric,
        maximize=goal == "maximize",
        seeds=read_seeds(content.get("seeds", 1), where, least=1),
        trials=_count(content, "trials", 20, where),
        prune=prune,
        source=_source(content, where) if kind == "population" else None,
        updates=_count(content, "updates", 2500, where),
        evaluate_every=_count(content, "evaluate_every", 250, where),
        where=where,
    )
    _check_points(plan, new_family=bool(content.get("new_family")))
    return plan


def _over(given: Any, kind: Kind, where: str) -> dict[str, tuple[Any, ...] | Span]:
    if not isinstance(given, dict) or not given:
        raise ConfigError(f"{where}: over is {given!r}, expected {KEYS['over']}.")
    over: dict[str, tuple[Any, ...] | Span] = {}
    for key, values in given.items():
        if kind == "population" and key not in KNOBS:
            raise ConfigError(
                f"{where}: over: {key} cannot vary in a population, expected one of {', '.join(KNOBS)}."
                f"{did_you_mean(key, KNOBS)}"
            )
        if isinstance(values, list) and values:
            typed = (typed_layer({key: value}, source=f"{where}: over")[key] for value in values)
            over[key] = tuple(dict.fromkeys(typed))
        elif kind == "search" and isinstance(values, dict) and {"low", "high"} <= set(values) <= {"low", "high", "log"}:
            low, high = (typed_layer({key: values[end]}, source=f"{where}: over")[key] for end in ("low", "high"))
            if not low < high or (values.get("log") and low <= 0):
                raise ConfigError(f"{where}: over: {key} is {values}, expected low < high, and low > 0 with log.")
            over[key] = Span(low, high, bool(values.get("log", False)))
        else:
            raise ConfigError(f"{where}: over: {key} is {values!r}, expected {KEYS['over']}.")
    return over


def _source(content: Mapping[str, Any], where: str) -> Path | Config:
    given = content.get("starts_from")
    if isinstance(given, str):
        return Path(given).expanduser()
    if isinstance(given, dict):
        layers: list[Layer] = [read_layer(content, "settings", where), read_layer(content, "starts_from", where)]
        return read_config_of(content["environment"], layers, where)
    raise ConfigError(f"{where}: starts_from is {given!r}, expected {KEYS['starts_from'].partition(': ')[2]}.")


def _count(content: Mapping[str, Any], key: str, default: int, where: str) -> int:
    given = content.get(key, default)
    if type(given) is not int or given < 1:
        raise ConfigError(f"{where}: {key} is {given!r}, expected 1 or more.")
    return given


def _check_points(plan: SweepPlan, *, new_family: bool) -> None:
    """Checks that every value is valid, and that the family varies only with `new_family`."""
    ends = [choices[:2] if isinstance(choices, Span) else choices for choices in plan.over.values()]
    first = {key: values[0] for key, values in zip(plan.over, ends, strict=True)}
    for key, values in zip(plan.over, ends, strict=True):
        for value in values:
            config = plan.config_of({**first, key: value})
            different = different_keys(family_key(plan.config), family_key(config))
            if different and not new_family:
                raise ConfigError(
                    f"{plan.where}: over: {key} changes the model family: {'; '.join(different)}.\n"
                    "Add `new_family: true` to compare families."
                )


def _with(config: Config, point: Point, where: str) -> Config:
    try:
        return combine([flatten(config), point])
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def shown_value(value: Any) -> str:
    """A setting's value, with 4 significant digits."""
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else str(value)
