"""The eight kinds of part: what a part of each kind is offered, and what it must be and return.

    from registry import CONTRACTS, KINDS
    KINDS["attention"]  # ('dim', 'num_heads', 'step', 'node', 'grid')
    CONTRACTS["attention"]  # 'an nn.Module whose forward takes [T, B, dim, H, W] and returns the same shape'

T are time steps, B images, C the data's channels, D = dim the model's channels, H W pixels or tokens.
CONTRIBUTING.md has an example of each kind; `st_utils.contracts` checks the parts of plug-ins.
"""

from __future__ import annotations

# Each kind with the arguments that its builder offers a part. A part takes those that its signature names; the
# arguments of a spec come before them.
KINDS: dict[str, tuple[str, ...]] = {
    "encoder": ("step",),
    "embedding": ("in_channels", "embed_dim", "img_size", "step", "node"),
    "attention": ("dim", "num_heads", "step", "node", "grid"),
    "mlp": ("dim", "mlp_ratio", "step", "node"),
    "node": ("step", "channel"),
    "surrogate": (),
    "model": ("num_classes", "in_channels", "img_size", "step"),
    "dataset": ("data_dir", "download", "cache_dir", "step", "event_size"),
}
PART_KINDS = ("embedding", "attention", "mlp", "node", "surrogate", "encoder")  # what a model is made of

# What a part of each kind is: error messages and CONTRIBUTING.md say it in these words.
CONTRACTS: dict[str, str] = {
    "encoder": "an nn.Module whose forward takes images [B, C, H, W] or frames [B, T, C, H, W] "
    "and returns [T, B, C, H, W] with T = step",
    "embedding": "an nn.Module whose forward takes [T, B, C, H, W] and returns [T, B, embed_dim, H', W']",
    "attention": "an nn.Module whose forward takes [T, B, dim, H, W] and returns the same shape",
    "mlp": "an nn.Module whose forward takes [T, B, dim, H, W] and returns the same shape",
    "node": "an nn.Module whose forward takes input currents [T, ...] and returns spikes of the same shape and dtype",
    "surrogate": "an st_utils.node.surrogate.Surrogate whose gradient(u) returns d spike / d u in u's shape",
    "model": "an nn.Module whose forward takes images [B, C, H, W] or frames [B, T, C, H, W] "
    "and returns logits [B, num_classes]",
    "dataset": "an st_utils.data.DataSet of images or FrameData of event frames",
}
