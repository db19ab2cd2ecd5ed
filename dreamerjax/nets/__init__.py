"""Neural networks: flax.linen modules with parameters, and nothing else."""
