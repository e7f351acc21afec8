"""Pictures of a trained model: every function returns a Matplotlib figure, `save` writes one, `draw_all` all of them.

No function touches pyplot or Matplotlib's settings, so they work without a screen, in notebooks and in threads.
Images are drawn as ink on paper: white is 0, black is 1.
"""

from minicvae.plots.completions import completions
from minicvae.plots.control import asked_and_measured, crossed
from minicvae.plots.curves import curves
from minicvae.plots.dimensions import compared_dimensions, dimensions
from minicvae.plots.figures import PALETTE, Panel, mosaic, save, sheet
from minicvae.plots.gallery import draw_all
from minicvae.plots.images import (
    generated,
    many_latents,
    neighbours,
    one_latent,
    reconstructions,
    relabelled,
    walks,
)
from minicvae.plots.latent import manifold, posterior_means

__all__ = [
    "PALETTE",
    "Panel",
    "asked_and_measured",
    "compared_dimensions",
    "completions",
    "crossed",
    "curves",
    "dimensions",
    "draw_all",
    "generated",
    "manifold",
    "many_latents",
    "mosaic",
    "neighbours",
    "one_latent",
    "posterior_means",
    "reconstructions",
    "relabelled",
    "save",
    "sheet",
    "walks",
]
