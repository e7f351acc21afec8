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


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends well; otherwise nothing is left behind.

    The temporary file lies in the same folder, so the last step is a rename: readers see the old file or the new one.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write(path: str | os.PathLike[str], config: dict[str, Any], tensors: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write weights and configuration to `path`, whole or not at all. Raises OSError where that fails."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(value) for name, value in tensors}
    content = save(arrays, metadata={"format": FORMAT, "config": json.dumps(config)})
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
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is no minicvae model: expected format {FORMAT!r}, got {metadata.get('format')!r}")
    try:
        config = json.loads(metadata["config"])
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} holds weights without a configuration that can be read: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: expected a configuration with names, got {type(config).__name__}")
    return config, tensors
