"""Encoders: images `[B, C, H, W]` or event frames `[B, T, C, H, W]` -> `[T, B, C, H, W]`.

Example:
    import torch
    import zoo
    from registry import create

    create("encoder", "rate", step=4)(torch.rand(2, 3, 32, 32)).shape  # -> torch.Size([4, 2, 3, 32, 32])

An encoder turns an image into T time steps: the image itself (`direct`) or a spike code of its pixels. Event frames
have a time axis and pass through unchanged. Encoders are the first layer of a model; they have no parameters here.

The model offers one argument (`registry.KINDS`):

    step   number of time steps T

A new file in this folder registers its parts when the folder is imported; there is no list to add it to.
"""

from registry import import_all

import_all(__name__, __path__)
