"""The bounds of a space, with a tolerance for rounding."""

import numpy as np
import pytest
from gymnasium.spaces import Box

from dreamerjax.config import EnvConfig
from dreamerjax.envs.observations import BadValueError, Converted, observation_leaves


def taken(low: float, high: float, value: np.ndarray) -> Converted:
    """The value of a Box of float32 with these bounds, as the agent sees it."""
    (leaf,) = observation_leaves(Box(low, high, (1,), np.float32), EnvConfig(id="a test"))
    return leaf.convert(value)


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.1, 0.1), (-0.7, -0.7), (0.0, 0.0), (1e6 + 0.1, 1e6 + 0.1), (12345.67, 12345.68), (-1.0, 0.1), (0.1, np.inf)],
)
def test_a_bound_of_the_space_is_inside_in_any_precision(low, high):
    for bound in (low, high):
        if np.isfinite(bound):
            for dtype in (np.float32, np.float64):
                assert taken(low, high, np.array([bound], dtype)) == (np.float32(bound), "")


@pytest.mark.parametrize(
    ("low", "high", "value"),
    [
        (0.1, 0.1, 0.1001),
        (0.1, 0.1, 0.0999),
        (0.0, 0.0, 1e-9),
        (-1.0, 1.0, 1.001),
        (1e6, 1e6, 1e6 + 10),
        (0.1, np.inf, 0.09),
    ],
)
def test_values_beyond_the_tolerance_are_outside(low, high, value):
    seen = taken(low, high, np.array([value]))
    assert seen.value == np.float32(value)
    assert seen.outside


@pytest.mark.parametrize(("low", "high", "value"), [(0.1, 0.1, np.nan), (0.0, np.inf, np.inf)])
def test_values_that_are_not_finite_are_refused(low, high, value):
    with pytest.raises(BadValueError, match="is not finite"):
        taken(low, high, np.array([value]))
