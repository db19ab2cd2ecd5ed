"""The progress of a run as a panel, and as a plain line."""

import math
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dreamerjax.monitoring.progress import Progress
from dreamerjax.monitoring.sparkline import sparkline
from dreamerjax.monitoring.summary import count, mean_and_spread

RECENT_EPISODES = 10  # "the return" is the mean of this many
DASH = "–"
LEAST_BAR = 20  # columns of the progress bar with its gaps
LABEL_WIDTH = len("reconstruction")
NUMBER_WIDTH = len("-1.2e-04")
PHASE_STYLES = {"training": "bold cyan", "evaluating": "bold magenta", "solved": "bold green"}

# The metrics that matter: metric, full name in the panel, short name in a plain line (empty: only in the panel).
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


def panel_body(progress: Progress, elapsed: float, seconds_left: float | None, width: int) -> RenderableType:
    """The inside of the panel, `width` columns wide."""
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
    facts = [*detail, f"{clock_time(elapsed)} elapsed", *_left(seconds_left), *_speeds(progress)]
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


def plain_line(progress: Progress, seconds_left: float | None) -> str:
    """The progress in one line of text."""
    share = progress.env_steps / max(1, progress.env_steps_budget)
    parts = [
        f"{clock_time(progress.wall_seconds)} {progress.phase}{progress.detail and f' ({progress.detail})'}",
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
        yield f"about {clock_time(seconds)} left"


def _pack(parts: Sequence[str], width: int) -> list[str]:
    """Joins parts with dots, as many in a line as fit."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 3 <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return lines


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


def clock_time(seconds: float) -> str:
    """1:05, or 2:01:05 from one hour on."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
