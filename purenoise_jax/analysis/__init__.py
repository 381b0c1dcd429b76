"""Figures, tables and reports from the checkpoints and metrics of runs."""
