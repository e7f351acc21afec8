"""IDX, the format MNIST comes in: a magic number, the sizes, then the elements, all big-endian."""

import gzip
import lzma
import math
import os
import struct
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

ELEMENT_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP, XZ = b"\x1f\x8b", b"\xfd7zXZ\0"
PIECE = 1 << 20


def read_idx(file: "str | os.PathLike[str] | Traversable", *, ndim: int | None = None) -> NDArray:
    """The array in an IDX file: 0 0, element type, number of dimensions, sizes as uint32, elements.

    `file` may be plain, gzip or xz: its first bytes decide, not its name. With `ndim` (3 for images, 1 for
    labels) an array of another number of dimensions is refused. The result is writable and in the machine's
    own byte order. Memory grows with the bytes that are there, never with what a header promises.

    Raises ValueError, naming the file, for one that is not IDX, is damaged, is shorter or longer than its
    header says, or has the wrong number of dimensions; FileNotFoundError where there is none.

    Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", on its file formats.
    """
    source = Path(file) if isinstance(file, str | os.PathLike) else file
    with source.open("rb") as packed:
        head = packed.read(len(XZ))
        packed.seek(0)
        try:
            if head.startswith(GZIP):
                with gzip.open(packed) as stream:
                    return _parse(stream, ndim)
            if head.startswith(XZ):
                with lzma.open(packed) as stream:
                    return _parse(stream, ndim)
            return _parse(packed, ndim)
        except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
            raise ValueError(f"{source}: the compressed data is damaged or cut short: {error}") from error
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error


def _parse(stream: IO[bytes] | gzip.GzipFile, ndim: int | None) -> NDArray:
    magic = _take(stream, 4, "magic number")
    if magic[:2] != b"\0\0" or magic[2] not in ELEMENT_TYPES:
        known = ", ".join(f"{code:02x}" for code in ELEMENT_TYPES)
        raise ValueError(
            f"not an IDX file: expected it to open with 00 00, an element type ({known}) and the number of "
            f"dimensions, found {magic.hex(' ')}"
        )
    element_type, dimensions = np.dtype(ELEMENT_TYPES[magic[2]]), magic[3]
    if ndim is not None and dimensions != ndim:
        raise ValueError(
            f"expected {ndim} dimension(s), found {dimensions}: images have 3, labels 1; are they exchanged?"
        )
    shape = struct.unpack(f">{dimensions}I", _take(stream, 4 * dimensions, "sizes"))
    content = f"{element_type.name} elements of shape {shape}"
    elements = _take(stream, math.prod(shape) * element_type.itemsize, content)
    if stream.read(1):
        raise ValueError(f"too long: more bytes follow the {len(elements)} bytes of {content}")
    array = np.frombuffer(elements, element_type).reshape(shape)
    return array.astype(element_type.newbyteorder("="), copy=False)


def _take(stream: IO[bytes] | gzip.GzipFile, size: int, content: str) -> bytearray:
    """Exactly the next `size` bytes, fetched piece by piece so that a false promise costs no memory."""
    data = bytearray()
    while len(data) < size and (piece := stream.read(min(PIECE, size - len(data)))):
        data += piece
    if len(data) < size:
        raise ValueError(f"cut short: expected {size} bytes of {content}, found {len(data)}")
    return data
