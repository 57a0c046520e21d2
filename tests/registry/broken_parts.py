"""The code of plug-ins whose part, named bad, breaks its contract, and of some that keep it in an unusual way."""

from __future__ import annotations

import textwrap

HEAD = """
import numpy as np
import torch
from PIL import Image
from torch import nn
from registry import create, register
from st_utils.data import ArrayImages, DataSet, FrameData
from st_utils.node.base import IntegrateAndFire, build_node
from st_utils.node.surrogate import Surrogate
"""


def module(kind: str, forward: str, init: str = "pass", arguments: str = "", name: str = "") -> str:
    """A part of a kind: the body of its forward and of its constructor."""
    return f"""
@register.{kind}("bad{name}")
class Bad(nn.Module):
    def __init__(self{arguments}):
        super().__init__()
        {init}

    def forward(self, x):
        {forward}
"""


def attention(forward: str, init: str = "pass", arguments: str = ", dim: int") -> str:
    return module("attention", forward, init, arguments)


def surrogate(body: str) -> str:
    return '@register.surrogate("bad")\nclass Bad(Surrogate):\n' + textwrap.indent(textwrap.dedent(body), "    ")


def model(forward: str, arguments: str = ", num_classes: int = 10, in_channels: int = 1, img_size=8, step: int = 4"):
    init = "self.head = nn.Linear(in_channels * 64, num_classes)"
    return module("model", forward, init, arguments)


def images(returned: str = "", **changed: str) -> str:
    """A data set of 20 + 20 images whose fields are changed; `returned` is what comes back in its place."""
    fields = {
        "name": "'bad'", "train": "split", "test": "split", "num_classes": "2", "in_channels": "1", "img_size": "8",
        "mean": "(0.5,)", "std": "(0.5,)", "class_names": "('a', 'b')", **changed,
    }  # fmt: skip
    fields = ", ".join(f"{name}={value}" for name, value in fields.items() if value)
    return f"""
class Split(torch.utils.data.Dataset):
    def __init__(self, image=None, label=None, targets=None, count=20):
        self.targets = np.arange(count) % 2 if targets is None else targets
        self.image, self.label, self.count = image, label, count
    def __len__(self):
        return self.count
    def __getitem__(self, index):
        image = Image.new("L", (8, 8)) if self.image is None else self.image
        return image, int(self.targets[index]) if self.label is None else self.label

split = Split()

@register.dataset("bad")
def bad():
    return {returned or f"DataSet({fields})"}
"""


def frames(**changed: str) -> str:
    fields = {"train": "Split(np.zeros((2, 2, 8, 8)))", "in_channels": "2", "mean": "(0, 0)", "std": "(1, 1)"}
    return images(**{**fields, **changed, "step": "2"}).replace("DataSet(name", "FrameData(name")


PATCHES = "x[..., ::4, ::4].repeat(1, 1, 16, 1, 1)"  # [T, B, 1, 8, 8] -> [T, B, 16, 2, 2]
EMBED = ", in_channels: int, embed_dim: int"
# The plug-in's code, and what the line says of it. The part is named bad.
BAD = {
    # attention
    "attention: fewer tokens": (attention("return x[..., :1]"), "returns [2, 2, 16, 2, 1] for [2, 2, 16, 2, 2], not"),
    "attention: tokens flattened": (attention("return x.flatten(3)"), "returns [2, 2, 16, 4] for [2, 2, 16, 2, 2]"),
    "attention: time lost": (attention("return x.mean(0)"), "returns [2, 16, 2, 2] for"),
    "attention: other channels": (attention("return torch.cat([x, x], 2)"), "returns [2, 2, 32, 2, 2] for"),
    "attention: a tuple": (attention("return x, None"), "returns a tuple, not a tensor"),
    "attention: None": (attention("self.y = x"), "returns None, not a tensor"),
    "attention: float64": (attention("return x.double()"), "returns torch.float64 for torch.float32"),
    "attention: in place": (attention("return x.mul_(2)"), "changes its input in place"),
    "attention: two inputs": (
        attention("return x").replace("forward(self, x)", "forward(self, x, mask)"),
        "TypeError: Bad.forward() missing 1 required positional argument: 'mask'",
    ),
    "attention: no forward": (attention("return x").replace("forward", "run"), "NotImplementedError"),
    "attention: its own failure": (attention("raise ValueError('k is odd')"), "bad.py:{raise}: ValueError: k is odd"),
    "attention: torch's failure": (attention("return x @ torch.ones(3, 3)"), "bad.py:{x @ t}: RuntimeError: "),
    "attention: a failure backward": (
        attention("return Odd.apply(x)") + "class Odd(torch.autograd.Function):\n"
        "    @staticmethod\n    def forward(ctx, x):\n        return x * 1\n"
        "    @staticmethod\n    def backward(ctx, grad):\n        return grad / oops\n",
        "bad.py:{oops}: NameError: name 'oops' is not defined",
    ),
    "attention: a forgotten import": (
        attention("return x", "self.node = make_node('lif', 4, dim)"), "NameError: name 'make_node' is not defined",
    ),
    "attention: a forgotten argument": (
        attention("return x", "self.node = build_node('lif')"), "missing 1 required positional argument: 'step'",
    ),
    "attention: a spec of its own": (
        attention("return x", "self.node = create('node', 'liff')"), "bad.py:{liff}: SpecError: unknown node 'liff'",
    ),
    "attention: no super().__init__()": (
        attention("return x").replace("super().__init__()", "self.k = 1"), "does not call super().__init__()",
    ),
    "attention: a layer before super().__init__()": (
        attention("return x").replace("super().__init__()", "self.fc = nn.Linear(dim, dim)"),
        "AttributeError: cannot assign module before Module.__init__() call",
    ),
    "attention: no module": (
        attention("return x").replace("(nn.Module)", "").replace("super().__init__()", ""), "is built as a Bad;",
    ),
    "attention: the class": ("@register.attention('bad')\ndef bad():\n    return nn.Identity\n", "the class Identity"),
    "attention: asks for embed_dim": (
        attention("return x", arguments=", embed_dim: int"),
        "needs embed_dim: its kind is offered dim, num_heads, step, node, grid",
    ),
    # mlp
    "mlp: hidden channels": (module("mlp", "return x.repeat(1, 1, 4, 1, 1)"), "returns [2, 2, 64, 2, 2] for"),
    "mlp: batch and time swapped": (module("mlp", "return x.transpose(0, 2)"), "returns [16, 2, 2, 2, 2] for"),
    "mlp: a list": (module("mlp", "return [x]"), "returns a list, not a tensor"),
    "mlp: half": (module("mlp", "return x.half()"), "returns torch.float16 for torch.float32"),
    "mlp: asks for hidden": (module("mlp", "return x", arguments=", hidden: int"), "needs hidden: its kind is offered"),
    "mlp: a failing layer": (
        module("mlp", "return self.fc(x)", "self.fc = nn.Linear(3, 3)"), "mat1 and mat2 shapes cannot be multiplied",
    ),
    # embedding
    "embedding: asks for dim": (
        module("embedding", f"return {PATCHES}", arguments=", dim: int"),
        "needs dim: its kind is offered in_channels, embed_dim, img_size, step, node",
    ),
    "embedding: a sequence": (
        module("embedding", f"return ({PATCHES}).flatten(3)", arguments=EMBED), "returns [2, 2, 16, 4] for",
    ),
    "embedding: other channels": (
        module("embedding", f"return ({PATCHES})[:, :, :12]", arguments=EMBED),
        "returns [2, 2, 12, 2, 2] for [2, 2, 1, 8, 8], not [2, 2, 16, H', W']",
    ),
    "embedding: other channels, unasked": (
        module("embedding", f"return ({PATCHES})[:, :, :12]"),
        "returned [2, 2, 12, 2, 2] of torch.float32, and the model then fails: ",
    ),
    "embedding: one step": (module("embedding", f"return ({PATCHES})[:1]"), "returns [1, 2, 16, 2, 2] for"),
    "embedding: time in the batch": (
        module("embedding", f"return ({PATCHES}).flatten(0, 1)[None]"), "returns [1, 4, 16, 2, 2] for",
    ),
    "embedding: a convolution of images": (
        module("embedding", "return self.conv(x)", "self.conv = nn.Conv2d(in_channels, embed_dim, 3)", EMBED),
        "RuntimeError: Expected 3D (unbatched) or 4D (batched) input",
    ),
    # encoder
    "encoder: no time": (module("encoder", "return x"), "returns [2, 1, 8, 8] for [2, 1, 8, 8], not [2, 2, 1, 8, 8]"),
    "encoder: other steps": (module("encoder", "return x.expand(7, *x.shape)"), "returns [7, 2, 1, 8, 8] for"),
    "encoder: time after the batch": (
        module("encoder", "return torch.stack([x, x, x], 1)[:, :self.t]", "self.t = 3"), "returns [2, 3, 1, 8, 8] for",
    ),
    "encoder: bool": (module("encoder", "return x.expand(2, *x.shape) > 0"), "returns torch.bool for torch.float32"),
    # node
    "node: bool": (module("node", "return x > 1"), "returns torch.bool for torch.float32"),
    "node: no gradient": (module("node", "return (x > 1).float()"), "returns values without a gradient"),
    "node: the last step": (module("node", "return x[-1]"), "returns [2, 2, 8, 8] for [2, 2, 2, 8, 8], not"),
    "node: spikes and membrane": (module("node", "return x, x"), "returns a tuple, not a tensor"),
    "node: another device": (
        module("node", "return torch.empty_like(x, device='meta')"), "returns a tensor on meta for one on cpu",
    ),
    "node: a number": (module("node", "return 0.0"), "returns a float, not a tensor"),
    "node: state that stays": (
        module("node", "self.v = self.v + x.mean(); return x + self.v.detach()", "self.v = torch.zeros(())"),
        "returns something else when it is called again: keep no state between calls",
    ),
    "node: asks for dim": (module("node", "return x", arguments=", dim: int"), "needs dim: its kind is offered step, "),
    "node: a membrane of its own": (
        '@register.node("bad")\nclass Bad(IntegrateAndFire):\n    def __init__(self):\n'
        "        super().__init__(1.0, 0.0, True, 'sigmoid', 'auto')\n\n    def charge(self, v, x):\n"
        "        return v @ x\n",
        "bad.py:{v @ x}: TypeError: unsupported operand type(s) for @",
    ),
    # surrogate
    "surrogate: a function": (
        "@register.surrogate('bad')\ndef bad(u):\n    return u.sigmoid()\n", "needs u: its kind is offered nothing",
    ),
    "surrogate: a number": ("@register.surrogate('bad')\ndef bad():\n    return 1.0\n", "is built as a float;"),
    "surrogate: a module": (module("surrogate", "return x"), "is built as a Bad;"),
    "surrogate: no gradient": (surrogate("width = 1.0"), "NotImplementedError"),
    "surrogate: a sum": (
        surrogate("def gradient(self, u):\n    return u.abs().sum()"),
        "gives a gradient(u) that is [] for a u of [2, 4]; a surrogate is",
    ),
    "surrogate: a spike without gradient": (
        surrogate("def gradient(self, u):\n    return u.abs()\ndef spike(self, u):\n    return (u > 0).to(u.dtype)"),
        "gives spikes without a gradient",
    ),
    "surrogate: no super().__init__()": (
        surrogate("def __init__(self, k: float = 1.0):\n    self.k = k\ndef gradient(self, u):\n    return u.abs()"),
        "does not call super().__init__(alpha, strict)",
    ),
    "surrogate: a kernel that is none": (
        surrogate("kernel = 'gauss'\ndef gradient(self, u):\n    return u.abs()"),
        "has the kernel 'gauss', not None nor one of sigmoid, ",
    ),
    "surrogate: one number for its kernel": (
        surrogate("kernel = 'box'\ndef gradient(self, u):\n    return u\ndef kernel_numbers(self):\n    return 1,"),
        "gives kernel_numbers() that are not the two numbers",
    ),
    "surrogate: an unknown function": (
        surrogate("def gradient(self, u):\n    return torch.sech(u)"),
        "bad.py:{sech}: AttributeError: module 'torch' has no attribute 'sech'",
    ),
    # model
    "model: no step": (
        model("return self.head(x.flatten(1))", ", num_classes: int = 10, in_channels: int = 1"), "takes no step",
    ),
    "model: logits of each step": (
        model("return self.head(x.flatten(1)).expand(2, -1, -1)"), "returns [2, 2, 10] for [2, 1, 8, 8], not [2, 10]",
    ),
    "model: other classes": (
        model("return self.head(x.flatten(1))[:, :7]"), "returns [2, 7] for [2, 1, 8, 8], not [2, 10]",
    ),
    "model: a dict": (model("return {'logits': x}"), "returns a dict, not a tensor"),
    "model: one logit": (model("return self.head(x.flatten(1)).mean()"), "returns [] for [2, 1, 8, 8], not [2, 10]"),
    "model: nothing to train": (module("model", "return x", arguments=", step: int = 4"), "has no parameter to train"),
    "model: no module": (
        "@register.model('bad')\ndef bad(step: int = 4):\n    return lambda x: x\n", "is built as a function;",
    ),
    "model: asks for width": (
        model("return x", ", width: int, step: int = 4"),
        "needs width: its kind is offered num_classes, in_channels, img_size, step",
    ),
    "model: its own failure": (model("return self.haed(x)"), "AttributeError: 'Bad' object has no attribute 'haed'"),
    # data set
    "dataset: no img_size": (
        images(img_size=""), "DataSet.__init__() missing 1 required positional argument: 'img_size'",
    ),
    "dataset: no num_classes": (images(num_classes=""), "missing 1 required positional argument: 'num_classes'"),
    "dataset: a pair": (images("split, split"), "is built as a tuple;"),
    "dataset: None": (images("None"), "is built as None;"),
    "dataset: in_channels a string": (images(in_channels="'1'"), "a mean and std per channel"),
    "dataset: num_classes a float": (images(num_classes="2.0"), "has num_classes=2.0 (float), which is no int of 1"),
    "dataset: num_classes of numpy": (
        images(num_classes="split.targets.max() + 1"), "has num_classes=np.int64(2) (int64), which is no int of 1",
    ),
    "dataset: nothing to divide by": (images(std="(0,)"), "has std=(0,): images are divided by it"),
    "dataset: frames of words": (
        frames(train="Split(np.full((2, 2, 8, 8), 'a'))"), "sample 0 is an array of <U1: frames are numbers",
    ),
    "dataset: two means": (images(mean="(0.5, 0.5)"), "a mean and std per channel"),
    "dataset: three class names": (images(class_names="'abc'"), "one name per class"),
    "dataset: labels from 1": (
        images(train="Split(targets=np.arange(20) % 2 + 1)"),
        "has a train split with labels from 1 to 2: num_classes=2 allows 0 to 1",
    ),
    "dataset: float labels": (
        images(test="Split(targets=np.arange(20) % 2 * 1.0)"), "has a test split with targets of float64: labels are",
    ),
    "dataset: too few targets": (
        images(train="Split(targets=np.zeros(3, int), label=0)"), "of 20 samples with targets of shape [3]",
    ),
    "dataset: no targets": (images(train="[(Image.new('L', (8, 8)), 0)] * 20"), "has a train split without targets"),
    "dataset: an empty split": (images(test="Split(count=0)"), "has a test split without a sample"),
    "dataset: no split": (images(train="iter(())"), "has a train split without __len__ and __getitem__"),
    "dataset: another label than targets say": (images(train="Split(label=1)"), "sample 0 has the label 1 (int), and"),
    "dataset: a float label": (images(train="Split(label=0.0)"), "sample 0 has the label 0.0 (float), and targets say"),
    "dataset: arrays for images": (
        images(train="Split(np.zeros((8, 8)))"), "sample 0 is a ndarray of [8, 8]: in_channels=1 asks for a PIL image",
    ),
    "dataset: colour for grey": (
        images(test="Split(Image.new('RGB', (8, 8)))"), "sample 0 is of mode 'RGB': in_channels=1 asks for a PIL image",
    ),
    "dataset: images alone": (
        images().replace("return image, int", "return image #"), "whose sample 0 is an Image, not the pair",
    ),
    "dataset: a missing file": (
        images().replace("image = ", "image = Image.open('no.png') if index > 3 else "),
        "bad.py:{no.png}: FileNotFoundError",
    ),
    "dataset: splits of unequal shape": (
        frames(test="Split(np.zeros((2, 2, 9, 9)))"),
        "has a test split whose sample 0 is a ndarray of [2, 2, 9, 9], not an array of [2, 2, 8, 8]",
    ),
    "dataset: frames of other steps": (
        frames(train="Split(np.zeros((3, 2, 8, 8)))"), "is a ndarray of [3, 2, 8, 8], not an array of [2, 2, 8, 8]",
    ),
}  # fmt: skip

# What is unusual and keeps the contract.
GOOD = {
    "attention: its input as it is": attention("return x"),
    "attention: no argument": attention("return x * 0.5", arguments=""),
    "attention: nothing learned, no gradient": attention("return torch.zeros_like(x)"),
    "attention: that can't be copied": attention(
        "return self.fc(x.transpose(2, -1)).transpose(2, -1)",
        "self.fc = nn.utils.weight_norm(nn.Linear(dim, dim))",
    ),
    "attention: in place on a tensor of its own": attention("return (x + 1).mul_(2)"),
    "mlp: random in training": module("mlp", "return nn.functional.dropout(x, 0.5, self.training)"),
    "mlp: random in evaluation": module("mlp", "return x * torch.rand(1) * np.random.rand()"),
    "embedding: channels that are its own": module("embedding", f"return {PATCHES}"),
    "encoder: one memory for all steps": module("encoder", "return x.expand(2, *x.shape)"),
    "encoder: its input in place": module("encoder", "return x.mul_(2).expand(2, *x.shape)"),
    "node: ternary spikes": module(
        "node", "return self.s.spike(x - 1) - self.s.spike(-x - 1)", "self.s = create('surrogate', 'atan')"
    ),
    "surrogate: a bool gradient": surrogate("def gradient(self, u):\n    return u.abs() < 1"),
    "surrogate: a function that builds one": "@register.surrogate('bad')\ndef bad(k: float = 2.0):\n"
    "    return create('surrogate', 'sigmoid', alpha=k)\n",
    "model: without per_step": model("return self.head(x.flatten(1))"),
    "dataset: labels of torch": images(
        train="Split(label=torch.tensor(0), targets=torch.zeros(20, dtype=torch.int64))"
    ),
    "dataset: a list of targets": images(test="Split(targets=[0, 1] * 10)"),
    "dataset: a subset": images(test="torch.utils.data.Subset(split, list(range(12)))"),
    "dataset: images of two sizes": images(test="Split(Image.new('L', (11, 9)))"),
    "dataset: frames": frames(test="Split(np.zeros((2, 2, 8, 8)))"),
}
