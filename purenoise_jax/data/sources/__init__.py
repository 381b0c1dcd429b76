"""Sources of images: each returns a `Dataset`; `registry` lists them."""
