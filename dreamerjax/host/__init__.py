"""Everything with side effects: devices, environments, files, the training loop."""
