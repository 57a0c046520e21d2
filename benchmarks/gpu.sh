#!/bin/sh
# All that needs a GPU, in one command:   sh benchmarks/gpu.sh [PYTHON]
# The kernels against the definition on the real GPU first; nothing is measured unless they agree. JSON and plots go
# to benchmarks/results/, named after the GPU.
set -eu
cd "$(dirname "$0")/.."
python=${1:-python}
gpu=$("$python" -c 'import re, sys, torch
if not torch.cuda.is_available():
    sys.exit("torch sees no CUDA device here")
print(re.sub("[^a-z0-9]+", "_", torch.cuda.get_device_name().lower()).strip("_"))')
unset TRITON_INTERPRET
"$python" -m pytest tests/kernels tests/node
results=benchmarks/results
mkdir -p $results
"$python" -m benchmarks.nodes --device cuda --out "$results/nodes_$gpu.json"
"$python" -m benchmarks.models --device cuda --batch 128 --out "$results/models_$gpu.json"
echo "results: $results/nodes_$gpu.json and $results/models_$gpu.json"
