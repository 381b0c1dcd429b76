"""Files, processes, devices, random keys and errors; all other folders import from here."""
