"""The page in the browser on which one plays inside a dream, beside the real environment."""
