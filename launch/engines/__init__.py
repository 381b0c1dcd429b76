"""Ways to run the tasks of a table: in this process, in several here, or as jobs of SLURM."""
