"""All tests see the project's registered parts, and use one thread each."""

import os

import torch

if not torch.cuda.is_available():
    # Triton's kernels then run through its interpreter, which must be said before anything imports Triton.
    os.environ.setdefault("TRITON_INTERPRET", "1")

import zoo  # noqa: F401  (registers the parts)

torch.set_num_threads(1)
