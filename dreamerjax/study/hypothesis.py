"""A hypothesis: one change, one primary metric, one expectation. `experiments/hypotheses/NAME.yaml` holds one each."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from dreamerjax.config import Config, ConfigError, family_key
from dreamerjax.runs.run_folder import different_keys
from dreamerjax.runs.settings import Layer
from dreamerjax.study.jobs import POOL, Job
from dreamerjax.study.outcomes import check_metric
from dreamerjax.study.plan_file import read_config_of, read_layer, read_plan_file, read_seeds
from dreamerjax.study.statistics import Direction
from dreamerjax.study.variant import load_variant

CODE = "code"  # in the place of a setting's key: a variant of the program, `FILE.py:NAME`


class Expectation(NamedTuple):
    """What the metric of the change is expected to be against the baseline."""

    direction: Direction
    by: float
    relative: bool  # `by` is a share of the baseline's mean

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
    """One experiment, checked."""

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
    shown: tuple[str, ...]  # other metrics, that are reported and not judged
    note: str

    def jobs(self, pool: Path = POOL) -> tuple[list[Job], list[Job]]:
        """The runs of the baseline and those of the change, by seed."""
        baseline, change = (
            [Job(dataclasses.replace(config, seed=seed), code, self.start, pool) for seed in self.seeds]
            for config, code in ((self.baseline, self.baseline_code), (self.change, self.change_code))
        )
        return baseline, change


KEYS = {
    "hypothesis": "the sentence",
    "environment": "a name that --env takes",
    "settings": "of both arms",
    "baseline": "of the baseline, and so of the change",
    "change": "of the change alone",
    "metric": "the one that decides",
    "expect": "{direction: higher, lower or same, by: 20% or a number}",
    "seeds": "a list, or how many",
    "starts_from": "scratch, or the folder of a run",
    "shown": "other metrics for the report",
    "one_change_because": "why several keys are one change",
    "new_family": "true if the change is one of architecture or environment",
    "note": "what a reader should know",
}

REQUIRED = ("hypothesis", "environment", "change", "metric", "expect")


def read_hypothesis(file: Path, *, allow_many_changes: bool = False) -> Hypothesis:
    """Reads and checks a hypothesis.

    Raises:
        ConfigError: something is missing, unknown or out of range; more than one change or metric; or a change of
            architecture or environment that does not say so.
    """
    content = read_plan_file(file, KEYS, REQUIRED, what="hypothesis")
    where = str(file)
    metric = content["metric"]
    if not isinstance(metric, str):
        raise ConfigError(
            f"{where}: metric is {metric!r}, expected one name: what decides must be fixed before the runs are made.\n"
            "Name the others in `shown`."
        )
    check_metric(metric)
    changed = _flat(content, "change", where)
    if not changed:
        raise ConfigError(f"{where}: change is empty, expected a setting and its value.")
    if len(changed) > 1 and not allow_many_changes and not content.get("one_change_because"):
        raise ConfigError(
            f"{where}: {len(changed)} changes at once ({', '.join(changed)}), expected one: nobody could tell which of "
            "them did it.\nWrite one hypothesis for each; or say `one_change_because: ...` if they are one thing; or "
            "give --allow-many-changes."
        )
    common, own = _flat(content, "settings", where), _flat(content, "baseline", where)
    if repeated := [key for key in changed if {**common, **own}.get(key) == changed[key]]:
        raise ConfigError(f"{where}: the change of {', '.join(repeated)} is what the baseline has, too.")
    baseline, change = (
        _config(content["environment"], layers, where) for layers in ((common, own), (common, own, changed))
    )
    codes = [str({**common, **own}.get(CODE, "")), str({**common, **own, **changed}.get(CODE, ""))]
    for code in filter(None, codes):
        load_variant(code)
    if baseline == change and codes[0] == codes[1]:
        raise ConfigError(f"{where}: the change gives the settings that the baseline has already.")
    different = different_keys(family_key(baseline), family_key(change))
    if different and not content.get("new_family"):
        raise ConfigError(
            f"{where}: the change makes another model family: {'; '.join(different)}.\n"
            "Its weights cannot be shared, and more than the training differs: say `new_family: true` if you mean it."
        )
    start = content.get("starts_from", "scratch")
    if start != "scratch" and different:
        raise ConfigError(f"{where}: a change of the family cannot start from {start}: {'; '.join(different)}.")
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
        raise ConfigError(f"{where}: expect.by is {by}, expected a size such as 20% or 50; `same` needs one above 0.")
    return Expectation(direction, float(number[1]) / (100 if number[2] else 1), bool(number[2]))
