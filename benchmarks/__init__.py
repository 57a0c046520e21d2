"""Benchmarks: what this project's speed, memory and counts are beside other libraries'.

    python -m benchmarks.nodes               # neurons, and neurons with the norm before them
    python -m benchmarks.convs               # convolutions over spikes against torch's
    python -m benchmarks.where_sparse_wins   # each convolution of a model over the density of spikes; energies
    python -m benchmarks.models              # training and inference of whole models
    python -m benchmarks.engines             # inference against ONNX Runtime, OpenVINO and plain torch
    python -m benchmarks.finite              # the cost of looking for values that are not finite
    python -m benchmarks.data --data-dir D   # event frames from the cache against integrating them each time
    python -m benchmarks.counts              # operations against other counters
    python -m benchmarks.leaderboard run --suite smoke
    python -m benchmarks.replay main         # does a refactor change a result?

What is compared runs in one process (engines in one each), in turn; medians count. Results: `benchmarks/results/`.
"""
