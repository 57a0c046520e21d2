"""Draw what a model's attentions attend to: an overview, and one page per attention.

zoo.show("attention", "runs/NAME", images=["cat.png"], query=(40, 60))  # the token at pixel (40, 60), not the centre

The files are `attention.png` and `attention-BLOCK.png`; with several `images`, `attention-BLOCK-2.png` is the second's.
"""

from __future__ import annotations

from pathlib import Path

from st_utils.analysis.attention import HeatMaps, attention_maps
from st_utils.errors import UserError
from st_utils.pictures.attention import Overview, draw_attention, draw_overview
from st_utils.pictures.samples import as_grey_or_rgb
from zoo.show.subject import Subject

INPUTS = 4  # test images in the overview; the pages are of the first


def draw(subject: Subject) -> list[Path]:
    """The paths of the overview and of the pages. Raises UserError for a model without attention."""
    inputs, _, names = subject.inputs(INPUTS)
    height, width = inputs.shape[-2:]
    if height == 1:
        raise UserError(f"{subject.data.name} is a sequence: --show attention draws images and event frames")
    row, column = subject.settings.query or (height // 2, width // 2)
    if row >= height or column >= width:
        raise UserError(f"query is [{row}, {column}], outside the input's {height} x {width} pixels")
    place = (row / height, column / width)
    specs: dict[str, str] = {}
    found: dict[str, list[HeatMaps]] = {}
    for sample in inputs.split(1):  # one at a time: a matrix per head and step of many inputs takes much memory
        for name, attended in attention_maps(subject.model, sample).items():
            specs[name] = attended.spec.partition("(")[0]
            found.setdefault(name, []).append(attended.heat(0, place))
    images = list(as_grey_or_rgb(inputs))
    overview = [_overview(_short(name), specs[name], maps) for name, maps in found.items()]
    paths = [draw_overview(subject.path("attention.png"), subject.title, images, names, overview, place, subject.theme)]
    pages = len(images) if subject.files else 1
    for name, maps in found.items():
        for number in range(pages):
            at = f"attention-{_short(name)}{f'-{number + 1}' if pages > 1 else ''}.png"
            title = f"{subject.title}; input: {names[number]}\n{_short(name)}: {specs[name]}"
            picture = draw_attention(
                subject.path(at), title, images[number], **maps[number]._asdict(), theme=subject.theme
            )
            paths.append(picture)
    return paths


def _short(name: str) -> str:
    """`blocks.0` for `blocks.0.attention.branch`."""
    return name.removesuffix(".branch").removesuffix(".attention") or "attention"


def _overview(name: str, spec: str, maps: list[HeatMaps]) -> Overview:
    means, sizes = [], []
    for m in maps:
        mean = (m.mean if m.of_query is None else m.of_query).mean((0, 1, 2))
        rows, columns = (-(-side // m.cell) for side in m.tokens)  # without padding
        means.append(mean[:rows, :columns])
        sizes.append(tuple(side * m.cell / tokens for side, tokens in zip(means[-1].shape, m.tokens, strict=True)))
    return Overview(name, spec, means, sizes, maps[0].kind, maps[0].of_query is not None)
