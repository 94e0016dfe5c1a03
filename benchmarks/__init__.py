"""Measurements: what the numerics are worth and what they cost, and the fits beside those of other packages."""
