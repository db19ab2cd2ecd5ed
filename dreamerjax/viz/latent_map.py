"""A map of the latent space: the two directions in which the features of real states vary most (PCA)."""

from typing import NamedTuple

import numpy as np

from dreamerjax.nets.rssm import latent_features
from dreamerjax.types import LatentState


class LatentMap(NamedTuple):
    """An affine map from features to the plane, fitted by `fit_map`."""

    mean: np.ndarray  # [F]
    directions: np.ndarray  # [F, 2] orthonormal: the first two principal components
    explained: np.ndarray  # [2] share of the features' variance along each of them

    def project(self, states: LatentState) -> np.ndarray:
        """Places [..., 2] of latent states [...]."""
        return (features_of(states) - self.mean) @ self.directions


def fit_map(states: LatentState) -> LatentMap:
    """The principal components of latent states, as `Dreamer.encode` gives them.

    Args:
        states: of an episode or several, [T] of N.
    """
    features = features_of(states)
    features = features.reshape(-1, features.shape[-1])
    mean = features.mean(0)
    _, sizes, directions = np.linalg.svd(features - mean, full_matrices=False)
    shares = sizes**2 / max(float(np.sum(sizes**2)), np.finfo(float).tiny)
    two = np.zeros((2, features.shape[-1]))
    two[: min(2, len(directions))] = directions[:2]
    return LatentMap(mean, two.T, np.pad(shares, (0, 2))[:2])


def features_of(states: LatentState) -> np.ndarray:
    """What the heads read, [..., F] float64: the recurrent state beside the latent groups."""
    return np.asarray(latent_features(states), np.float64)
