"""Whether the parts of plug-ins are what their kinds must be: one line for one that is not.

    PluginError: attention 'mine' returns [4, 2, 16, 65] for [4, 2, 16, 8, 8], not [4, 2, 16, 8, 8]; an attention is ...

A part is looked at twice, and this project's own parts never:

1. When it is built, `registry.create` asks `CHECKS`: is it an `nn.Module`, a `Surrogate`, a `DataSet`? The latter two
   are tried out at once.
2. Before the first training step, `rehearse` runs a deep copy of a model with such parts on two images, forward twice
   in evaluation, once forward and backward in training, and looks at what each part is given and returns.

The model itself gets no hook and no wrapper, and random numbers and running statistics are as before. So training is
bit for bit what it would be without checks, and torch.compile, DDP, export and pickle see the model alone. Hooks on the
model that remove themselves would not do: they change which kernels the first step runs in, and a resumed run has
another first step.
"""

import registry
from st_utils.contracts.built import check_module, check_surrogate
from st_utils.contracts.data import check_data
from st_utils.contracts.rehearsal import rehearse

CHECKS = dict.fromkeys(("encoder", "embedding", "attention", "mlp", "node", "model"), check_module)
CHECKS |= {"surrogate": check_surrogate, "dataset": check_data}
registry.parts.checks.update(CHECKS)

__all__ = ["CHECKS", "check_data", "check_module", "check_surrogate", "rehearse"]
