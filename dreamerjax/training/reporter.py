"""The reporter of a run: metrics and alerts to the disk, progress to the terminal, the summary at the end."""

import contextlib
import datetime
import json
import os
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dreamerjax.config import Config
from dreamerjax.monitoring.alerts import Alert, Watch
from dreamerjax.monitoring.metrics import MetricsWriter, read_metrics
from dreamerjax.monitoring.progress import Progress
from dreamerjax.monitoring.terminal import Display
from dreamerjax.runs.run_folder import RunFolder, RunFolderError
from dreamerjax.runtime.backend import Backend
from dreamerjax.runtime.installed import versions
from dreamerjax.runtime.memory import memory_mb
from dreamerjax.training.collector import EpisodeStats, News
from dreamerjax.training.evaluation import Evaluation

SPEED_WINDOW_SECONDS = 20.0  # speeds are means over this long


class Film(NamedTuple):
    """A film or a picture of the agent."""

    name: str
    file: Path
    gif: bytes = b""  # the same for TensorBoard, smaller; empty for a picture


class Films(NamedTuple):
    """The films that were made, and why others were not."""

    made: list[Film]
    missing: list[str]  # one sentence for each reason


class Reporter:
    """Takes what the training loop reports, and writes and shows it."""

    def __init__(self, config: Config, folder: RunFolder, display: Display) -> None:
        """Opens nothing yet; see `open`."""
        self.env_steps = 0
        self.updates = 0
        self.evaluation: Evaluation | None = None
        self._config, self._folder, self._display = config, folder, display
        self._metrics: MetricsWriter | None = None
        self._phase = "prefill"
        self._begun = time.perf_counter()  # shifted back by the time of earlier processes
        self._returns: list[float] = []
        self._train_metrics: dict[str, float] = {}
        self._diagnosis: dict[str, float] = {}
        self._watch, self._alerts = Watch(config), list[Alert]()
        self._pending: list[dict[str, jax.Array]] = []  # of the updates since the last line
        self._logged_at = 0  # environment steps and updates together
        self._interruptions = 0  # interrupted episodes
        self._outside = 0  # observations outside the bounds of their spaces
        self._noted = set[str]()  # topics of which a line was printed
        self._marks: deque[tuple[float, int, int]] = deque()  # (time, environment steps, updates)
        self._waited, self._line_begun = 0.0, self._begun  # seconds of waiting for data since the last line began
        self._line_steps, self._line_rows = 0, 0  # environment steps made, and rows stored, since then
        self._first_update: float | None = None  # seconds from the start of this process

    def open(self, *, keep_bytes: int) -> None:
        """Opens the metrics for appending, after the first `keep_bytes`.

        Raises:
            RunFolderError: they cannot be written.
        """
        log, folder = self._config.log, self._folder
        with self._writing():
            self._metrics = MetricsWriter(
                folder.metrics_path,
                folder.tensorboard if log.tensorboard else None,
                keep_bytes=keep_bytes,
                purge_step=self.env_steps + 1,
                say=self.note,
            )
            # Alerts follow from the metrics: a resumed run recomputes them.
            self._alerts = [alert for line in read_metrics(folder.metrics_path) for alert in self._watch.see(line)]
            folder.alerts_path.write_text("".join(map(_alert_line, self._alerts)), encoding="utf-8")

    def close(self) -> None:
        """Closes the metrics."""
        if self._metrics is not None:
            self._metrics.close()

    @property
    def wall_seconds(self) -> float:
        """Time spent on this run, including earlier processes."""
        return time.perf_counter() - self._begun

    def enter(self, phase: str) -> None:
        """Shows what the run does now."""
        self._phase = phase
        self.show()

    def note(self, text: str) -> None:
        """Prints a line that stays."""
        self._display.note(text)

    def collected(self, *, steps: int, rows: int) -> None:
        """Counts environment steps, and rows that reached the replay."""
        self._line_steps, self._line_rows = self._line_steps + steps, self._line_rows + rows

    def episode_ended(self, episode: EpisodeStats) -> None:
        """A training episode has ended."""
        self._returns.append(episode.ret)
        more = {f"episode/{name}": value for name, value in episode.metrics.items()}
        self._write({"episode/return": episode.ret, "episode/length": episode.length, **more})

    def heard(self, news: News) -> None:
        """Notes events of the training environments: interrupted episodes, observations outside their bounds."""
        for sentence in news.interruptions:
            self._interruptions += 1
            self.note(sentence)
            self._write({"env/interruptions": self._interruptions})
        for topic, sentence in news.notes.items():
            self.note_once(topic, sentence)
        self._outside += news.outside

    def note_once(self, topic: str, text: str) -> None:
        """Prints a line that stays, once for each topic."""
        if topic not in self._noted:
            self._noted.add(topic)
            self.note(text)

    def updated(self, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics of updates, which may still be computed; it does not wait for them."""
        self._pending.append(metrics)
        if self._first_update is None:
            self._first_update = process_seconds()

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Times the sampling and transfer of batches, for which the device may have to wait."""
        begun = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begun

    def evaluated(self, evaluation: Evaluation) -> None:
        """Writes and shows the result of an evaluation."""
        self.evaluation = evaluation
        self._write({f"eval/{name}": value for name, value in evaluation._asdict().items()})
        self.show()

    def diagnosed(self, numbers: Mapping[str, float]) -> None:
        """Writes the numbers of a diagnosis."""
        self._diagnosis = {f"diagnosis/{name}": value for name, value in numbers.items()}
        self._write(self._diagnosis)

    def filmed(self, film: Film) -> None:
        """Writes a film to TensorBoard and prints its file."""
        assert self._metrics is not None, "open comes first"
        self._metrics.write_gif(self.env_steps, f"video/{film.name}", film.gif)
        self.note(f"Filmed: {film.file}")

    def log_if_due(self) -> None:
        """Writes a line of training metrics after every `log.every` environment steps and updates, counted together."""
        due = self.env_steps + self.updates - self._logged_at >= self._config.log.every
        # The newest dispatch may still be computed: its metrics go into the next line.
        if due and len(self._pending) > 1:
            newest = self._pending.pop()
            self.log()
            self._pending.append(newest)

    def log(self) -> None:
        """Writes the means of the training metrics since the last line, including the newest updates."""
        if not self._pending:
            return
        self._logged_at = self.env_steps + self.updates
        fetched = jax.device_get(self._pending)
        self._pending = []
        names = sorted(set().union(*fetched))  # updates of the world model alone have fewer
        means = {name: float(np.mean([float(row[name]) for row in fetched if name in row])) for name in names}
        self._train_metrics = {f"train/{name}": mean for name, mean in means.items()}
        steps_per_second, updates_per_second = self._speeds()
        now = time.perf_counter()
        speed = {
            "speed/env_steps_per_second": steps_per_second,
            "speed/updates_per_second": updates_per_second,
            "speed/data_wait_share": self._waited / (now - self._line_begun),
            "speed/memory_mb": memory_mb(),
        }
        replay = {"replay/added_share": self._line_rows / self._line_steps} if self._line_steps else {}
        outside = {"env/outside_bounds": self._outside} if self._outside else {}
        self._waited, self._line_begun = 0.0, now
        self._line_steps, self._line_rows = 0, 0
        self._write(self._train_metrics | outside | replay | speed)

    def show(self, detail: str = "") -> None:
        """Passes the progress to the display; `detail`: the progress of the phase."""
        now = time.perf_counter()
        if not self._marks or now - self._marks[-1][0] > 0.5:
            self._marks.append((now, self.env_steps, self.updates))
            while now - self._marks[0][0] > SPEED_WINDOW_SECONDS:
                self._marks.popleft()
        steps_per_second, updates_per_second = self._speeds()
        evaluation = self.evaluation
        self._display.update(
            Progress(
                phase=self._phase,
                detail=detail,
                env_steps=self.env_steps,
                env_steps_budget=self._config.train.env_steps,
                updates=self.updates,
                wall_seconds=self.wall_seconds,
                env_steps_per_second=steps_per_second,
                updates_per_second=updates_per_second,
                returns=self._returns,
                eval_mean=evaluation.return_mean if evaluation else None,
                eval_std=evaluation.return_std if evaluation else None,
                eval_episodes=evaluation.episodes if evaluation else 0,
                solve_return=self._config.env.solve_return,
                metrics=self._train_metrics | self._diagnosis,
                alerts=[alert.name for alert in self._alerts],
            )
        )

    def summary(
        self, backend: Backend, *, stopped: str, solved_at: Mapping[str, Any] | None, compile_seconds: float
    ) -> dict[str, Any]:
        """The result of the run, for summary.json and for the final paragraph in the terminal."""
        config = self._config
        return {
            "env": config.env.name,
            "env_id": config.env.id,
            "seed": config.seed,
            "run_dir": str(self._folder.path),
            "stopped": stopped,
            "solved": solved_at is not None,
            "solved_at": solved_at,
            "solve_return": config.env.solve_return,
            "eval": self.evaluation._asdict() if self.evaluation else None,
            "alerts": [alert._asdict() for alert in self._alerts],
            "env_steps": self.env_steps,
            "updates": self.updates,
            "wall_seconds": round(self.wall_seconds, 3),
            "compile_seconds": round(compile_seconds, 3),
            "first_update_seconds": self._first_update,
            "backend": backend.platform,
            "device": backend.device,
            "versions": versions(),
            "git_commit": git_commit(),
            "ended": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        }

    def state(self) -> dict[str, Any]:
        """What `load` needs, JSON-able, including metrics that are not written yet."""
        assert self._metrics is not None, "open comes first"
        return {
            "wall_seconds": self.wall_seconds,
            "returns": self._returns,
            "train_metrics": self._train_metrics,
            "diagnosis": self._diagnosis,
            "pending": [{name: float(x) for name, x in row.items()} for row in jax.device_get(self._pending)],
            "logged_at": self._logged_at,
            "line_steps": self._line_steps,
            "line_rows": self._line_rows,
            "interruptions": self._interruptions,
            "outside": self._outside,
            "noted": sorted(self._noted),
            "metrics_bytes": self._metrics.position(),
            "evaluation": self.evaluation._asdict() if self.evaluation else None,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned."""
        self._begun = time.perf_counter() - state["wall_seconds"]
        self._returns, self._train_metrics = list(state["returns"]), dict(state["train_metrics"])
        self._diagnosis = dict(state.get("diagnosis", {}))
        self._logged_at = state["logged_at"]
        self._line_steps, self._line_rows = state.get("line_steps", 0), state.get("line_rows", 0)
        self._pending = list(state["pending"])
        self._interruptions = state["interruptions"]
        self._outside, self._noted = state.get("outside", 0), set(state.get("noted", ()))
        self.evaluation = Evaluation(**state["evaluation"]) if state["evaluation"] else None

    def _write(self, scalars: Mapping[str, Any]) -> None:
        assert self._metrics is not None, "open comes first"
        seconds = round(self.wall_seconds, 3)
        with self._writing():
            self._metrics.write(self.env_steps, self.updates, seconds, scalars)
            for alert in self._watch.see({"step": self.env_steps, "update": self.updates, **scalars}):
                self._alerts.append(alert)
                with self._folder.alerts_path.open("a", encoding="utf-8") as file:
                    file.write(_alert_line(alert))
                self.note(f"Alert at {alert.step:,} environment steps: {alert}.\n  What to do: {alert.remedy}")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns an OSError into a RunFolderError."""
        try:
            yield
        except OSError as error:
            raise RunFolderError(
                f"The metrics cannot be written to {self._folder.path}: {error.strerror or error}.\n"
                "Free space or correct the permissions, then resume with the same command."
            ) from error

    def _speeds(self) -> tuple[float, float]:
        """Environment steps and updates per second, recently."""
        if len(self._marks) < 2:
            return 0.0, 0.0
        then, steps, updates = self._marks[0]
        seconds = time.perf_counter() - then
        return (self.env_steps - steps) / seconds, (self.updates - updates) / seconds


def _alert_line(alert: Alert) -> str:
    return json.dumps(alert._asdict()) + "\n"


def process_seconds() -> float | None:
    """Seconds since this process started, imports included; None if unknown."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return round(time.clock_gettime(time.CLOCK_BOOTTIME) - started, 3)
    except (OSError, AttributeError):  # no Linux
        return None


def git_commit() -> str | None:
    """The checked-out commit, with "+changes" if the code was edited since; None outside git."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10)
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if commit.returncode:
        return None
    return commit.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
