"""Final return, peak and pattern of learning curves of many shapes."""

import numpy as np
import pytest

from dreamerjax.viz.curve_shape import final_return, pattern, peak_return


@pytest.mark.parametrize(
    ("returns", "name"),
    [
        # A slow or steep rise, with few or many evaluations.
        ([10, 20, 40, 60, 80, 100], "rising"),
        ([10.3, 16.0, 70.6], "rising"),
        ([10, 20, 40, 80, 160], "rising"),
        ([10, 10, 10, 10, 10, 160], "rising"),
        ([-1400, -1200, -900, -600, -300, -150], "rising"),
        ([10, 56, 84, 106, 173, 131, 195, 217, 290, 360, 302, 356, 331, 454, 492], "rising"),
        # A plateau from the start, after a rise, or with noise.
        ([96, 97, 96, 98, 97, 96], "plateau"),
        ([10, 90, 100, 99, 100, 98], "plateau"),
        ([10, 100, 100], "plateau"),
        ([0, 0, 0], "plateau"),
        ([-100, -100.5, -100], "plateau"),
        # A peak, possibly at the first evaluation, and a decline.
        ([10, 60, 147, 140, 120, 110], "peak then decline"),
        ([10, 9, 38, 93, 469, 500, 500, 374, 246, 294, 267], "peak then decline"),
        ([100, 50, 10], "peak then decline"),
        # Noise.
        ([50, 90, 40, 95, 45, 80, 55], "up and down"),
        ([100, 20, 100, 20, 100, 20], "up and down"),
        ([100, 20, 100], "up and down"),
        # Too few.
        ([10, 100], "too few to tell"),
        ([10], "too few to tell"),
        ([], "too few to tell"),
    ],
)
def test_patterns(returns: list[float], name: str) -> None:
    assert pattern(np.array(returns, float)) == name


def test_a_plateau_with_noise_is_a_plateau() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        returns = np.concatenate([np.linspace(0, 100, 10), 100 + rng.normal(0, 3, 40)])
        assert pattern(returns) == "plateau"


def test_a_run_that_ends_at_its_peak_never_declines() -> None:
    rng = np.random.default_rng(0)
    for count in (3, 5, 12):
        for _ in range(50):
            returns = rng.normal(size=count)
            returns[-1] = returns.max() + 1
            assert pattern(returns) != "peak then decline"


def test_final_is_the_last_and_peak_the_highest() -> None:
    returns = np.array([10.3, 16.0, 70.6, 43.3])
    assert final_return(returns) == 43.3
    assert peak_return(returns) == 70.6
