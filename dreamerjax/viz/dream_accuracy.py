"""The accuracy of dreams: charts of prediction errors and of survival by imagined steps."""

from collections.abc import Iterator
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from dreamerjax.inference.dreamer import Dreamer
from dreamerjax.inference.open_loop import OpenLoopComparison, compare_open_loop
from dreamerjax.types import Spaces
from dreamerjax.viz.page import Chart, chart

matplotlib.use("Agg")  # draw to files, without a display

CONTEXT, HORIZON = 10, 32  # observed steps, imagined steps
STARTS, COPIES = 64, 8  # episode segments, and dreams of each ...
STARTS_OF_IMAGES, COPIES_OF_IMAGES = 16, 4  # ... fewer for images
MIN_SEGMENTS = 4  # for a result
MAX_CHARTS = 6  # of the numbers with the largest errors


class Error(NamedTuple):
    """The prediction error of one number, or the mean error of one image."""

    name: str
    values: np.ndarray  # [H, N]; NaN where the episode had ended
    scale: float  # a large error: the standard deviation of the number in real episodes, or 1 for shares
    scale_name: str = "its range"

    def middle(self, steps: int) -> float:
        """The median error after so many steps, or after the last step that any episode reached."""
        lasting = self.values[~np.isnan(self.values).all(1)]
        return float(np.nanmedian(lasting[min(steps, len(lasting)) - 1]))


class DreamAccuracy(NamedTuple):
    """The result of the comparison."""

    sentence: str
    charts: list[Chart]


def measure_dream_accuracy(dreamer: Dreamer) -> DreamAccuracy | None:
    """Acts with the agent, dreams under the same actions, and draws the errors.

    Returns:
        A sentence and the charts; None if nearly all episodes end within the context.

    Raises:
        EnvError: the environment is not installed, or fails.
    """
    images = any(spec.is_image for spec in dreamer.spaces.obs)
    starts, copies = (STARTS_OF_IMAGES, COPIES_OF_IMAGES) if images else (STARTS, COPIES)
    compared = compare_open_loop(dreamer, context=CONTEXT, horizon=HORIZON, starts=starts, copies=copies)
    if compared.known.shape[1] < MIN_SEGMENTS:
        return None
    trained = min(dreamer.config.agent.returns.imagination_horizon, HORIZON)
    errors = sorted(errors_of(compared, dreamer.spaces), key=lambda e: e.middle(trained) / e.scale, reverse=True)
    charts = [_error_chart(error, trained) for error in errors[:MAX_CHARTS]]
    worst, (dreamed, real) = errors[0], survival_of(compared)
    of_how_many = f", the largest of {len(errors)}," if len(errors) > 1 else ""
    sentence = (
        f"After {trained} imagined steps, the horizon used in training, the median error of {worst.name}{of_how_many} "
        f"is {worst.middle(trained) / worst.scale:.0%} of {worst.scale_name}; {dreamed[trained - 1]:.0%} of dreams and "
        f"{real[trained - 1]:.0%} of episodes continue. ({compared.known.shape[1]} episode segments under the agent's "
        f"policy, {copies} dreams of each.)"
    )
    return DreamAccuracy(sentence, [*charts, _survival_chart(dreamed, real, trained)])


def errors_of(compared: OpenLoopComparison, spaces: Spaces) -> Iterator[Error]:
    """The errors: absolute for each number of a vector, mean over an image's pixels, share of wrong integers."""
    ended = ~compared.known
    for spec in spaces.obs:
        if spec.is_vector:
            error, real = compared.error(spec.name), compared.rows.obs[spec.name]
            for i in range(spec.shape[0]):
                spread = float(np.std(real[..., i][compared.known]))
                yield Error(f"{spec.name}[{i}]", error[..., i], spread or 1.0, "its standard deviation")
            continue
        real, dreamed = compared.rows.obs[spec.name].astype(np.float32), compared.expected(spec.name)
        missed = np.abs(dreamed - real) / 255 if spec.is_image else dreamed != real
        share = missed.reshape(*missed.shape[:2], -1).mean(2)
        yield Error(spec.name, np.where(ended, np.nan, share), 1.0)


def survival_of(compared: OpenLoopComparison) -> tuple[np.ndarray, np.ndarray]:
    """The share of dreams [H] and of episodes [H] that continue after each step.

    A segment that a time limit cuts short counts until then.
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
    caption = f"Median after {trained} steps: {middle:.3g}, {middle / error.scale:.0%} of {error.scale_name}."
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
        axes.set(ylabel="share that continues", ylim=(0, 1.05))
        axes.legend(fontsize="small", loc="upper right")

    last = len(real)
    caption = f"After {last} steps, {dreamed[-1]:.0%} of dreams and {real[-1]:.0%} of episodes continue."
    return Chart("Survival, predicted and real", chart(draw, f"Survival by imagined steps. {caption}"), caption)


def _finish(axes: Axes, trained: int) -> None:
    axes.axvline(trained, color="0.4", linewidth=0.8, linestyle=":")
    axes.set(xlabel="imagined steps (dotted: horizon in training)", xlim=(1, HORIZON))
