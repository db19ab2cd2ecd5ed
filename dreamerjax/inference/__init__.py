"""Uses a trained agent: act, encode, dream."""
