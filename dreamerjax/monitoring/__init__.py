"""What a run reports: metrics, terminal, summary, diagnosis, alerts."""
