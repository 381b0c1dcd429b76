"""Speed measurements: `python -m benchmarks.run` writes JSON and prints tables."""
