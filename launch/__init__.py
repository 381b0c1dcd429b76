"""Runs the papers' tables, and starts runs of several processes."""
