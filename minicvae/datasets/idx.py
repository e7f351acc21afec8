"""IDX, the format MNIST comes in: a magic number, the sizes, then the elements, all big-endian."""

import gzip
import lzma
import math
import os
import struct
import zlib
from importlib.abc import Traversable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

ELEMENT_TYPES = {code: np.dtype(name) for code, name in
                 ((0x08, ">u1"), (0x09, ">i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8"))}
OPENERS = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\0": lzma.open}
MOST_DIMENSIONS = 32
PIECE = 1 << 20


def read_idx(file: str | os.PathLike[str] | Traversable, *, ndim: int | None = None) -> NDArray:
    """The array in an IDX file: 0 0 | element type | number of dimensions | sizes as uint32 | elements.

    `file` may be plain, gzip or xz; its first bytes decide, not its name. With `ndim` (3 for images, 1 for labels)
    an array with another number of dimensions is refused. The result is in the machine's byte order and owns
    memory of the size of the array; never is more set aside than the file really holds.

    Raises ValueError, naming the file, for what is no IDX file, and for one that is damaged, shorter or longer than
    its header says or has the wrong number of dimensions; FileNotFoundError where there is no file.

    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section on file formats.
    """
    source = Path(file) if isinstance(file, str | os.PathLike) else file
    try:
        with source.open("rb") as packed:
            opener = next((o for magic, o in OPENERS.items() if _starts_with(packed, magic)), None)
            if opener is None:
                return _read(packed, ndim)
            with opener(packed, "rb") as stream:
                return _read(stream, ndim)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ValueError(f"{source}: the compressed file is damaged or cut short ({error})") from error
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
