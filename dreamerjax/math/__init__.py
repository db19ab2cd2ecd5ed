"""Formulas on arrays: no parameters, no flax, no configuration."""
