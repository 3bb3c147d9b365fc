"""Training in several processes, one for each device."""
