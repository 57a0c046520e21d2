"""MLPs: the channel mixers of a transformer block, `[T, B, D, H, W]` -> the same shape. One file per MLP.

Example:
    import zoo
    from registry import create

    create("mlp", "mlp(kernel=3)", dim=64, mlp_ratio=2.0, step=4).spec  # -> 'mlp(dim=64, kernel=3, mlp_ratio=2.0)'

As around an attention, the block has the residual connection and one neuron, before the MLP or after it
(`st_utils/layer/block.py`). So an MLP ends with convolution and norm, not with a neuron. A sample's output must
not depend on the other samples of the batch in evaluation.

The block offers these arguments; a constructor names those that it needs (`registry.KINDS`):

    dim         channels D of the input and of the output
    mlp_ratio   hidden channels per channel: int(D * mlp_ratio) hidden channels
    step        number of time steps T
    node        spec of the neurons inside, such as "plif(tau=2.0)"

A new file in this folder registers its parts when the folder is imported; there is no list to add it to.
"""

from registry import import_all

import_all(__name__, __path__)
