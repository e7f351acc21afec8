"""`minicvae bench`: how fast a training step is, and against whom."""

from __future__ import annotations

import dataclasses
import json
from argparse import Namespace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from minicvae import __version__, conditions
from minicvae.bench.machine import Machine, measure
from minicvae.bench.profile import Kernel, profile, step_operations
from minicvae.bench.protocol import training_images
from minicvae.bench.race import MODES, Contestant, own, peers, race
from minicvae.checkpoint import whole_file
from minicvae.cli.parser import Parser, at_least, choice, device_option
from minicvae.model import build
from minicvae.models.presets import PRESETS, find
from minicvae.randomness import Purpose, generator
from minicvae.tables import table

__all__ = ["DESCRIPTION", "EXAMPLE", "arguments", "run"]

DESCRIPTION = """\
Time training steps on MNIST: a batch gathered, forward, backward, Adam. The
floor is a step's products, all of them, at the rate of a large matrix product
on this machine, then one pass over memory for Adam, both measured on the spot.
GFLOP/s counts these products alone; the cpu leaves terms out that are zero.

--against lets PyTorch or JAX (`pip install 'minicvae[bench]'`) train the same
model in a process of its own, in every mode that it has; all work in turns, and
the ratio is that of the times within a round: median, and in brackets the
smallest and the largest. Above 1 minicvae is faster.

On cuda products are in float32 proper, here and in PyTorch; with CUPY_TF32=1 in
the environment both may use TF32."""

EXAMPLE = """\
minicvae bench mlp --batch-size 128
minicvae bench gaussian --against torch jax --json speed.json
minicvae bench mlp conv --device cuda --against torch
minicvae bench mlp --profile"""

TASKS = {"step": "step", "evaluate": "evaluating 10,000 images", "generate": "generating 10,000 images"}


def arguments(parser: Parser) -> None:
    """What `bench` takes."""
    parser.add_argument(
        "presets", metavar="PRESET", nargs="*", type=choice(*PRESETS), default=[], help="models (default: mlp)"
    )
    parser.add_argument(
        "--batch-size", metavar="N", type=at_least(1), nargs="+", help="images in a step (default: the preset's)"
    )
    parser.add_argument(
        "--against", metavar="LIBRARY", nargs="+", type=choice(*MODES), default=[], help="torch, jax or both"
    )
    parser.add_argument("--rounds", metavar="N", type=at_least(1), default=15, help="turns of each (default: 15)")
    parser.add_argument(
        "--profile", action="store_true", help="show where a step's time goes, kernel by kernel, and time nothing else"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write everything measured to FILE")
    device_option(parser)


def run(args: Namespace) -> int:
    """Measure, print, and write the JSON file."""
    machine = measure(args.device)
    print(
        f"minicvae {__version__} on {machine}: products at "
        f"{machine.product_rate / 1e9:.0f} GFLOP/s, memory at {machine.memory_rate / 1e9:.1f} GB/s\n",
        flush=True,
    )
    results = []
    for preset in args.presets or ["mlp"]:
        for batch_size in args.batch_size or [find(preset).batch_size]:
            show = _profile if args.profile else _race
            results.append(show(machine, preset, batch_size, args))
    if args.json:
        with whole_file(args.json) as temporary:
            content = {"minicvae": __version__, "machine": dataclasses.asdict(machine), "results": results}
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    absent = {library: why for result in results for library, why in _absent(result).items()}
    if absent:
        whole = "; ".join(f"{library} could not be measured: {why}" for library, why in absent.items())
        hint = "; `pip install 'minicvae[bench]'` installs torch and jax" if "ModuleNotFoundError" in whole else ""
        raise RuntimeError(whole + hint)
    return 0


def _absent(result: dict[str, Any]) -> dict[str, str]:
    """The libraries of which no contestant has started, and why."""
    there = {name.split()[0] for name in result.get("seconds", ())}
    left_out = ((name.split()[0], why) for name, why in result.get("left_out", {}).items())
    return {library: why for library, why in left_out if library not in there}


def _batch(preset: str, batch_size: int, device: str) -> tuple[Any, np.ndarray, Any]:
    """The model, and images and random conditions for one step."""
    model, rng = build(preset, device=device), generator(0, Purpose.SHUFFLE)
    images = training_images()
    x = images[rng.integers(len(images), size=batch_size)].reshape(batch_size, *model.image_shape)
    return model, x, conditions.draw(model.condition, batch_size, rng)


def _race(machine: Machine, preset: str, batch_size: int, args: Namespace) -> dict[str, Any]:
    """Time one preset with one batch size, against whom the arguments say."""
    model, x, c = _batch(preset, batch_size, args.device)
    operations = step_operations(model, x, c)
    floor = machine.floor(operations, model.parameters.size)
    contestants = own(preset, batch_size, args.device)
    for library in args.against:
        found = peers(library, preset, batch_size, args.device)
        contestants += found
        if not found:
            print(f"{preset}: {library} has no such model here")
    try:
        for contestant in contestants:
            contestant.start()
            if contestant.failure:
                print(f"{contestant.name} is left out: {contestant.failure}", flush=True)
        if contestants[0].failure:
            raise RuntimeError(f"minicvae's own process did not start: {contestants[0].failure}")
        race(contestants, "step", args.rounds, turn=0.5)
        for task in ("evaluate", "generate"):
            race([c for c in contestants if "jax" not in c.name], task, max(args.rounds // 3, 1), turn=0.5)
    finally:
        for contestant in contestants:
            contestant.stop()

    ready = [c for c in contestants if not c.failure]
    print(f"{preset}, batches of {batch_size}: {operations / 1e6:,.0f} MFLOP a step, floor {floor * 1e3:.2f} ms")
    rows = [_row(c, ready[0], batch_size, operations, floor) for c in ready]
    print(table(("", "ms a step", "images/s", "GFLOP/s", "floor / step", "ratio to minicvae"), rows, "<>>>>>"))
    for task in ("evaluate", "generate"):
        took = (f"{c.name} {median(c.seconds[task]):.2f} s" for c in ready if task in c.seconds)
        print(f"{TASKS[task]}: {', '.join(took)}")
    print(flush=True)
    return {
        "preset": preset,
        "batch_size": batch_size,
        "device": args.device,
        "operations": operations,
        "parameters": model.parameters.size,
        "floor_seconds": floor,
        "seconds": {c.name: c.seconds for c in ready},
        "left_out": {c.name: c.failure for c in contestants if c.failure},
    }


def _row(c: Contestant, ours: Contestant, batch_size: int, operations: int, floor: float) -> list[str]:
    """A line of the table."""
    times, took = c.seconds["step"], median(c.seconds["step"])
    ratios = sorted(theirs / mine for theirs, mine in zip(times, ours.seconds["step"], strict=True))
    return [
        c.name,
        f"{took * 1e3:.2f}",
        f"{batch_size / took:,.0f}",
        f"{operations / took / 1e9:.0f}",
        f"{floor / took:.0%}",
        "" if c is ours else f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
    ]


def _profile(machine: Machine, preset: str, batch_size: int, args: Namespace) -> dict[str, Any]:
    """Show the kernels of one preset's step."""
    model, x, c = _batch(preset, batch_size, args.device)
    profile(model, x, c, steps=20)  # compiles, and warms up
    kernels = profile(model, x, c)
    inside = sum(k.time for k in kernels)
    print(f"{preset}, batches of {batch_size}: {inside * 1e3:.2f} ms of a step in kernels")
    rows = [_kernel_row(k, machine, inside) for k in kernels]
    header = ("kernel", "first two arrays", "calls", "us", "share", "GFLOP/s", "GB/s", "of the best")
    print(table(header, rows, "<<>>>>>>"), end="\n\n", flush=True)
    entries = [{**dataclasses.asdict(k), "seconds": median(k.seconds)} for k in kernels]
    return {"preset": preset, "batch_size": batch_size, "device": args.device, "kernels": entries}


def _kernel_row(k: Kernel, machine: Machine, inside: float) -> list[str]:
    """A line of the profile; its best time is that of its operations or of its bytes, whichever is longer."""
    once = median(k.seconds)
    best = max(k.operations / machine.product_rate, k.bytes / machine.memory_rate)
    return [
        k.name,
        k.shape,
        str(k.calls),
        f"{k.time * 1e6:.0f}",
        f"{k.time / inside:.0%}",
        f"{k.operations / once / 1e9:.0f}" if k.operations else "",
        f"{k.bytes / once / 1e9:.1f}",
        f"{best / once:.0%}",
    ]
