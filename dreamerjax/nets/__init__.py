"""Neural networks: only flax.linen modules with parameters."""
