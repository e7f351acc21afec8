"""Files in, arrays out: the data sets, the IDX reader, and what can be measured on a picture of a digit."""

from minicvae.datasets.binarisation import binarise
from minicvae.datasets.dataset import Dataset
from minicvae.datasets.idx import read_idx
from minicvae.datasets.measures import ATTRIBUTES, attributes
from minicvae.datasets.sources import NAMES, load
from minicvae.datasets.standardisation import Standardisation

__all__ = ["ATTRIBUTES", "NAMES", "Dataset", "Standardisation", "attributes", "binarise", "load", "read_idx"]
