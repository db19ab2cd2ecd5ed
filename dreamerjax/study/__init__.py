"""Hypotheses, sweeps, verdicts and comparisons of runs."""
