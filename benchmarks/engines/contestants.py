"""The contestants: each loads a task's weights into its engine, and infers.

    engine = Ours()
    engine.load(task)                # "float32": what the table says of it
    engine.infer(task.images[:16])   # logits, numpy [16, classes]

Libraries are imported where they are used: each engine runs in a process of its own, with nothing else loaded.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from benchmarks.engines.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn


class CannotTakeError(Exception):
    """The engine can't take this model; the text is one line that says why."""


class Engine:
    """A contestant, inside its process.

    Attributes:
        package: what pip installs for it; None where the zoo needs it itself.
        imports: modules that its process imports as it starts, while the task is prepared.
        reads_onnx: it needs the exported file of the task.
        logits: float64 logits of the weights that it has, where these are not the task's.
    """

    package: ClassVar[str | None] = None
    imports: ClassVar[tuple[str, ...]] = ()
    reads_onnx: ClassVar[bool] = False
    logits: np.ndarray | None = None

    def load(self, task: Task) -> str:
        """Take the task's weights, and return what the table says of the engine. Raises CannotTakeError."""
        raise NotImplementedError

    def infer(self, images: np.ndarray) -> np.ndarray:
        """The logits `[batch, classes]` of one batch."""
        raise NotImplementedError


class Ours(Engine):
    """This zoo's modules as they are, norms folded, float32."""

    imports = ("zoo", "safetensors.torch")

    def load(self, task: Task) -> str:
        import torch

        torch.set_num_threads(task.threads)
        self.model = self.prepared(trained(task))
        return "float32"

    def prepared(self, model: nn.Module) -> nn.Module:
        """The model as it infers."""
        import zoo

        return zoo.fold_norms(model)

    def infer(self, images: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            return self.forward(torch.from_numpy(images)).float().numpy()

    def forward(self, images: Tensor) -> Tensor:
        """The logits `[batch, classes]`."""
        return self.model(images)


class OursCompiled(Ours):
    """The same, compiled for inference: spikes stay bits between the layers, and few calls do all."""

    precision: ClassVar[str] = "float32"

    def load(self, task: Task) -> str:
        super().load(task)
        return f"{self.precision}, compiled"

    def prepared(self, model: nn.Module) -> nn.Module:
        self.plans: dict[int, nn.Module] = {}
        return model

    def forward(self, images: Tensor) -> Tensor:
        import zoo

        if len(images) not in self.plans:
            self.plans[len(images)] = zoo.compile_inference(self.model, images, self.precision)
        return self.plans[len(images)](images)


class OursInt16(OursCompiled):
    """The same with weights of 16 bits, whose range is found on the first batch."""

    precision: ClassVar[str] = "int16"


class OursBfloat16(Ours):
    """The same under torch's autocast to bfloat16."""

    def load(self, task: Task) -> str:
        super().load(task)
        return "bfloat16 autocast"

    def forward(self, images: Tensor) -> Tensor:
        import torch

        with torch.autocast("cpu", torch.bfloat16):
            return self.model(images)


class PlainTorch(Ours):
    """The same folded weights without this zoo's kernels: neurons in plain torch, torch's convolutions."""

    def prepared(self, model: nn.Module) -> nn.Module:
        from torch import nn

        from st_utils.kernels.spike_conv.conv2d import Conv2d
        from st_utils.node.base import IntegrateAndFire

        folded = super().prepared(model)
        for module in folded.modules():
            if isinstance(module, IntegrateAndFire):
                module.backend = "torch"
            elif isinstance(module, Conv2d):
                module.__class__ = nn.Conv2d
        return folded


class OnnxRuntime(Engine):
    """ONNX Runtime on the CPU, all graph optimisations on, as they are by default."""

    package, reads_onnx = "onnxruntime", True

    def load(self, task: Task) -> str:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = task.threads, 1
        self.session = onnxruntime.InferenceSession(task.onnx, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        return "float32"

    def infer(self, images: np.ndarray) -> np.ndarray:
        return self.session.run(None, {self.input: images})[0]


class OpenVino(Engine):
    """OpenVINO on the CPU, told to compute in float32."""

    package, reads_onnx = "openvino", True
    settings: ClassVar[dict[str, str]] = {"INFERENCE_PRECISION_HINT": "f32"}

    def load(self, task: Task) -> str:
        import openvino

        settings = {"INFERENCE_NUM_THREADS": task.threads, **self.settings}
        self.compiled = openvino.Core().compile_model(task.onnx, "CPU", settings)
        streams = self.compiled.get_property("NUM_STREAMS")
        return f"{self.compiled.get_property('INFERENCE_PRECISION_HINT').get_type_name()}, streams: {streams}"

    def infer(self, images: np.ndarray) -> np.ndarray:
        return self.compiled([images])[0]


class OpenVinoDefault(OpenVino):
    """OpenVINO as it comes: where the processor has bfloat16, it computes in that."""

    settings: ClassVar[dict[str, str]] = {}


class SpikingJelly(Engine):
    """SpikingJelly's own Spikformer-4-384: the same architecture with weights of its own."""

    package, imports = "spikingjelly", ("benchmarks.models",)

    def load(self, task: Task) -> str:
        import torch

        import zoo

        if task.spec != zoo.create_model("spikformer").full_spec:
            raise CannotTakeError("has a model of its own for `spikformer` as it is by default, and for no other")
        from benchmarks.models import spikingjelly_network

        torch.set_num_threads(task.threads)
        torch.manual_seed(0)
        images = torch.from_numpy(task.images)
        self.model, self.reset = spikingjelly_network(images)
        self.logits = self._forward(images.double(), self.model.eval().double()).numpy()
        self.model.float()
        return "float32, its own weights, norms not folded"

    def infer(self, images: np.ndarray) -> np.ndarray:
        import torch

        return self._forward(torch.from_numpy(images), self.model).numpy()

    def _forward(self, images: Tensor, model: nn.Module) -> Tensor:
        import torch

        with torch.no_grad():
            logits = model(images).mean(0)  # [T, batch, classes] -> [batch, classes]
        self.reset(model)
        return logits


# Another engine is a class above and a line here: its name in the table.
CONTESTANTS: dict[str, type[Engine]] = {
    "ours": Ours,
    "ours compiled": OursCompiled,
    "ours int16": OursInt16,
    "ours bf16": OursBfloat16,
    "torch": PlainTorch,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "openvino default": OpenVinoDefault,
    "spikingjelly": SpikingJelly,
}


def trained(task: Task) -> nn.Module:
    """The zoo's model of a task with its weights, in evaluation mode."""
    from safetensors.torch import load_file

    import registry

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that BrainCog imports
        import zoo
    for plugin in task.plugins:
        registry.load_plugin(plugin)
    model = zoo.create_model(task.spec)
    model.load_state_dict(load_file(task.weights))
    return model.eval()
