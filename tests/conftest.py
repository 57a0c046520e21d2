"""All tests see the project's registered parts, and use one thread each."""

import torch

import zoo  # noqa: F401  (registers the parts)

torch.set_num_threads(1)
