"""Measurements: models against other libraries, in one process, alternating."""
