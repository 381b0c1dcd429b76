"""A training run, from its set-up to its summary."""
