"""Compares runs: return by environment steps, time to solve, and differing settings and commits."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from dreamerjax.config import Config, ConfigError, family_key, family_name, flatten
from dreamerjax.monitoring.metrics import read_metrics
from dreamerjax.runs.load import read_settings
from dreamerjax.runs.run_folder import RunFolder, RunFolderError, different_keys
from dreamerjax.study.run_metrics import format_number, returns_of
from dreamerjax.study.statistics import MIN_SEEDS, too_few_seeds
from dreamerjax.viz.curve_shape import final_return, peak_return

TABLE_STEPS = 10
NOT_COMPARED = ("log.", "alerts.", "seed")  # settings that do not change what a run learns, and the seed


class ComparedRun(NamedTuple):
    """One run, finished or still training."""

    name: str
    config: Config
    steps: np.ndarray  # [evaluations] environment steps
    returns: np.ndarray  # [evaluations] mean greedy returns
    summary: dict[str, Any]  # empty while it trains
    alerts: list[str]


def read_runs(run_dirs: Sequence[Path], *, across_families: bool = False) -> list[ComparedRun]:
    """Reads runs, which may still be training.

    Raises:
        RunFolderError: a folder is no run, or has no evaluation yet.
        ConfigError: the families differ, and `across_families` is false.
    """
    runs = [_read(run_dir, name) for run_dir, name in zip(run_dirs, _names(run_dirs), strict=True)]
    first = runs[0]
    for other in runs[1:]:
        different = different_keys(family_key(first.config), family_key(other.config))
        if different and not across_families:
            raise ConfigError(
                f"{first.name} and {other.name} differ in environment or architecture: {'; '.join(different)}.\n"
                "Give --across-families to compare them anyway."
            )
    return runs


def differing_settings(runs: Sequence[ComparedRun]) -> dict[str, list[Any]]:
    """Key -> the value of each run, for every setting that is not the same in all runs; without the seed."""
    flat = [flatten(run.config) for run in runs]
    return {
        key: [each[key] for each in flat]
        for key in flat[0]
        if not key.startswith(NOT_COMPARED) and any(each[key] != flat[0][key] for each in flat)
    }


def seed_warning(runs: Sequence[ComparedRun]) -> str:
    """A warning if some settings have fewer than three seeds; else empty."""
    different = differing_settings(runs)
    groups = Counter(tuple(str(values[i]) for values in different.values()) for i in range(len(runs)))
    fewest = min(groups.values())
    if len(groups) == 1 or fewest >= MIN_SEEDS:
        return ""
    return f"{too_few_seeds(fewest)} A difference may be chance: compare at least {MIN_SEEDS} seeds of each setting."


def return_table(runs: Sequence[ComparedRun]) -> Table:
    """Greedy return by environment steps, from the last evaluation up to each step; a dash after a run's end."""
    table = Table("environment steps", *(run.name for run in runs))
    longest = max((run.steps for run in runs), key=len)
    for step in longest[np.unique(np.linspace(0, len(longest) - 1, TABLE_STEPS).round().astype(int))]:
        table.add_row(f"{step:,}", *(_at(run, int(step)) for run in runs))
    return table


def outcome_table(runs: Sequence[ComparedRun]) -> Table:
    """One row per run: seed, family, commit, time to solve, peak and final return, updates, wall time, alerts."""
    table = Table("run", "seed", "family", "commit", "solved after", "peak", "final", "updates", "time", "alerts")
    for run in runs:
        summary, at = run.summary, run.summary.get("solved_at")
        commit, plus, changes = (summary.get("git_commit") or "-").partition("+")
        table.add_row(
            run.name,
            str(run.config.seed),
            family_name(run.config),
            commit[:8] + plus + changes,
            f"{at['env_steps']:,} steps, {at['wall_seconds']:.0f} s" if at else "not" if summary else "still training",
            format_number(peak_return(run.returns)),
            format_number(final_return(run.returns)),
            f"{summary['updates']:,}" if summary else "-",
            f"{summary['wall_seconds']:.0f} s" if summary else "-",
            ", ".join(dict.fromkeys(run.alerts)) or "none",
        )
    return table


def settings_table(runs: Sequence[ComparedRun]) -> Table | None:
    """The settings that differ; None if all are the same."""
    different = differing_settings(runs)
    if not different:
        return None
    table = Table("setting", *(run.name for run in runs))
    for key, values in different.items():
        table.add_row(key, *map(str, values))
    return table


def as_json(runs: Sequence[ComparedRun]) -> dict[str, Any]:
    """The comparison as a JSON object."""
    return {
        "differing_settings": differing_settings(runs),
        "runs": [
            {
                "name": run.name,
                "seed": run.config.seed,
                "family": family_name(run.config),
                "git_commit": run.summary.get("git_commit"),
                "solved_at": run.summary.get("solved_at"),
                "steps": run.steps.tolist(),
                "returns": run.returns.tolist(),
                "alerts": run.alerts,
            }
            for run in runs
        ],
    }


def _read(run_dir: Path, name: str) -> ComparedRun:
    config = read_settings(run_dir)
    try:
        steps, returns = returns_of(read_metrics(RunFolder(run_dir).metrics_path))
    except OSError:
        steps = np.array([])
    if config is None or not len(steps):
        raise RunFolderError(
            f"{run_dir} contains no run with an evaluation.\n"
            "Give a run folder, and let the run train until its first evaluation."
        )
    try:
        summary = json.loads(RunFolder(run_dir).summary_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        summary = {}
    try:
        lines = RunFolder(run_dir).alerts_path.read_text(encoding="utf-8").splitlines()
        alerts = [json.loads(line)["name"] for line in lines]
    except (OSError, ValueError):
        alerts = []
    return ComparedRun(name, config, steps, returns, summary, alerts)


def _names(run_dirs: Sequence[Path]) -> list[str]:
    """The last part of each path, or the whole paths if the last parts are not unique."""
    last = [path.resolve().name for path in run_dirs]
    return last if len(set(last)) == len(last) else [str(path) for path in run_dirs]


def _at(run: ComparedRun, step: int) -> str:
    before = np.flatnonzero(run.steps <= step)
    ended = bool(run.summary) and step > run.steps[-1]
    return "-" if not len(before) or ended else format_number(float(run.returns[before[-1]]))
