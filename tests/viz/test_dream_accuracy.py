"""Accuracy of dreams: errors of observations, and survival."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dreamerjax.inference.open_loop import OpenLoopComparison
from dreamerjax.types import ObsSpec, Rows, Spaces
from dreamerjax.viz.dream_accuracy import errors_of, survival_of


def compared(
    *, obs: dict[str, np.ndarray], dreamed: dict[str, np.ndarray], cont: np.ndarray, **flags: Any
) -> OpenLoopComparison:
    """Episode segments with one dream of each, [H, N, ...]."""
    steps, count = cont.shape
    off = np.zeros((steps, count), bool)
    flags = {"is_first": off, "is_last": off, "is_terminal": off} | flags
    rows = Rows(obs, np.zeros((steps, count, 1)), np.zeros((steps, count)), **flags)
    dream: Any = SimpleNamespace(obs=dreamed, cont=cont)
    return OpenLoopComparison(rows, [dream], np.cumprod(~rows.is_first, axis=0).astype(bool))


def test_errors_of_numbers_pictures_and_integers() -> None:
    specs = (ObsSpec("state", (2,)), ObsSpec("image", (1, 2, 1)), ObsSpec("map", (2, 2), 5))
    obs = {
        "state": np.array([[[0.0, 1.0]] * 2, [[2.0, 1.0]] * 2]),
        "image": np.full((2, 2, 1, 2, 1), 100, np.uint8),
        "map": np.zeros((2, 2, 2, 2), np.uint8),
    }
    dreamed = {name: values.copy() for name, values in obs.items()}
    dreamed["state"][1, 0, 0] += 3
    dreamed["image"][:, :, :, 0] += 51
    dreamed["map"][0, 0, 0] = 4
    first = np.array([[False, False], [False, True]])
    made = compared(obs=obs, dreamed=dreamed, cont=np.ones((2, 2)), is_first=first)
    errors = {error.name: error for error in errors_of(made, Spaces(specs, ()))}
    assert list(errors) == ["state[0]", "state[1]", "image", "map"]
    nan = np.nan
    np.testing.assert_allclose(errors["state[0]"].values, [[0, 0], [3, nan]])
    np.testing.assert_allclose(errors["image"].values, [[0.1, 0.1], [0.1, nan]])
    np.testing.assert_allclose(errors["map"].values, [[0.5, 0], [0, nan]])
    assert errors["state[0]"].scale == pytest.approx(np.std([0, 0, 2]))
    assert errors["state[1]"].scale == 1, "it never changes"
    assert [errors["state[0]"].middle(steps) for steps in (1, 2, 9)] == [0, 3, 3]


def test_survival_counts_a_segment_until_a_time_limit() -> None:
    """The first ends at step 2, the second is cut short after step 1, the third continues."""
    terminal, first = np.zeros((3, 3), bool), np.zeros((3, 3), bool)
    terminal[1, 0] = first[2, 0] = first[1, 1] = True
    cont = np.full((3, 3), 0.5)
    nothing: dict[str, np.ndarray] = {}
    dreamed, real = survival_of(compared(obs=nothing, dreamed=nothing, cont=cont, is_terminal=terminal, is_first=first))
    np.testing.assert_allclose(real, [1, 1 / 2, 1 / 2])
    np.testing.assert_allclose(dreamed, [0.5, 0.25, 0.125])
