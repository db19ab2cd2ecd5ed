"""What a person sees in the terminal while a run trains: a live panel, or plain lines where there is no terminal.

`Display.update` only keeps the latest numbers. The panel is built when it is drawn, twice a second and in a thread
of its own, so that the clock goes on while JAX compiles; plain lines that are due have a thread, too. Nothing here
reads or changes the run. Standard output may be lost meanwhile: interrupt.py sees to that.
"""

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from types import TracebackType
from typing import NamedTuple, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dreamerjax.monitoring.summary import count, mean_and_spread

REFRESH_PER_SECOND = 2.0
MAX_WIDTH = 100  # columns; wider is harder to read
RECENT_EPISODES = 10  # "the return" is the mean of this many
PACE_WINDOW_SECONDS = 60.0  # time left is estimated from the speed over this long
PACE_LEAST_SECONDS = 5.0  # ... and this long at the least
WARMING_UPDATES = 20  # of this process, before that: the first ones after a compilation tell little
BARS = "▁▂▃▄▅▆▇█"
DASH = "–"
STEADY_PHASES = ("training", "evaluating")  # phases whose speed says when the run will end
LEAST_BAR = 20  # columns for the progress bar and the gaps beside it
LABEL_WIDTH = len("reconstruction")
NUMBER_WIDTH = len("-1.2e-04")
PHASE_STYLES = {"training": "bold cyan", "evaluating": "bold magenta", "solved": "bold green"}

# The metrics that matter: metric, full name in the panel, short name in a plain line (empty: in the panel alone).
SHOWN_METRICS = (
    ("train/reconstruction_loss", "reconstruction", "recon"),
    ("train/reward_loss", "reward", "reward"),
    ("train/cont_loss", "continue", "cont"),
    ("train/dynamics_loss", "dynamics KL", "kl"),
    ("train/actor_entropy", "actor entropy", "entropy"),
    ("train/critic_loss", "critic", "critic"),
    ("train/value_mean", "value", "value"),
    ("train/return_scale", "return scale", "scale"),
    ("diagnosis/value_bias", "value bias", ""),
    ("diagnosis/prior_agreement", "prior agrees", ""),
    ("diagnosis/dream_survival_h15", "dreams go on", ""),
    ("diagnosis/world_model_loss_newest", "newest rows", ""),
)


class Progress(NamedTuple):
    """How far a run is. Numbers are Python or numpy numbers; None or an empty container means "not yet"."""

    phase: (
        str  # compiling | prefill | world-model warm-up | training | evaluating | filming | writing the report | solved
    )
    env_steps: int
    env_steps_budget: int
    updates: int
    wall_seconds: float
    env_steps_per_second: float | None = None
    updates_per_second: float | None = None
    returns: Sequence[float] = ()  # of every training episode so far, oldest first; may grow while it is shown
    eval_mean: float | None = None  # of the last evaluation, as the next two
    eval_std: float | None = None
    eval_episodes: int = 0
    solve_return: float | None = None  # None: the environment does not say when it is solved
    metrics: Mapping[str, float] = {}  # name -> newest value; SHOWN_METRICS says which are shown
    alerts: Sequence[str] = ()  # names of all that were raised so far
    detail: str = ""  # of the phase, a few words: "37 of 100 episodes"


class Display:
    """Shows a run's progress: `with Display("cartpole") as display: ... display.update(progress)`.

    On a terminal it is one panel that is redrawn in place; anywhere else (a pipe, a file, a dumb terminal) it is a
    plain line every few seconds, whether there is news or not, after each evaluation and at each new phase, without
    escape codes. Leaving the context, also by an exception or Ctrl-C, gives the terminal back as it was.
    """

    def __init__(
        self,
        title: str,
        *,
        console: Console | None = None,
        plain_every_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Prepares the display; nothing is shown before the context is entered.

        Args:
            title: what runs, for the panel's border, such as "cartpole, seed 0, cpu".
            console: where to show it; standard output by default.
            plain_every_seconds: seconds between two plain lines, at most.
            clock: seconds that never go back, for the tests.
        """
        self._title = title
        self._console = Console() if console is None else console
        self._plain_every_seconds = plain_every_seconds
        self._clock = clock
        self._pace = _Pace()
        self._latest: tuple[Progress, float] | None = None  # and when it came
        self._shown: Progress | None = None  # the last plain line
        self._line_at = self._begun = clock()  # when that was printed
        self._lines = threading.RLock()  # held while one is printed
        self._ended = threading.Event()
        self._live: Live | None = None

    @property
    def is_live(self) -> bool:
        """Whether this is a panel (True) or plain lines (False)."""
        return self._console.is_interactive and self._console.encoding.startswith("utf")

    def __enter__(self) -> Self:
        if self.is_live:
            self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=REFRESH_PER_SECOND)
            self._live.start()
        else:
            threading.Thread(target=self._print_lines, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._end_lines()

    def update(self, progress: Progress) -> None:
        """Takes the latest numbers; cheap enough to be called after every environment step."""
        with self._lines:
            now = self._clock()
            self._pace.add(progress)
            self._latest = (progress, now)
            if self._live is None and self._line_is_due(progress, now):
                self._print_line(now)

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Shows another phase for a while: for work after the run, such as "writing the report"."""
        before = self._latest
        if before is not None:
            progress, updated_at = before
            seconds = progress.wall_seconds + self._clock() - updated_at
            self.update(progress._replace(phase=phase, detail="", wall_seconds=seconds))
        try:
            yield
        finally:
            self._latest = before

    def note(self, text: str) -> None:
        """Prints a line that stays, above the panel: what happened once, such as "resumed from step 4000"."""
        self._print(text)

    def finish(self, text: str) -> None:
        """Leaves the panel as it is and prints the last words below it, such as `summary.final_paragraph`.

        Lines that start with two spaces (commands) are never broken, so that they can be copied.
        """
        was_live = self._live is not None
        self.close()
        self._end_lines()
        for line in text.splitlines():
            self._print(line, wrap=was_live and not line.startswith("  "))

    def close(self) -> None:
        """Gives the terminal back: last picture, cursor, streams. Call it before a hard exit; twice is fine."""
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def _print_lines(self) -> None:
        """Prints the lines that are due while nobody calls `update`; in a thread."""
        seconds = self._plain_every_seconds
        while not self._ended.wait(seconds):
            with self._lines:
                now = self._clock()
                seconds = self._line_at + self._plain_every_seconds - now
                if seconds <= 0 and not self._ended.is_set():
                    self._print_line(now)
                    seconds = self._plain_every_seconds

    def _end_lines(self) -> None:
        self._ended.set()
        with self._lines:  # one that is being printed
            pass

    def _print_line(self, now: float) -> None:
        self._line_at = now
        if self._latest is None:
            self._print(f"{_clock_time(now - self._begun)} starting")
            return
        self._shown, updated_at = self._latest
        progress = self._shown._replace(wall_seconds=self._shown.wall_seconds + now - updated_at)
        self._print(_plain_line(progress, self._pace.seconds_left(progress)))

    def _line_is_due(self, progress: Progress, now: float) -> bool:
        shown = self._shown
        if shown is None or now - self._line_at >= self._plain_every_seconds:
            return True
        if progress.phase == "evaluating":
            return False  # its result is worth the line, not its beginning
        evaluated = (progress.eval_mean, progress.eval_std) != (shown.eval_mean, shown.eval_std)
        return evaluated or progress.phase != shown.phase

    def _print(self, text: str, *, wrap: bool = False) -> None:
        if not self.is_live:
            # A pipe that is not UTF-8 loses the curve, not the run.
            text = text.encode(self._console.encoding, "replace").decode(self._console.encoding)
        self._console.print(Text(text), soft_wrap=not wrap)

    def _render(self) -> RenderableType:
        """The panel as of now; runs in the drawing thread."""
        if self._latest is None:
            return Text(f"{_clock_time(self._clock() - self._begun)} starting", "dim")
        progress, updated_at = self._latest
        width = min(self._console.width, MAX_WIDTH)
        # The last update may be long ago, while JAX compiles.
        elapsed = progress.wall_seconds + self._clock() - updated_at
        body = _panel_body(progress, elapsed, self._pace.seconds_left(progress), width - 4)
        border = "green" if progress.phase == "solved" else "dim"
        return Panel(body, title=Text(self._title, "bold"), title_align="left", width=width, border_style=border)


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """A curve of one character a value: ▁▂▃▅▇.

    More values than `width` are averaged in `width` equal parts. The lowest becomes ▁ and the highest █; a constant
    series is drawn at half height, a part without finite values as a blank.

    Args:
        values: the series, oldest first.
        width: the most characters to use.

    Returns:
        `min(len(values), width)` characters.
    """
    points = _resample(values, width)
    finite = [point for point in points if point is not None]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    return "".join(" " if point is None else _bar(point, low, high) for point in points)


class _Pace:
    """Speed over the recent past, from one sample a second at most, once enough updates were made."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()  # wall seconds, environment steps
        self._first: int | None = None  # updates that earlier processes had made

    def add(self, progress: Progress) -> None:
        self._first = progress.updates if self._first is None else self._first
        if progress.phase not in STEADY_PHASES or progress.updates - self._first < WARMING_UPDATES:
            self._samples.clear()  # random prefill is fast, compilation slow: neither tells what comes
            return
        if self._samples and progress.wall_seconds - self._samples[-1][0] < 1.0:
            return
        self._samples.append((progress.wall_seconds, progress.env_steps))
        while progress.wall_seconds - self._samples[0][0] > PACE_WINDOW_SECONDS and len(self._samples) > 2:
            self._samples.popleft()

    def seconds_left(self, progress: Progress) -> float | None:
        """Seconds until the budget is spent at the recent speed; None while that is unknown."""
        try:
            began_at, began_with = self._samples[0]
        except IndexError:  # the drawing thread may ask just after `clear`
            return None
        seconds, steps = progress.wall_seconds - began_at, progress.env_steps - began_with
        if seconds < PACE_LEAST_SECONDS or steps <= 0:
            return None
        return max(0, progress.env_steps_budget - progress.env_steps) * seconds / steps


def _panel_body(progress: Progress, elapsed: float, seconds_left: float | None, width: int) -> RenderableType:
    share = min(1.0, progress.env_steps / max(1, progress.env_steps_budget))
    steps = f"{progress.env_steps:,} / {progress.env_steps_budget:,} steps"
    narrow = width < 52
    phase = Text(progress.phase, PHASE_STYLES.get(progress.phase, "bold yellow"))
    detail = [progress.detail] if progress.detail else []
    if detail and len(phase) + len(progress.detail) + len(steps) + LEAST_BAR <= width:
        phase.append(f" ({detail.pop()})", "dim")
    head = Table.grid(padding=(0, 2), expand=True)
    head.add_column(no_wrap=True)
    head.add_column(ratio=1)
    head.add_column(no_wrap=True)
    head.add_row(
        phase,
        ProgressBar(total=1.0, completed=share, complete_style="cyan", finished_style="cyan"),
        Text(f"{share:.0%}" if narrow else steps),
    )
    facts = [*detail, f"{_clock_time(elapsed)} elapsed", *_left(seconds_left), *_speeds(progress)]
    lines = [Text(line, "dim") for line in _pack([steps, *facts] if narrow else facts, width)]
    scores = Table.grid(padding=(0, 2))
    scores.add_column(style="dim", no_wrap=True, min_width=LABEL_WIDTH)
    scores.add_column(no_wrap=True, overflow="ellipsis")
    scores.add_row("return", _returns(progress, width - LABEL_WIDTH - 2))
    scores.add_row("evaluation", _evaluation(progress))
    if progress.alerts:
        scores.add_row("alerts", Text(", ".join(dict.fromkeys(progress.alerts)), "bold red"))
    return Group(head, *lines, Text(""), scores, Text(""), _metrics_grid(progress, width))


def _returns(progress: Progress, width: int) -> Text:
    returns = list(progress.returns)  # a copy: the run goes on while this draws
    if not returns:
        return Text(DASH)
    mean = f"{_recent_mean(returns):,.1f}  "
    text = Text.assemble((mean, "bold"), (sparkline(returns, max(8, min(40, width - len(mean)))), "cyan"))
    aside = f"  last {min(RECENT_EPISODES, len(returns))} of {len(returns):,} episodes"
    if len(text) + len(aside) <= width:
        text.append(aside, "dim")
    return text


def _evaluation(progress: Progress) -> Text:
    goal = "" if progress.solve_return is None else f"goal {progress.solve_return:g}"
    if progress.eval_mean is None:
        return Text.assemble(DASH, (f"  {goal}", "dim"))
    solved = progress.solve_return is not None and progress.eval_mean >= progress.solve_return
    mean, std = progress.eval_mean, progress.eval_std
    score = f"{mean:,.1f}" if std is None else mean_and_spread(mean, std, progress.eval_episodes)
    aside = f" over {count(progress.eval_episodes, 'episode')}{goal and f', {goal}'}"
    return Text.assemble((score, "bold green" if solved else "bold"), (aside, "dim"))


def _metrics_grid(progress: Progress, width: int) -> Table:
    """A grid of names and values, as many side by side as fit; the widths stay when the values change."""
    pairs = 4 if width >= 94 else 2 if width >= 52 else 1
    grid = Table.grid(padding=(0, 2))
    for pair in range(pairs):
        if pair > 0:
            grid.add_column()  # a gap
        grid.add_column(style="dim", no_wrap=True, min_width=LABEL_WIDTH if pair == 0 else 0)
        grid.add_column(justify="right", no_wrap=True, min_width=NUMBER_WIDTH)
    cells = [(Text(name), _metric(progress.metrics.get(metric))) for metric, name, _ in SHOWN_METRICS]
    for start in range(0, len(cells), pairs):
        row = cells[start : start + pairs]
        grid.add_row(*row[0], *(part for name, value in row[1:] for part in ("", name, value)))
    return grid


def _metric(value: float | None) -> Text:
    if value is None:
        return Text(DASH)
    return Text(_number(value), "" if math.isfinite(value) else "bold red")


def _plain_line(progress: Progress, seconds_left: float | None) -> str:
    share = progress.env_steps / max(1, progress.env_steps_budget)
    parts = [
        f"{_clock_time(progress.wall_seconds)} {progress.phase}{progress.detail and f' ({progress.detail})'}",
        f"{progress.env_steps:,}/{progress.env_steps_budget:,} steps ({share:.0%})",
        *_speeds(progress),
        *_left(seconds_left),
    ]
    if len(progress.returns):
        parts.append(f"return {_recent_mean(progress.returns):,.1f} {sparkline(progress.returns, 16)}")
    if progress.eval_mean is not None:
        parts.append(f"evaluation {_evaluation(progress).plain}")
    metrics = progress.metrics
    shown = [f"{short} {_number(metrics[name])}" for name, _, short in SHOWN_METRICS if short and name in metrics]
    return " | ".join([*parts, *([" ".join(shown)] if shown else [])])


def _speeds(progress: Progress) -> Iterator[str]:
    if progress.env_steps_per_second is not None:
        yield f"{_speed(progress.env_steps_per_second)} steps/s"
    if progress.updates_per_second is not None:
        yield f"{_speed(progress.updates_per_second)} updates/s"
    yield count(progress.updates, "update")


def _left(seconds: float | None) -> Iterator[str]:
    if seconds is not None:
        yield f"about {_clock_time(seconds)} left"


def _pack(parts: Sequence[str], width: int) -> list[str]:
    """Joins parts with dots, as many in a line as fit."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 3 <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return lines


def _resample(values: Sequence[float], width: int) -> list[float | None]:
    """The mean of the finite values in each of at most `width` equal parts; None where there is none."""
    parts = min(len(values), width)
    edges = [part * len(values) // parts for part in range(parts + 1)] if parts > 0 else []
    points: list[float | None] = []
    for start, end in pairwise(edges):
        finite = [float(value) for value in values[start:end] if math.isfinite(value)]
        points.append(sum(value / len(finite) for value in finite) if finite else None)
    return points


def _bar(value: float, low: float, high: float) -> str:
    top = len(BARS) - 1
    half_span = high / 2 - low / 2  # halves, so that float64's whole range fits
    if half_span <= 1e-9 * max(abs(low), abs(high)):
        return BARS[top // 2]  # constant, but for rounding in the means
    return BARS[round((value / 2 - low / 2) / half_span * top)]


def _recent_mean(returns: Sequence[float]) -> float:
    recent = returns[-RECENT_EPISODES:]
    return sum(recent) / len(recent)


def _number(value: float) -> str:
    size = abs(value)
    if not math.isfinite(value):
        return str(float(value))
    if size >= 1e6 or 0 < size < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 100 else f"{value:.3f}"


def _speed(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _clock_time(seconds: float) -> str:
    """1:05, or 2:01:05 from one hour on."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
