"""A hypothesis, read from experiments/hypotheses/NAME.yaml: one change, one primary metric, one expectation."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from dreamerjax.config import Config, ConfigError, family_key
from dreamerjax.runs.run_folder import different_keys
from dreamerjax.runs.settings import Layer
from dreamerjax.study.jobs import POOL, Job
from dreamerjax.study.plan_file import read_config_of, read_layer, read_plan_file, read_seeds
from dreamerjax.study.run_metrics import check_metric
from dreamerjax.study.statistics import Direction
from dreamerjax.study.variant import load_variant

CODE = "code"  # a key next to the settings: a variant of the program, `FILE.py:NAME`


class Expectation(NamedTuple):
    """The expected difference between the metric of the change and that of the baseline."""

    direction: Direction
    by: float
    relative: bool  # `by` is a fraction of the baseline's mean

    def size(self, baseline: Sequence[float]) -> float:
        """`by` in units of the metric."""
        return self.by * abs(sum(baseline) / len(baseline)) if self.relative else self.by

    def __str__(self) -> str:
        by = f"{100 * self.by:g}%" if self.relative else f"{self.by:g}"
        if self.direction == "same":
            return f"the same, within {by}"
        return f"{self.direction} by {by} or more" if self.by else self.direction


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """A checked hypothesis."""

    name: str
    sentence: str
    baseline: Config
    change: Config
    baseline_code: str
    change_code: str
    changed: Mapping[str, Any]  # key, or `code` -> value
    metric: str
    expect: Expectation
    seeds: tuple[int, ...]
    start: Path | None
    shown: tuple[str, ...]  # other metrics, reported without a verdict
    note: str

    def jobs(self, pool: Path = POOL) -> tuple[list[Job], list[Job]]:
        """The jobs of the baseline and of the change, one per seed."""
        baseline, change = (
            [Job(dataclasses.replace(config, seed=seed), code, self.start, pool) for seed in self.seeds]
            for config, code in ((self.baseline, self.baseline_code), (self.change, self.change_code))
        )
        return baseline, change


KEYS = {
    "hypothesis": "a sentence that states the hypothesis",
    "environment": "a name as for --env",
    "settings": "settings of both arms",
    "baseline": "settings of both arms that the change may override",
    "change": "settings of the change only",
    "metric": "the metric that decides",
    "expect": "{direction: higher, lower or same, by: 20% or a number}",
    "seeds": "a list of seeds, or their number",
    "starts_from": "scratch, or a run folder",
    "shown": "other metrics for the report",
    "one_change_because": "why several keys are one change",
    "new_family": "true if the change affects the architecture or the environment",
    "note": "a note for readers of the report",
}

REQUIRED = ("hypothesis", "environment", "change", "metric", "expect")


def read_hypothesis(file: Path, *, allow_many_changes: bool = False) -> Hypothesis:
    """Reads and checks a hypothesis.

    Raises:
        ConfigError: a key is missing or unknown, or a value is out of range; there is more than one change or metric;
            or the change alters the architecture or environment without `new_family`.
    """
    content = read_plan_file(file, KEYS, REQUIRED, what="hypothesis")
    where = str(file)
    metric = content["metric"]
    if not isinstance(metric, str):
        raise ConfigError(
            f"{where}: metric is {metric!r}, expected one name: the deciding metric is fixed before the runs.\n"
            "List other metrics in `shown`."
        )
    check_metric(metric)
    changed = _flat(content, "change", where)
    if not changed:
        raise ConfigError(f"{where}: change is empty, expected a setting and its value.")
    if len(changed) > 1 and not allow_many_changes and not content.get("one_change_because"):
        raise ConfigError(
            f"{where}: {len(changed)} changes ({', '.join(changed)}), expected one, so that the cause of an effect is "
            "known.\nWrite one hypothesis for each, or add `one_change_because: ...` if they belong together, or give "
            "--allow-many-changes."
        )
    common, own = _flat(content, "settings", where), _flat(content, "baseline", where)
    if repeated := [key for key in changed if {**common, **own}.get(key) == changed[key]]:
        raise ConfigError(f"{where}: change has the same value as the baseline for {', '.join(repeated)}.")
    baseline, change = (
        _config(content["environment"], layers, where) for layers in ((common, own), (common, own, changed))
    )
    codes = [str({**common, **own}.get(CODE, "")), str({**common, **own, **changed}.get(CODE, ""))]
    for code in filter(None, codes):
        load_variant(code)
    if baseline == change and codes[0] == codes[1]:
        raise ConfigError(f"{where}: the change gives the same settings as the baseline.")
    different = different_keys(family_key(baseline), family_key(change))
    if different and not content.get("new_family"):
        raise ConfigError(
            f"{where}: the change alters the model family: {'; '.join(different)}.\n"
            "The arms then differ in more than training and cannot share weights. Add `new_family: true` to allow it."
        )
    start = content.get("starts_from", "scratch")
    if start != "scratch" and different:
        raise ConfigError(f"{where}: a change of the model family cannot start from {start}: {'; '.join(different)}.")
    return Hypothesis(
        name=file.stem,
        sentence=" ".join(str(content["hypothesis"]).split()),
        baseline=baseline,
        change=change,
        baseline_code=codes[0],
        change_code=codes[1],
        changed=changed,
        metric=metric,
        expect=_expectation(content["expect"], where),
        seeds=read_seeds(content.get("seeds", 3), where, least=2),
        start=None if start == "scratch" else Path(start).expanduser(),
        shown=tuple(content.get("shown", ())),
        note=" ".join(str(content.get("note", "")).split()),
    )


def _flat(content: Mapping[str, Any], room: str, where: str) -> dict[str, Any]:
    """The settings under a key, and `code`."""
    layer = read_layer(content, room, where, but=[CODE])
    given = content.get(room) or {}
    return {**layer, CODE: given[CODE]} if CODE in given else layer


def _config(env: str, layers: Sequence[Layer], where: str) -> Config:
    return read_config_of(env, [{key: x for key, x in layer.items() if key != CODE} for layer in layers], where)


def _expectation(given: Any, where: str) -> Expectation:
    direction = next((d for d in get_args(Direction) if isinstance(given, dict) and given.get("direction") == d), None)
    if direction is None:
        raise ConfigError(f"{where}: expect is {given!r}, expected {KEYS['expect']}.")
    by = str(given.get("by", 0)).strip()
    number = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", by)
    if number is None or (direction == "same" and float(number[1]) == 0):
        raise ConfigError(f"{where}: expect.by is {by}, expected a size such as 20% or 50; above 0 for `same`.")
    return Expectation(direction, float(number[1]) / (100 if number[2] else 1), bool(number[2]))
