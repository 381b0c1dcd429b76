"""Checkpoints: written, verified, read, and turned into the first state of another run."""
