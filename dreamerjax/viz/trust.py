"""How far ahead a dream can be trusted, as charts: its errors and its survival, over the steps that were dreamed."""

from collections.abc import Iterator
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from dreamerjax.inference.dreamer import Dreamer
from dreamerjax.inference.open_loop import OpenLoopComparison, compare_open_loop
from dreamerjax.types import Spaces
from dreamerjax.viz.page import Chart, chart

matplotlib.use("Agg")  # pictures go to files; no window is needed

CONTEXT, HORIZON = 10, 32  # steps that are seen, and dreamed
STARTS, COPIES = 64, 8  # stretches of episodes, and dreams of each ...
STARTS_OF_IMAGES, COPIES_OF_IMAGES = 16, 4  # ... fewer where each step is a picture
FEWEST = 4  # stretches, to say anything at all
MOST_CHARTS = 6  # of the numbers that are dreamed worst


class Error(NamedTuple):
    """By how much the dreams miss one number, or the numbers of one picture."""

    name: str
    values: np.ndarray  # [H, N]; NaN where the episode had ended
    scale: float  # what counts as large: the spread of the number in real episodes, or 1 for shares
    scale_in_words: str = "the range that it can have"

    def middle(self, steps: int) -> float:
        """The median after so many steps, or after as many as any episode lasted."""
        lasting = self.values[~np.isnan(self.values).all(1)]
        return float(np.nanmedian(lasting[min(steps, len(lasting)) - 1]))


class Trust(NamedTuple):
    """What the comparison came to."""

    sentence: str
    charts: list[Chart]


def trust_in_dreams(dreamer: Dreamer) -> Trust | None:
    """Lets the agent act, dreams beside it under the same actions, and draws the errors.

    Returns:
        A sentence and the charts; None if nearly all episodes end before a dream could begin.

    Raises:
        EnvError: the environment is not installed, or misbehaves.
    """
    images = any(spec.is_image for spec in dreamer.spaces.obs)
    starts, copies = (STARTS_OF_IMAGES, COPIES_OF_IMAGES) if images else (STARTS, COPIES)
    compared = compare_open_loop(dreamer, context=CONTEXT, horizon=HORIZON, starts=starts, copies=copies)
    if compared.known.shape[1] < FEWEST:
        return None
    trained = min(dreamer.config.agent.returns.imagination_horizon, HORIZON)
    errors = sorted(errors_of(compared, dreamer.spaces), key=lambda e: e.middle(trained) / e.scale, reverse=True)
    charts = [_error_chart(error, trained) for error in errors[:MOST_CHARTS]]
    worst, (dreamed, real) = errors[0], survival_of(compared)
    of_how_many = f", the worst of {len(errors)}," if len(errors) > 1 else ""
    sentence = (
        f"After {trained} steps, the length of the dreams that it learns from, the median dream misses "
        f"{worst.name}{of_how_many} by {worst.middle(trained) / worst.scale:.0%} of {worst.scale_in_words}, and "
        f"{dreamed[trained - 1]:.0%} of dreams still go on, where {real[trained - 1]:.0%} of episodes do. "
        f"({compared.known.shape[1]} stretches of episodes under its own policy, {copies} dreams of each.)"
    )
    return Trust(sentence, [*charts, _survival_chart(dreamed, real, trained)])


def errors_of(compared: OpenLoopComparison, spaces: Spaces) -> Iterator[Error]:
    """The errors of each number of a vector, of an image's pixels, of the places of integers."""
    ended = ~compared.known
    for spec in spaces.obs:
        if spec.is_vector:
            error, real = compared.error(spec.name), compared.rows.obs[spec.name]
            for i in range(spec.shape[0]):
                spread = float(np.std(real[..., i][compared.known]))
                yield Error(f"{spec.name}[{i}]", error[..., i], spread or 1.0, "its spread")
            continue
        real, dreamed = compared.rows.obs[spec.name].astype(np.float32), compared.expected(spec.name)
        missed = np.abs(dreamed - real) / 255 if spec.is_image else dreamed != real
        share = missed.reshape(*missed.shape[:2], -1).mean(2)
        yield Error(spec.name, np.where(ended, np.nan, share), 1.0)


def survival_of(compared: OpenLoopComparison) -> tuple[np.ndarray, np.ndarray]:
    """The share that still goes on after each step, as it was dreamed and as it was: [H], [H].

    A stretch that was cut short by a time limit counts until then.
    """
    over = np.logical_or.accumulate(compared.rows.is_terminal & compared.known, axis=0)
    counted = compared.known | over
    counts = np.maximum(counted.sum(1), 1)
    return np.where(counted, compared.survival, 0).sum(1) / counts, (counted & ~over).sum(1) / counts


def _error_chart(error: Error, trained: int) -> Chart:
    def draw(axes: Axes) -> None:
        lasting = ~np.isnan(error.values).all(1)
        steps = 1 + np.flatnonzero(lasting)
        low, middle, high = np.nanquantile(error.values[lasting], [0.1, 0.5, 0.9], axis=1)
        axes.fill_between(steps, low, high, color="C0", alpha=0.18, linewidth=0, label="10 to 90%")
        axes.plot(steps, middle, color="C0", linewidth=1.6, label="median")
        _finish(axes, trained)
        axes.set(ylabel="error", ylim=(0, None))
        axes.legend(fontsize="small", loc="upper left")

    middle = error.middle(trained)
    caption = f"After {trained} steps {middle:.3g}, {middle / error.scale:.0%} of {error.scale_in_words}."
    alt = (
        f"Error of {error.name} by imagined steps: median {error.middle(1):.3g} after 1, {middle:.3g} after {trained}."
    )
    return Chart(f"Error of {error.name}", chart(draw, alt), caption)


def _survival_chart(dreamed: np.ndarray, real: np.ndarray, trained: int) -> Chart:
    def draw(axes: Axes) -> None:
        steps = 1 + np.arange(len(real))
        axes.plot(steps, real, color="0.4", linewidth=2.2, label="episodes")
        axes.plot(steps, dreamed, color="C1", linewidth=1.6, label="dreams")
        _finish(axes, trained)
        axes.set(ylabel="share that goes on", ylim=(0, 1.05))
        axes.legend(fontsize="small", loc="upper right")

    last = len(real)
    caption = f"After {last} steps {dreamed[-1]:.0%} of dreams go on, and {real[-1]:.0%} of episodes."
    return Chart("Survival, predicted and real", chart(draw, f"Survival by imagined steps. {caption}"), caption)


def _finish(axes: Axes, trained: int) -> None:
    axes.axvline(trained, color="0.4", linewidth=0.8, linestyle=":")
    axes.set(xlabel="imagined steps (dotted: as far as it learns from)", xlim=(1, HORIZON))
