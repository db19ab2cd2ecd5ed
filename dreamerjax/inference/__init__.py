"""What was learned, in use: act, encode, dream."""
