"""Pictures of a run and of what is in a model: one style, light or dark, as PNG or GIF.

A module here draws numbers that others have computed, and knows no model: style.py has figures and colours, samples.py
turns a model's inputs into images. The commands that compute and draw are in `zoo/show/`.
"""
