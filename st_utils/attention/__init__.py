"""Attentions: the token mixers of a transformer block, `[T, B, D, H, W]` -> the same shape. One file per attention.

Example:
    import zoo
    from registry import create

    create("attention", "ssa(scale=0.25)", dim=64, num_heads=8, step=4).spec  # -> 'ssa(dim=64, scale=0.25)'

The axes are time steps, samples, channels, and the rows and columns of the token grid: N = H W tokens. Inside, split
into h heads of d = D / h channels, tensors are `[T, B, h, N, d]`, tokens row by row. Q, K and V are spikes, and K^T is
the transpose of K over its last two axes.

The block around an attention has the residual connection and one neuron per branch, before the attention or after it
(`st_utils/layer/block.py`). So most attentions end with convolution and norm, not with a neuron, and their input may be
spikes, sums of spikes, or membrane potentials. A sample's output must not depend on the other samples of the batch in
evaluation.

The block offers these arguments; a constructor names those that it needs (`registry.KINDS`):

    dim         channels D of the input and of the output
    num_heads   number of heads h; D must be a multiple of it
    step        number of time steps T
    node        spec of the neurons inside, such as "plif(tau=2.0)"
    grid        (rows, columns) of the token grid, for parameters whose shape depends on the number of tokens

These arguments mean the same in every attention that has them:

    scale            factor on Q K^T V
    qkv_bias         the convolutions of q, k and v have a bias
    proj_bias        the output projection has a bias
    attn_threshold   firing threshold of the neuron after the mix; a neuron without a threshold (`ilif`) ignores it
    legacy_...       computes what the authors' code does where it differs from their paper; their weights need it

A new file in this folder registers its parts when the folder is imported; there is no list to add it to.
"""

from registry import import_all

import_all(__name__, __path__)
