"""Batch norm and the neuron after it."""
