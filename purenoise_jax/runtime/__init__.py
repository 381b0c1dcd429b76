"""Files, processes, devices, random keys and errors: what every other folder stands on."""
