"""What all pictures share: the figure, the mosaic of images with its labels, the colours, and the file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from math import ceil

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from minicvae.checkpoint import whole_file

__all__ = ["ACCENT", "DPI", "PALETTE", "Panel", "Picture", "colours", "mosaic", "save", "sheet"]

# Ten colours that stay apart for colour-blind eyes, also as small dots: the "muted" scheme of Paul Tol's note "Colour
# schemes" (2021), and black.
PALETTE = (
    "#332288",
    "#ddcc77",
    "#117733",
    "#88ccee",
    "#cc6677",
    "#44aa99",
    "#882255",
    "#999933",
    "#aa4499",
    "#000000",
)
ACCENT = PALETTE[4]
DPI = 128  # a power of two, so that a size in whole pixels is exact in inches
WIDTH = 1200  # pixels that a mosaic may take across
TILE = 96  # pixels that one image may take across
PAD = 12  # pixels around all
TITLE, TEXT = 12, 9  # points


class Picture(Figure):
    """A figure that notebooks show by itself, whether or not pyplot has been loaded."""

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        self.savefig(file, format="png", dpi=self.dpi)
        return file.getvalue()


@dataclass(frozen=True)
class Panel:
    """A mosaic and what is written around it.

    images (n, h, w) in [0, 1], row by row; NaN stays blank. `below` puts the column labels at the foot. `framed` are
    (row, column) of tiles with a coloured frame; `ruled` are columns with a line on their left.
    """

    images: np.ndarray
    columns: int
    column_labels: Sequence[str] = ()
    row_labels: Sequence[str] = ()
    column_title: str = ""
    row_title: str = ""
    below: bool = False
    framed: Sequence[tuple[int, int]] = ()
    ruled: Sequence[int] = ()


def mosaic(images: np.ndarray, columns: int, gap: int = 1, fill: float = 0) -> np.ndarray:
    """Images (n, h, w), row by row, as one (r (h + gap) - gap, columns (w + gap) - gap) with r = ceil(n / columns).

    `gap` pixels lie between the tiles; they and the places that are left over hold `fill`.

    Raises ValueError for no images, another number of dimensions, columns below 1 or a gap below 0.
    """
    images = np.asarray(images)
    if images.ndim != 3 or images.size == 0:
        raise ValueError(f"images: expected shape (n, h, w) with nothing empty, got shape {images.shape}")
    if columns < 1 or gap < 0:
        raise ValueError(f"columns, gap: expected columns >= 1 and gap >= 0, got {columns} and {gap}")
    n, h, w = images.shape
    rows = ceil(n / columns)
    tiles = np.full((rows * columns, h + gap, w + gap), fill, images.dtype)
    tiles[:n, :h, :w] = images
    across = tiles.reshape(rows, columns, h + gap, w + gap).swapaxes(1, 2)
    whole = across.reshape(rows * (h + gap), columns * (w + gap))
    return whole[: len(whole) - gap, : whole.shape[1] - gap]


def colours(n: int) -> list[str]:
    """n colours for n classes: the palette, or where that is too short, an even walk through a colour map."""
    if n <= len(PALETTE):
        return list(PALETTE[:n])
    return [mpl.colors.to_hex(colour) for colour in mpl.colormaps["turbo"](np.linspace(0.02, 0.98, n))]


def sheet(title: str, panels: Sequence[Panel]) -> Picture:
    """The panels below each other, under a title; every pixel of an image is a square of whole screen pixels."""
    figure = Picture(dpi=DPI)
    heading = figure.suptitle(title, fontsize=TITLE, ha="left", va="top")
    wholes = [mosaic(panel.images, panel.columns, fill=np.nan) for panel in panels]
    widest, tile = max(whole.shape[1] for whole in wholes), panels[0].images.shape[2]
    scale = max(1, min(WIDTH // widest, TILE // tile))
    sizes = [(scale * whole.shape[1], scale * whole.shape[0]) for whole in wholes]
    for panel, whole in zip(panels, wholes, strict=True):
        _draw(figure.add_axes((0, 0, 1, 1)), panel, whole)
    _arrange(figure, heading, sizes, scale * (tile + 1))
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure as a PNG, whole or not at all; missing folders are made.

    Raises ValueError if `path` does not end in .png, OSError where it cannot be written.
    """
    if not os.fspath(path).lower().endswith(".png"):
        raise ValueError(f"path: expected a name that ends in .png, got {os.fspath(path)!r}")
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=figure.dpi)


def _draw(axes: Axes, panel: Panel, whole: np.ndarray) -> None:
    """The mosaic with its labels; one unit of the axes is one pixel of an image."""
    _, h, w = panel.images.shape
    rows = ceil(len(panel.images) / panel.columns)
    axes.imshow(whole, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.autoscale(False)
    axes.set_xlabel(panel.column_title, fontsize=TEXT)
    axes.set_ylabel(panel.row_title, fontsize=TEXT)
    axes.set_xticks(np.arange(len(panel.column_labels)) * (w + 1) + (w - 1) / 2, panel.column_labels, fontsize=TEXT)
    axes.set_yticks(np.arange(len(panel.row_labels)) * (h + 1) + (h - 1) / 2, panel.row_labels, fontsize=TEXT)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    if not panel.below:
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
    for column in panel.ruled:
        axes.plot(2 * [column * (w + 1) - 1], [-0.5, rows * (h + 1) - 1.5], color="black", linewidth=1)
    for row, column in panel.framed:
        corner = (column * (w + 1) - 1, row * (h + 1) - 1)
        axes.add_patch(Rectangle(corner, w + 1, h + 1, fill=False, edgecolor=ACCENT, clip_on=False))


def _arrange(figure: Figure, heading: Text, sizes: Sequence[tuple[int, int]], tile: int) -> None:
    """Give every axes its size in pixels, and the figure the size that all labels need; `tile` is the column width."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    width, height = np.max(sizes, axis=0)
    figure.set_size_inches(width / DPI, height / DPI)
    margins = []
    for axes, (w, h) in zip(figure.axes, sizes, strict=True):
        axes.set_position((0, 0, w / width, h / height))
        labels = axes.get_xticklabels()
        if any(label.get_window_extent(renderer).width > tile for label in labels):
            away = 40 if axes.xaxis.get_label_position() == "top" else -40
            for label in labels:
                label.set(rotation=away, ha="left", rotation_mode="anchor")
        box = axes.get_tightbbox(renderer) or axes.bbox
        margins.append([ceil(m) for m in (-box.x0, box.x1 - w, -box.y0, box.y1 - h)])

    title = heading.get_window_extent(renderer)
    left = PAD + max(m[0] for m in margins)
    width = max(left + ceil(title.width), *(left + w + m[1] for (w, _), m in zip(sizes, margins, strict=True))) + PAD
    title_height = ceil(title.height) + PAD
    height = title_height + PAD + sum(h + m[2] + m[3] + PAD for (_, h), m in zip(sizes, margins, strict=True))
    figure.set_size_inches(width / DPI, height / DPI)
    heading.set_position((left / width, 1 - PAD / height))
    top = height - PAD - title_height
    for axes, (w, h), (_, _, below, above) in zip(figure.axes, sizes, margins, strict=True):
        axes.set_position((left / width, (top - above - h) / height, w / width, h / height))
        top -= above + h + below + PAD
