"""Experience: the ring buffer of rows, on the host, the device or the disk."""
