"""Backbones: the skeletons that the models of `zoo/` fill with parts.

Example:
    import zoo
    from st_utils.backbone.transformer import SpikingTransformer

    class Mine(SpikingTransformer, depth=2, attention="sdsa", shortcut="membrane"):
        pass

    sum(p.numel() for p in Mine(embed_dim=64, num_heads=4).parameters())  # -> 163666

Files:
    transformer.py      encoder, embedding, blocks, mean over tokens, linear head
    metaformer.py       the same with stages of different widths (Meta-SpikeFormer, E-SpikeFormer)
    convnet.py          encoder, layers, linear head; optionally for two domains, images and events
    resnet.py           the residual networks on top of convnet.py
    class_defaults.py   how a subclass changes its parent's default arguments
"""
