"""The reports of a run: metrics, terminal, summary, diagnosis, alerts."""
