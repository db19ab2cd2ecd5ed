"""The latent map: PCA of latent features."""

import numpy as np
import pytest

from dreamerjax.types import LatentState
from dreamerjax.viz.latent_map import features_of, fit_map


def states(features: np.ndarray) -> LatentState:
    """Latent states [T] with these features [T, 8]: 4 deterministic units, 2 groups of 2 classes."""
    deter, stoch = features[:, :4], features[:, 4:]
    return LatentState(deter=deter.reshape(-1, 1, 4), stoch=stoch.reshape(-1, 1, 2, 2))


def test_features_of_latent_states():
    given = np.arange(24.0).reshape(3, 8)
    np.testing.assert_array_equal(features_of(states(given))[:, 0], given)


def test_the_first_two_principal_components_are_found():
    generator = np.random.default_rng(0)
    basis, _ = np.linalg.qr(generator.normal(size=(8, 8)))
    along = generator.normal(size=(500, 8)) * [10, 4, 1, 0.1, 0.1, 0.1, 0.1, 0.1]
    fitted = fit_map(states(along @ basis.T + 3))
    assert np.abs(fitted.directions[:, 0] @ basis[:, 0]) > 0.99
    assert np.abs(fitted.directions[:, 1] @ basis[:, 1]) > 0.99
    np.testing.assert_allclose(fitted.explained, [100 / 117, 16 / 117], atol=0.03)
    placed = fitted.project(states(along @ basis.T + 3))[:, 0]
    assert placed.shape == (500, 2)
    np.testing.assert_allclose(placed.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(placed.std(0), [10, 4], rtol=0.1)


@pytest.mark.parametrize("length", [1, 2])
def test_a_map_of_one_or_two_equal_states_is_finite(length):
    fitted = fit_map(states(np.ones((length, 8))))
    assert np.isfinite(fitted.explained).all()
    np.testing.assert_array_equal(fitted.project(states(np.ones((length, 8)))), np.zeros((length, 1, 2)))
