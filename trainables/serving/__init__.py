"""The serving trial: an engine, its parameters, and the load at which it just meets the SLO."""
