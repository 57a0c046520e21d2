"""A small catalogue of parts that only record what they were built with."""

from types import SimpleNamespace
from typing import Any, Literal

from registry import Catalogue, Register


def furnish(tau: float = 2.0, alpha: float = 4.0, chunk: int = 1, embed_dim: int = 384) -> SimpleNamespace:
    """A catalogue whose parts have these defaults; `.create` and `.register` are its own."""
    catalogue = Catalogue()
    register, create = Register(catalogue), catalogue.create
    tau_, alpha_, chunk_, embed_dim_ = tau, alpha, chunk, embed_dim

    @register.surrogate("sigmoid", aliases=("sig",))
    def sigmoid(alpha: float = alpha_):
        return SimpleNamespace(alpha=alpha)

    @register.surrogate("gate")
    def gate():
        """A surrogate without arguments."""
        return SimpleNamespace()

    @register.node("lif", aliases=("LIF", "leaky"), source="somewhere, 2023")
    class Lif:
        """Leaky integrate and fire.

        The rest is not the first line.
        """

        def __init__(
            self,
            step: int = 4,
            tau: float = tau_,
            v_reset: float | None = 0.0,
            backend: Literal["auto", "torch"] = "auto",
            surrogate: str = "sigmoid",
        ):
            self.step, self.tau, self.v_reset, self.backend = step, tau, v_reset, backend
            self.surrogate = create("surrogate", surrogate)

    @register.node("if")
    def integrate(step: int = 4):
        return SimpleNamespace(step=step)

    @register.attention("ssa")
    def ssa(dim: int, num_heads: int = 8, step: int = 4, node: str = "lif", head_node: str | None = None):
        built = {
            key: create("node", spec, step=step) for key, spec in (("node", node), ("head_node", head_node)) if spec
        }
        return SimpleNamespace(dim=dim, num_heads=num_heads, step=step, **built)

    @register.attention("statten")
    def statten(dim: int, step: int = 4, node: str = "lif", chunk: int = chunk_):
        return SimpleNamespace(dim=dim, step=step, node=create("node", node, step=step), chunk=chunk)

    @register.model("spikformer", aliases=("Spikformer",))
    def spikformer(
        attention: str = "ssa",
        node: str = "lif",
        embed_dim: int = embed_dim_,
        depth: int = 4,
        img_size: tuple[int, int] = (32, 32),
        step: int = 4,
        drop_path: float = 0.0,
    ):
        mixer = create("attention", attention, dim=embed_dim, num_heads=4, step=step, node=node)
        return SimpleNamespace(
            attention=mixer, embed_dim=embed_dim, depth=depth, img_size=img_size, step=step, drop_path=drop_path
        )

    return SimpleNamespace(catalogue=catalogue, register=register, create=create, names=catalogue.names)


def contents(part: Any) -> Any:
    """What a part was built with, nested parts too, without the texts that `create` writes on it."""
    if not hasattr(part, "__dict__"):
        return part
    return {key: contents(value) for key, value in vars(part).items() if key not in ("spec", "full_spec", "part_kind")}
