"""A model in one file: safetensors with the weights by name and the whole configuration as JSON in its header.

The file is enough to rebuild the model; nothing in it is executed.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["FORMAT", "read", "whole_file", "write"]

FORMAT = "minicvae model 1"
KEY = "minicvae"  # the only one in the header's metadata: with several, their order would differ from file to file


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends well; otherwise nothing is left behind.

    The temporary file lies in the same folder, so the last step is a rename: readers see the old file or the new one.
    Errors name `path`, not the temporary file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.stem}."
    try:
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=target.suffix, dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.filename and Path(error.filename).name.startswith(prefix):
            raise OSError(error.errno, error.strerror, os.fspath(target)) from error
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write(path: str | os.PathLike[str], config: dict[str, Any], tensors: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write weights and configuration to `path`, whole or not at all; the same ones always give the same bytes.

    Raises OSError where that fails.
    """
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(value) for name, value in tensors}
    content = save(arrays, metadata={KEY: json.dumps({"format": FORMAT, "config": config})})
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(configuration, weights by name) of a file that `write` made.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not such a file, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"path: there is no model file {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is not a model file, or is damaged: {error}") from error
    if KEY not in metadata:
        raise ValueError(f"{path} is no minicvae model: expected {KEY!r} in its header, got {sorted(metadata)}")
    try:
        header = json.loads(metadata[KEY])
        found, config = header["format"], header["config"]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} holds weights without a configuration that can be read: {error}") from error
    if found != FORMAT:
        raise ValueError(f"{path}: expected a model of the format {FORMAT!r}, got {found!r}")
    if not isinstance(config, dict):
        raise ValueError(f"{path}: expected a configuration with names, got {type(config).__name__}")
    return config, tensors
