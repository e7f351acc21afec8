"""Contestants in processes of their own, working in turns.

What else runs on a machine slows everything down for a while, so two figures from different minutes say little. Here
every round gives each contestant a turn of the same work, and what counts is the ratio within a round.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

__all__ = ["MODES", "Contestant", "own", "peers", "race"]

PAUSE = 0.3  # seconds before each turn: the threads of whoever came before spin for a while, looking for more work
MODES = {"torch": ("eager", "fused", "compile"), "jax": ("jit",)}
DENSE = ("latent2d", "mlp", "mlp-small", "gaussian")  # the presets that the peers know; torch also knows conv


@dataclass
class Contestant:
    """A process that works when told to. seconds: for each task, how long a round took, by round."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)  # beside that of this process
    seconds: dict[str, list[float]] = field(default_factory=dict)
    failure: str = ""

    def start(self) -> None:
        """Start the process, and wait until it is ready. Where it does not get there, `failure` says why."""
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | self.environment,
        )
        if self._process.stdout.readline().strip() != "ready":  # type: ignore[union-attr]
            lines = self._process.communicate()[1].strip().splitlines()
            self.failure = lines[-1] if lines else "it ended without a word"

    def work(self, task: str, n: int) -> float:
        """The seconds that `n` rounds of the task took."""
        stdin, stdout = self._process.stdin, self._process.stdout
        stdin.write(f"{task} {n}\n")  # type: ignore[union-attr]
        stdin.flush()  # type: ignore[union-attr]
        return float(stdout.readline())  # type: ignore[union-attr]

    def stop(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


def own(preset: str, batch_size: int, device: str) -> list[Contestant]:
    """minicvae itself; on a GPU also without its steps recorded as CUDA graphs."""
    command = [sys.executable, "-m", "minicvae.bench.own", preset, str(batch_size), device]
    if device != "cuda":
        return [Contestant("minicvae", command)]
    from minicvae.kernels.cuda import GRAPHS

    names = {"minicvae": "1", "minicvae no graph": "0"}
    return [Contestant(name, command, {GRAPHS: value}) for name, value in names.items()]


def peers(library: str, preset: str, batch_size: int, device: str) -> list[Contestant]:
    """Another library in each of its modes; none where it has no such model."""
    if preset not in DENSE and (library, preset) != ("torch", "conv"):
        return []
    modes = [*MODES[library]]
    if library == "torch":
        modes += ["channels_last"] * (preset == "conv") + ["graph"] * (device == "cuda")
    place = "cuda" if device == "cuda" else "cpu"
    run = [sys.executable, "-m", f"minicvae.bench.{library}_peer", preset, str(batch_size), place]
    return [Contestant(f"{library} {mode}", [*run, mode]) for mode in modes]


def race(contestants: Sequence[Contestant], task: str, rounds: int, turn: float) -> None:
    """Let all that are ready do the task in turns; `turn`: about how many seconds a turn lasts."""
    ready = [c for c in contestants if not c.failure]
    sizes = {}
    for c in ready:
        once = c.work(task, 1)
        sizes[c.name] = max(1, round(turn / median(c.work(task, 1) for _ in range(5)))) if once < turn / 2 else 1
    for _ in range(rounds):
        for c in ready:
            time.sleep(PAUSE)
            n = sizes[c.name]
            c.seconds.setdefault(task, []).append(c.work(task, n) / n)
