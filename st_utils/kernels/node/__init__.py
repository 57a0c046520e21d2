"""Integrate-and-fire neurons over all time steps."""
