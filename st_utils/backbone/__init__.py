"""Skeletons that the models in zoo/ fill with parts."""
