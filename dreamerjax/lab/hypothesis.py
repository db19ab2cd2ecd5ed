"""A hypothesis: one change, one primary metric, one expectation. `experiments/hypotheses/NAME.yaml` holds one each."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml

from dreamerjax.config import Config, ConfigError, family_key, flatten
from dreamerjax.host.run_folder import different_keys
from dreamerjax.host.settings import Layer, combine, did_you_mean, read_env, typed_layer
from dreamerjax.lab.child import load_variant
from dreamerjax.lab.jobs import POOL, Job
from dreamerjax.lab.outcomes import check_metric
from dreamerjax.lab.statistics import Direction

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


def read_hypothesis(file: Path, *, allow_many_changes: bool = False) -> Hypothesis:
    """Reads and checks a hypothesis.

    Raises:
        ConfigError: something is missing, unknown or out of range; more than one change or metric; or a change of
            architecture or environment that does not say so.
    """
    content = _content(file)
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
        seeds=_seeds(content.get("seeds", 3), where),
        start=None if start == "scratch" else Path(start),
        shown=tuple(content.get("shown", ())),
        note=" ".join(str(content.get("note", "")).split()),
    )


def _content(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}. Give the file of a hypothesis.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} holds no hypothesis, expected lines such as `hypothesis: ...`.")
    for key in content:
        if key not in KEYS:
            raise ConfigError(f"{file}: unknown key `{key}`.{did_you_mean(str(key), list(KEYS))}")
    for key in ("hypothesis", "environment", "change", "metric", "expect"):
        if key not in content:
            raise ConfigError(f"{file}: `{key}` is missing: {KEYS[key]}.")
    return content


def _flat(content: Mapping[str, Any], room: str, where: str) -> dict[str, Any]:
    """The settings under a key, flat, in the types of the settings; and `code`."""
    given = content.get(room) or {}
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: {room} is {given!r}, expected settings as lines of `key: value`.")
    code = {CODE: given[CODE]} if CODE in given else {}
    layer = flatten({key: value for key, value in given.items() if key != CODE})
    return {**typed_layer(layer, source=f"{where}: {room}"), **code}


def _config(env: str, layers: Sequence[Layer], where: str) -> Config:
    """Complete settings of an arm; a hypothesis has a fixed budget, so its runs do not stop when they are solved."""
    given = [{key: value for key, value in layer.items() if key != CODE} for layer in layers]
    obs = next((layer["env.obs"] for layer in reversed(given) if "env.obs" in layer), None)
    quiet: Layer = {"train.stop_when_solved": False, "log.video_every": 0, "log.tensorboard": False}
    try:
        return combine([*read_env(env, obs), quiet, *given])
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _expectation(given: Any, where: str) -> Expectation:
    direction = next((d for d in get_args(Direction) if isinstance(given, dict) and given.get("direction") == d), None)
    if direction is None:
        raise ConfigError(f"{where}: expect is {given!r}, expected {KEYS['expect']}.")
    by = str(given.get("by", 0)).strip()
    number = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", by)
    if number is None or (direction == "same" and float(number[1]) == 0):
        raise ConfigError(f"{where}: expect.by is {by}, expected a size such as 20% or 50; `same` needs one above 0.")
    return Expectation(direction, float(number[1]) / (100 if number[2] else 1), bool(number[2]))


def _seeds(given: Any, where: str) -> tuple[int, ...]:
    seeds = list(range(given)) if type(given) is int else given if isinstance(given, list) else []
    if not all(type(seed) is int and seed >= 0 for seed in seeds) or len(set(seeds)) < 2:
        raise ConfigError(f"{where}: seeds is {given!r}, expected two or more, better three: 3, or [0, 1, 2].")
    return tuple(seeds)
