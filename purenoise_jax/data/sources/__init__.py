"""Data sources: each loads a `Dataset`; `registry` lists them."""
