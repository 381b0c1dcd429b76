"""Trained runs: their files, and their networks as functions of images."""
