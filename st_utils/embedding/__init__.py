"""Embeddings: images to tokens, `[T, B, C_in, H, W]` -> `[T, B, D, H', W']`. One file per embedding.

Example:
    import torch
    import zoo
    from registry import create

    sps = create("embedding", "sps", in_channels=3, embed_dim=64, step=4)
    sps(torch.rand(4, 2, 3, 32, 32)).shape  # -> torch.Size([4, 2, 64, 8, 8])

The input is what the encoder gives: an image repeated over T, or event frames. The output is the token grid, H' rows
and W' columns, of spikes, sums of spikes or membrane potentials: the docstring of each embedding says which. A model
whose blocks add spikes wants the first two, one with membrane shortcuts the last, though every pair runs and trains. A
sample's output must not depend on the other samples of the batch in evaluation.

The model offers these arguments; a constructor names those that it needs (`registry.KINDS`):

    in_channels   channels C_in of the image
    embed_dim     channels D of the tokens
    img_size      H = W in pixels, or (H, W)
    step          number of time steps T
    node          spec of the neurons inside, such as "plif(tau=2.0)"

The transformers of `st_utils/backbone/` also offer `mlp_ratio` to an embedding that has it, and SpikingMetaformer
`widths`. One more argument means the same in every embedding that has it:

    pooling       "0011", say: for each of four stages, 1 halves rows and columns (rounded up) and 0 keeps them

A new file in this folder registers its parts when the folder is imported; there is no list to add it to.
"""

from registry import import_all

import_all(__name__, __path__)
