"""Measures the speed of an update and of its parts."""
