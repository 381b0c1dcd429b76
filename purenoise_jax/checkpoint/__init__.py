"""Checkpoints: writes, verifies and reads them, and makes them the first state of another run."""
