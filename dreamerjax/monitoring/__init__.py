"""What a run tells: metrics, terminal, summary, diagnosis, alerts."""
