"""Compares runs with the published learning curves of DreamerV3: `python run.py compare --published RUN ...`.

The data comes from the score files in the authors' code (github.com/danijar/dreamerv3): the mean return of the episodes
in each window of 10,000 environment frames, with the lowest and the highest seed. The curves of
our runs are computed in the same way from the training episodes (sampled actions).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from dreamerjax.config import Config, ConfigError
from dreamerjax.monitoring.metrics import read_metrics
from dreamerjax.runs.load import read_settings
from dreamerjax.runs.presets import PRESETS
from dreamerjax.runs.run_folder import RunFolder, no_run_folder

matplotlib.use("Agg")  # draw to files, without a display

DATA = PRESETS / "published" / "dreamerv3.json"
WINDOW = 10_000  # environment frames
FRAME_SKIP = {"atari": 4, "atari100k": 4}  # of suites that repeat actions themselves


class Published(NamedTuple):
    """The published curve of one task, [points] each."""

    task: str
    seeds: int
    frames: np.ndarray  # where each window ends
    mean: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray


class Curve(NamedTuple):
    """The curve of one of our runs, [points] each, without windows in which no episode ended."""

    name: str
    frames: np.ndarray  # where each window ends
    mean: np.ndarray


class Verdict(NamedTuple):
    """A run's last complete window against the published window at the same frames."""

    name: str
    frames: int
    ours: float
    mean: float
    lowest: float
    highest: float

    @property
    def word(self) -> str:
        """The run's return against the published range."""
        if self.ours < self.lowest:
            return "below"
        return "above" if self.ours > self.highest else "within"


def published_curve(config: Config) -> Published:
    """The published curve of a run's task.

    Raises:
        ConfigError: the task has no published curve.
    """
    suite, _, name = config.env.id.partition(":")
    group = {"dmc": "dmc_proprio", "atari100k": "atari100k"}.get(suite, "")
    if suite == "dmc" and config.env.obs == "pixels":
        group = "dmc_vision"
    data = json.loads(DATA.read_text(encoding="utf-8"))
    tasks = data.get(group, {})
    task = f"{suite.removesuffix('100k')}_{name}".replace("-", "_")
    if task not in tasks:
        known = [f"dmc:{key.removeprefix('dmc_').replace('_', '-')}" for key in data["dmc_proprio"]]
        known += [f"{known_name} --obs pixels" for known_name in known if _key(known_name) in data["dmc_vision"]]
        known += [f"atari100k:{key.removeprefix('atari_')}" for key in data["atari100k"]]
        raise ConfigError(f"There is no published curve of {config.env.id}, expected a run of {', '.join(known)}.")
    frames, mean, lowest, highest = np.array(tasks[task]["points"], np.float64).T
    return Published(f"{suite}:{name}", tasks[task]["seeds"], frames, mean, lowest, highest)


def our_curve(run_dir: Path, config: Config) -> Curve:
    """The returns of a run's training episodes, in the windows of the published curves."""
    rows = [row for row in read_metrics(RunFolder(run_dir).metrics_path) if "episode/return" in row]
    per_step = config.env.action_repeat * FRAME_SKIP.get(config.env.id.partition(":")[0], 1)
    frames = np.array([row["step"] * per_step for row in rows])
    returns = np.array([row["episode/return"] for row in rows])
    window = np.ceil(frames / WINDOW).astype(int)
    numbers = np.unique(window)
    means = np.array([returns[window == number].mean() for number in numbers])
    return Curve(run_dir.name, numbers * WINDOW, means)


def compare_published(run_dirs: Sequence[Path], file: Path) -> list[Verdict]:
    """Draws runs of one task over its published curve.

    Args:
        run_dirs: folders of runs.
        file: PNG to write.

    Returns:
        The verdict of each run's last window.

    Raises:
        RunFolderError: a folder is no run.
        ConfigError: there is no published curve, the runs have different tasks, or a run has no episode in a window.
        OSError: a file cannot be read or written.
    """
    configs = []
    for run_dir in run_dirs:
        config = read_settings(run_dir)
        if config is None:
            raise no_run_folder(run_dir)
        configs.append(config)
    tasks = {(config.env.id, config.env.obs == "pixels") for config in configs}
    if len(tasks) > 1:
        raise ConfigError(f"The runs have different tasks, {', '.join(sorted(id for id, _ in tasks))}; expected one.")
    published = published_curve(configs[0])
    curves = [our_curve(run_dir, config) for run_dir, config in zip(run_dirs, configs, strict=True)]
    verdicts = [_verdict(curve, published) for curve in curves]
    _draw(curves, published, file)
    return verdicts


def _verdict(curve: Curve, published: Published) -> Verdict:
    ends = np.intersect1d(curve.frames, published.frames)
    if not len(ends):
        raise ConfigError(f"{curve.name} has no finished episode in the published {published.frames[-1]:,.0f} frames.")
    last = ends[-1]
    (ours,), (there,) = np.flatnonzero(curve.frames == last), np.flatnonzero(published.frames == last)
    band = (published.mean[there], published.lowest[there], published.highest[there])
    return Verdict(curve.name, int(last), float(curve.mean[ours]), *(float(x) for x in band))


def _draw(curves: Sequence[Curve], published: Published, file: Path) -> None:
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    reach = 1.15 * max(curve.frames[-1] for curve in curves)
    shown = published.frames <= max(reach, published.frames[0])
    frames = published.frames[shown]
    axes.fill_between(
        frames, published.lowest[shown], published.highest[shown], color="0.85", label="published, all seeds"
    )
    axes.plot(frames, published.mean[shown], color="0.4", label=f"published, mean of {published.seeds}")
    for index, curve in enumerate(curves):
        axes.plot(curve.frames, curve.mean, color=f"C{index}", marker="o", markersize=3, label=curve.name)
    axes.set(xlabel="environment frames", ylabel="return of training episodes", title=published.task)
    axes.xaxis.set_major_formatter(lambda frames, _: f"{frames:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(file, dpi=120)


def _key(name: str) -> str:
    return name.replace(":", "_").replace("-", "_")
