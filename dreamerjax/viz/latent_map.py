"""A two-dimensional map of the latent space: the first two principal components of the latent features (PCA)."""

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
        """Positions [..., 2] of latent states [...]."""
        return (features_of(states) - self.mean) @ self.directions


def fit_map(states: LatentState) -> LatentMap:
    """Fits the map to latent states, as returned by `Dreamer.encode`.

    Args:
        states: [T] of N, of one or more episodes.
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
    """The input of the heads, [..., F] float64: the recurrent state and the latent groups, concatenated."""
    return np.asarray(latent_features(states), np.float64)
