"""Layers: each a forward that returns its own backward. Start with `dense.py`."""

from minicvae.layers.chain import Chain
from minicvae.layers.dense import Dense
from minicvae.layers.embedding import Embedding
from minicvae.layers.layer import Backward, Layer, Trace, trace
from minicvae.layers.pathways import Pathways
from minicvae.layers.shape import Flatten, Reshape

__all__ = [
    "Backward",
    "Chain",
    "Dense",
    "Embedding",
    "Flatten",
    "Layer",
    "Pathways",
    "Reshape",
    "Trace",
    "trace",
]
