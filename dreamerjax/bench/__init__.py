"""How fast an update is, and what it is made of."""
