"""A run on disk: its folder, its settings in layers, its checkpoints and its lineage."""
