"""Authors' checkpoints and constructor arguments: how they become models and specs of this zoo. No model is here.

    from zoo import authors_spec

    authors_spec("fangwei123456/spikingjelly", "spikingjelly/activation_based/model/sew_resnet.py", {"cnf": "IAND"}, 4)
    # Spec('sew_resnet18', ...)

`published.py` has `load_published` and `authors_spec`. `constructor.py` reads the authors' arguments, `variants.py`
compares a model with what their code fixes, `step_benchmark.py` has what the models of one benchmark share. Each other
file is for the model of its name: `sdt.py` here maps what `zoo/sdt.py` builds.
"""
