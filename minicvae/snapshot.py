"""A training in one file, to go on with where it stopped: weights, moments, losses so far, and the settings.

Steps are a pure function of (data, settings, seed) and of what stands in here, so a training that goes on from its last
snapshot ends with the same bits as one that was never stopped.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minicvae import checkpoint
from minicvae.callbacks import Callback
from minicvae.models.base import Trainable
from minicvae.optimizers import Update

if TYPE_CHECKING:
    from minicvae.training import History

__all__ = ["Snapshot"]


class Snapshot:
    """The file `path`, and all that has to be written into it and put back from it.

    settings: what the training is made of, as JSON data; a file of other settings, or with other callbacks that have a
    state, is refused.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: Mapping[str, Any],
        model: Trainable,
        update: Update,
        watchers: Sequence[Callback],
    ) -> None:
        if os.path.isdir(path):
            raise ValueError(f"checkpoint: expected a file, got the folder {os.fspath(path)}")
        self.path, self.model = path, model
        self.watchers = [watcher for watcher in watchers if type(watcher).state is not Callback.state]
        self.settings = {**settings, "callbacks": [type(watcher).__name__ for watcher in self.watchers]}
        self.live = {"weights": model.parameters.value, **{f"optimizer.{k}": v for k, v in update.state.items()}}

    def save(self, history: History, stopped: str) -> None:
        """Write the file, whole or not at all; stopped: what `History.stopped` is if the training ends here.

        Raises OSError where that fails.
        """
        states = [watcher.state() for watcher in self.watchers]
        config = {
            "kind": "training",
            "settings": self.settings,
            "history": history.history,
            "stopped": stopped,
            "watchers": [list(state) for state in states],
        }
        watched = {f"watchers.{i}.{name}": value for i, state in enumerate(states) for name, value in state.items()}
        tensors = {name: self.model.kernels.to_numpy(value) for name, value in (self.live | watched).items()}
        checkpoint.write(self.path, config, tensors.items())

    def restore(self, history: History) -> str | None:
        """Put everything back as it was when the file was written, and return `stopped`; None where there is no file.

        Raises ValueError for a file that is damaged, is no training's, or is that of another training.
        """
        if not os.path.exists(self.path):
            return None
        config, tensors = checkpoint.read(self.path)
        if config.get("kind") != "training":
            raise ValueError(f"{self.path} holds a model, not a training to go on with")
        differing = [
            f"{name} {config['settings'].get(name)}, not {value}"
            for name, value in self.settings.items()
            if config["settings"].get(name) != value
        ]
        if differing:
            raise ValueError(f"{self.path} is of a training with other settings: {'; '.join(differing)}")
        for name, value in self.live.items():
            if tensors[name].shape != value.shape:
                raise ValueError(f"{self.path}: expected {name} of shape {value.shape}, got {tensors[name].shape}")
        for name, value in self.live.items():
            on_host = isinstance(value, np.ndarray)  # as an optimiser of the user's may have it, on every device
            value[...] = tensors[name] if on_host else self.model.kernels.array(tensors[name])
        for i, (watcher, names) in enumerate(zip(self.watchers, config["watchers"], strict=True)):
            watcher.restore({name: np.array(tensors[f"watchers.{i}.{name}"]) for name in names})
        history.history.update(config["history"])
        return str(config["stopped"])
