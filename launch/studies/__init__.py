"""Studies of the sources that are not tables of methods."""
