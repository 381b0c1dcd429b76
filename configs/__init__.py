"""Config files, one per data set."""
