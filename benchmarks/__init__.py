"""Speed, measured: `python -m benchmarks.run` writes JSON and prints tables; see its `--help`."""
