"""Convolutions of spikes as additions."""
