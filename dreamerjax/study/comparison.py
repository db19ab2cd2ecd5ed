"""Any runs side by side: return by environment steps, time to solve, what their settings and commits differ in."""

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
from dreamerjax.study.outcomes import returns_of, shown
from dreamerjax.study.statistics import FEWEST_SEEDS, too_few_seeds
from dreamerjax.viz.course import final_return, peak_return

TABLE_STEPS = 10
NOT_COMPARED = ("log.", "alerts.", "seed")  # settings that make no other experiment


class ComparedRun(NamedTuple):
    """One run, as far as it got."""

    name: str
    config: Config
    steps: np.ndarray  # [evaluations] environment steps
    returns: np.ndarray  # [evaluations] mean greedy returns
    summary: dict[str, Any]  # empty while it trains
    alerts: list[str]


def read_runs(run_dirs: Sequence[Path], *, across_families: bool = False) -> list[ComparedRun]:
    """Reads runs, which may still be training.

    Raises:
        RunFolderError: one is no run, or has not been evaluated yet.
        ConfigError: they are of different families, and that was not asked for.
    """
    runs = [_read(run_dir, name) for run_dir, name in zip(run_dirs, _names(run_dirs), strict=True)]
    first = runs[0]
    for other in runs[1:]:
        different = different_keys(family_key(first.config), family_key(other.config))
        if different and not across_families:
            raise ConfigError(
                f"{first.name} and {other.name} differ in environment or architecture: {'; '.join(different)}.\n"
                "Give --across-families if you mean to compare them."
            )
    return runs


def differing_settings(runs: Sequence[ComparedRun]) -> dict[str, list[Any]]:
    """Key -> the value of each run, for every setting in which they are not all alike; the seed aside."""
    flat = [flatten(run.config) for run in runs]
    return {
        key: [each[key] for each in flat]
        for key in flat[0]
        if not key.startswith(NOT_COMPARED) and any(each[key] != flat[0][key] for each in flat)
    }


def about_seeds(runs: Sequence[ComparedRun]) -> str:
    """A sentence where some setting has too few runs to tell chance from difference; empty where none has."""
    different = differing_settings(runs)
    groups = Counter(tuple(str(values[i]) for values in different.values()) for i in range(len(runs)))
    fewest = min(groups.values())
    if len(groups) == 1 or fewest >= FEWEST_SEEDS:
        return ""
    return f"{too_few_seeds(fewest)} A difference may be chance: compare {FEWEST_SEEDS} seeds or more of each setting."


def return_table(runs: Sequence[ComparedRun]) -> Table:
    """Steps against greedy return: of the last evaluation up to each step; a dash after a run's end."""
    table = Table("environment steps", *(run.name for run in runs))
    longest = max((run.steps for run in runs), key=len)
    for step in longest[np.unique(np.linspace(0, len(longest) - 1, TABLE_STEPS).round().astype(int))]:
        table.add_row(f"{step:,}", *(_at(run, int(step)) for run in runs))
    return table


def outcome_table(runs: Sequence[ComparedRun]) -> Table:
    """What each run came to: seed, family, commit, time to solve, peak and final return, speed, alerts."""
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
            shown(peak_return(run.returns)),
            shown(final_return(run.returns)),
            f"{summary['updates']:,}" if summary else "-",
            f"{summary['wall_seconds']:.0f} s" if summary else "-",
            ", ".join(dict.fromkeys(run.alerts)) or "none",
        )
    return table


def settings_table(runs: Sequence[ComparedRun]) -> Table | None:
    """The settings that differ; None if there are none."""
    different = differing_settings(runs)
    if not different:
        return None
    table = Table("setting", *(run.name for run in runs))
    for key, values in different.items():
        table.add_row(key, *map(str, values))
    return table


def as_json(runs: Sequence[ComparedRun]) -> dict[str, Any]:
    """The same, for programs."""
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
        raise RunFolderError(f"{run_dir} holds no run that was evaluated.\nGive the folder of a run, and let it train.")
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
    """The last part of each path, or all of it where that is not clear."""
    last = [path.resolve().name for path in run_dirs]
    return last if len(set(last)) == len(last) else [str(path) for path in run_dirs]


def _at(run: ComparedRun, step: int) -> str:
    before = np.flatnonzero(run.steps <= step)
    ended = bool(run.summary) and step > run.steps[-1]
    return "-" if not len(before) or ended else shown(float(run.returns[before[-1]]))
