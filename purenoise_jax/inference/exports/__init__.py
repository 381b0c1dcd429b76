"""Trained networks as files for other programs, each with a description and a model card."""
