#!/bin/sh
# All that needs a GPU, in one command:   sh benchmarks/gpu.sh [PYTHON]
# The kernels against the definition on the real GPU first; nothing is measured unless they agree. Results go to
# benchmarks/results/, with the machine named in each JSON.
set -eu
cd "$(dirname "$0")/.."
python=${1:-python}
"$python" -c 'import torch, sys; sys.exit(None if torch.cuda.is_available() else "torch sees no CUDA device here")'
"$python" -m pytest tests/kernels tests/node
mkdir -p benchmarks/results
"$python" -m benchmarks.nodes --device cuda --out benchmarks/results/nodes-cuda.json
"$python" -m benchmarks.models --device cuda --batch 128 --out benchmarks/results/models-cuda.json
