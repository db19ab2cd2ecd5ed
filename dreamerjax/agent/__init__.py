"""The algorithm: losses, imagination and updates, all pure functions."""
