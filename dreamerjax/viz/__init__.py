"""Pictures, films and the report of a run."""
