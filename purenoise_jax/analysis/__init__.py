"""Figures, tables and reports, made from the checkpoints and metrics of finished runs."""
