"""Readable names of a model's layers: the block that a layer is in, and what it does there.

    from st_utils.analysis.layer_names import block_of, label

    label("blocks.0.attention.branch.q.conv"), block_of("blocks.0.attention.branch.q.conv")
    # ('block 1 · attention · q', 'blocks.0')
    label(block_of("layers.stage1.0.first.conv"))  # 'stage 1 · block 1'

Numbers count from 1, as in text; module paths, which count from 0, stay in profile.json.
"""

from __future__ import annotations

from torch import nn

from st_utils.pictures.profile import ROLES

__all__ = ["ROLES", "block_of", "label", "role_of"]
HIDDEN = ("branch", "layers")  # module names that say nothing of the network
KEPT_LAST = ("attention", "mlp")  # a neuron right in these stands before them: it keeps its name "node"


def label(path: str) -> str:
    """The readable name of a module path: `blocks.1.mlp.branch.fc1.node` -> `block 2 · mlp · fc1`."""
    words = path.split(".")
    if len(words) > 2 and words[-1] in ("conv", "node") and words[-2] not in KEPT_LAST:
        words.pop()
    found: list[str] = []
    numbered = ""  # the word that a number belongs to
    for place, word in enumerate(words):
        if word.isdigit():
            found = _numbered(found, numbered, int(word) + 1)
            numbered = "." if numbered else "layer"
            continue
        numbered = word
        if word in HIDDEN and not (word == "layers" and place + 1 < len(words) and words[place + 1].isdigit()):
            continue
        found.append(f"{word[:-1]} {word[-1]}" if word[:-1] == "stage" and word[-1].isdigit() else word)
    return " · ".join(word.replace("_", " ") for word in found) or "model"


def _numbered(words: list[str], word: str, number: int) -> list[str]:
    """The words with a number: `blocks` 1 -> `block 1`, then 2 -> `block 1.2`; a block of `stage 1` is a word more."""
    if word == ".":
        return [*words[:-1], f"{words[-1]}.{number}"]
    if word.startswith("stage") and word[-1].isdigit():
        return [*words, f"block {number}"]
    return [*words[:-1], f"{(words[-1] if words else 'layer').removesuffix('s')} {number}"]


def block_of(path: str) -> str:
    """The path of the block that a module is in: the embedding, a numbered block, or the first named part."""
    words = path.split(".")
    if words[0] == "embedding":
        return words[0]
    numbers = [place for place, word in enumerate(words) if word.isdigit()]
    if not numbers:
        return ".".join(words[:2] if words[0] in HIDDEN else words[:1])
    last = numbers[0]
    while last + 1 in numbers:
        last += 1
    return ".".join(words[: last + 1])


def role_of(path: str, modules: dict[str, nn.Module]) -> str:
    """What a module does in its block, one of ROLES: q, k or v; the rest of an attention; MLP; other."""
    words = path.split(".")
    parents = [".".join(words[:end]) for end in range(1, len(words) + 1)]
    kinds = {getattr(modules.get(parent), "part_kind", None) for parent in parents}
    if "attention" in kinds:
        return next((word for word in words if word in ("q", "k", "v")), "attention")
    named = [word for word in words if word in ("attention", "mlp")]
    return "mlp" if "mlp" in kinds else named[-1] if named else "other"
