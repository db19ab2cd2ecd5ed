"""The page in the browser: play in a dream, next to the real environment."""
