"""The laboratory: what is measured about the agent, and how results are compared."""
