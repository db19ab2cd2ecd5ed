"""The machine: back-end, compile cache, memory, signals and output streams."""
