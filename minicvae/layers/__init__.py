"""Layers: each a forward that returns its own backward. Start with `dense.py`."""

from minicvae.layers.chain import Chain
from minicvae.layers.convolution import Conv2D, ConvTranspose2D
from minicvae.layers.dense import Dense
from minicvae.layers.embedding import Embedding
from minicvae.layers.layer import Backward, Layer, Trace, trace
from minicvae.layers.pathways import Pathways
from minicvae.layers.planes import FlattenPlanes, JoinPlanes
from minicvae.layers.pooling import AvgPool2D, MaxPool2D, UpSample2D
from minicvae.layers.shape import Flatten, Reshape

__all__ = [
    "AvgPool2D",
    "Backward",
    "Chain",
    "Conv2D",
    "ConvTranspose2D",
    "Dense",
    "Embedding",
    "Flatten",
    "FlattenPlanes",
    "JoinPlanes",
    "Layer",
    "MaxPool2D",
    "Pathways",
    "Reshape",
    "Trace",
    "UpSample2D",
    "trace",
]
