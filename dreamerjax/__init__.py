"""dreamerjax: DreamerV3, the world-model agent, as pure functions in JAX and Flax."""

__version__ = "0.1.0"
