"""Spikes kept as bits for the backward pass."""
