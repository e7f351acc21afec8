"""`minicvae train`: from a preset and a data set to a run folder."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from minicvae import __version__, checkpoint
from minicvae.callbacks import as_sum
from minicvae.cli.data import HELD_OUT, PIXELS, Data, prepare
from minicvae.cli.models import announce_compilation, draw
from minicvae.cli.parser import INTERRUPTED, Parser, UsageError, at_least, choice, device_option, number
from minicvae.conditions import Classes, Nothing, Vector
from minicvae.description import describe, restore
from minicvae.model import CVAE, build
from minicvae.models.presets import PRESETS, Preset, find
from minicvae.objectives import ELBO, IWAE
from minicvae.optimizers import OPTIMIZERS
from minicvae.runs import STATUSES, Recorder, Run, check_free, last, next_free
from minicvae.schedules import SCHEDULES, Cyclical, Linear, Schedule
from minicvae.training import History, NonFiniteError

__all__ = ["DESCRIPTION", "EXAMPLE", "arguments", "run"]

DESCRIPTION = f"""\
Train a preset, and leave a run folder: config.json (all settings, and how it
ended), metrics.csv (the losses, one row an epoch), model.safetensors and
figures/. Ctrl-C ends early and keeps the model as it is then. However a
training has ended, the same command with --resume goes on from its last whole
epoch, to the same bits as if nothing had happened. A loss that stops being a
number ends the training with an error; the folder then keeps the model of that
epoch too.

Without further options all training images are used, for as long as the
preset's protocol says, and the losses on the test images are shown after every
epoch; nothing is chosen by them. With --patience the last 1/{HELD_OUT} of the training
images (10,000 of MNIST's 60,000) are held out, and their losses say when to
stop and which epoch's model to keep; --validation held-out holds them out
without stopping early.

{fill(f"PRESET is one of {', '.join(PRESETS)}.", 80)}
`minicvae presets` describes them. `vector` is conditioned on five measured
attributes of each image instead of its class."""

EXAMPLE = """\
minicvae train --epochs 10
minicvae train latent2d --data fashion-mnist --beta 2 --kl-annealing linear
minicvae train mlp-small --only-classes 0 2 4 6 8 --patience 3 --out runs/even"""


def arguments(parser: Parser) -> None:
    """What `train` takes."""
    parser.add_argument(
        "preset", metavar="PRESET", nargs="?", type=choice(*PRESETS), default="mlp", help="the model (default: mlp)"
    )

    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        metavar="DATA",
        default="mnist",
        help="mnist (the default), fashion-mnist or kmnist; or a folder of four IDX files, or an .npz file with "
        "x_train, y_train, x_test and y_test",
    )
    data.add_argument(
        "--only-classes",
        metavar="CLASS",
        nargs="+",
        default=[],
        help="use the images of these classes only; pictures put the others in brackets",
    )
    data.add_argument("--limit", metavar="N", type=at_least(1), help="train on the first N images only")
    data.add_argument(
        "--pixels",
        metavar="HOW",
        type=choice(*PIXELS),
        help="grey; static: black or white, drawn once with the grey level as the probability of white; "
        "dynamic: training images are drawn anew at each epoch, all others once (default: the preset's, mostly grey)",
    )
    data.add_argument(
        "--validation",
        metavar="WHICH",
        type=choice("test", "held-out"),
        help="the images whose losses follow each epoch: test or held-out (default: test; with --patience, held-out)",
    )

    model = parser.add_argument_group("model")
    model.add_argument("--latent-dim", metavar="N", type=at_least(1), help="dimensions of z (default: the preset's)")
    model.add_argument(
        "--objective",
        metavar="NAME",
        type=choice("elbo", "iwae"),
        help="elbo, or iwae: the importance-weighted bound, which is tighter (default: the preset's, mostly elbo)",
    )
    model.add_argument(
        "--samples",
        metavar="N",
        type=at_least(1),
        help="how many z are drawn for each image (default: the preset's, 1; for iwae 50)",
    )
    model.add_argument(
        "--beta", metavar="B", type=number(zero=True), help="weight of the KL (default: the preset's, 1)"
    )
    model.add_argument(
        "--free-bits",
        metavar="NATS",
        type=number(zero=True),
        help="what each latent dimension may tell free of charge (default: the preset's, 0)",
    )
    model.add_argument(
        "--dtype", metavar="TYPE", type=choice("float32", "float64"), default="float32", help="float32 or float64"
    )

    training = parser.add_argument_group("training")
    training.add_argument(
        "--epochs", metavar="N", type=at_least(1), help="passes over the training images (default: the preset's)"
    )
    training.add_argument(
        "--batch-size", metavar="N", type=at_least(1), help="images in a step (default: the preset's)"
    )
    training.add_argument(
        "--learning-rate", metavar="R", type=number(zero=False), help="default: the preset's, mostly 0.001"
    )
    training.add_argument(
        "--optimizer",
        metavar="NAME",
        type=choice(*OPTIMIZERS),
        help=f"{', '.join(OPTIMIZERS)} (default: the preset's, adam)",
    )
    training.add_argument(
        "--clip-norm", metavar="G", type=number(zero=False), help="rescale gradients whose global norm is above G"
    )
    training.add_argument(
        "--kl-annealing",
        metavar="HOW",
        type=choice("none", "linear", "cyclical"),
        default="none",
        help="none (the default); linear: the KL's weight rises from 0 over the first 30%% of the training; cyclical: "
        "it does so four times, each time over half a cycle",
    )
    training.add_argument(
        "--patience",
        metavar="N",
        type=at_least(1),
        help="stop when the held-out loss has not fallen for N epochs, and keep the best model",
    )
    training.add_argument(
        "--until", metavar="N", type=at_least(1), help="stop after N of the epochs, to go on another time with --resume"
    )
    training.add_argument(
        "--seed", metavar="N", type=at_least(0), default=0, help="the same seed is the same run (default: 0)"
    )
    device_option(training)

    output = parser.add_argument_group("output")
    output.add_argument("--out", metavar="FOLDER", help="the run folder (default: runs/PRESET-1, or the next number)")
    output.add_argument(
        "--resume",
        action="store_true",
        help="go on where the run in the folder was stopped, or begin if there is none (default folder: the last one)",
    )
    output.add_argument("--overwrite", action="store_true", help="delete the run that is in the folder already")
    output.add_argument("--quiet", action="store_true", help="print the run folder only")


def run(args: Namespace) -> int:
    """Train; the exit status is 0, or 130 after Ctrl-C.

    Raises what a wrong argument raises, and RuntimeError where the loss stops being a number.
    """
    preset = find(args.preset)
    held_out = args.validation == "held-out" or args.patience is not None
    if held_out and args.validation == "test":
        raise UsageError("argument --patience: it chooses the model, which the test images must not; use held-out ones")
    if args.objective == "iwae" and args.free_bits is not None:
        raise UsageError("argument --free-bits: the importance-weighted bound has none; use it with --objective elbo")
    if args.resume and args.overwrite:
        raise UsageError("argument --resume: goes on with the run that --overwrite deletes; use one of them")
    latest = last("runs", preset.name) if args.resume else None
    folder = Path(args.out) if args.out else latest or next_free("runs", preset.name)
    resumed = args.resume and folder.exists()
    record = Run.open(folder) if resumed else None
    if not record:
        check_free(folder, overwrite=args.overwrite)
    elif record.config["preset"] != preset.name:
        raise ValueError(f"{folder} is a run of {record.config['preset']}, not of {preset.name}")
    data = prepare(
        args.data,
        only_classes=args.only_classes,
        limit=args.limit,
        held_out=held_out,
        pixels=args.pixels or preset.pixels,
        measured=isinstance(preset.condition, Vector),
    )
    announce_compilation(args.device)
    if args.device == "cpu":
        from minicvae.cli.ahead import compile_ahead  # here, because it loads the compiler

        compile_ahead(preset.name, args.dtype, args.optimizer or "adam")  # presets have Adam
    model = _build(preset, data, args)
    settings = _settings(preset, model, args)
    made_of = {"settings": settings, "data": data.describe(), "model": model.config}
    progress = _check_resumable(record, made_of) if record else ", from the beginning" if args.resume else ""
    if not args.quiet:
        print(_plan(preset, model, data, settings, f"{folder}{progress}"), flush=True)
    if record:
        record.update(status="running")
    else:
        record = Run.create(
            folder,
            overwrite=args.overwrite,
            preset=preset.name,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=0.0,
            epochs_done=0,
            test_losses=None,
            command=shlex.join(["minicvae", *args.words]),
            versions=_versions(),
            parameters=model.parameters.size,
            **made_of,
        )
    return _train(model, data, record, until=args.until, quiet=args.quiet)


def _check_resumable(record: Run, made_of: Mapping[str, Any]) -> str:
    """How far the run is; refused where it was made of something else, or its checkpoint is gone or damaged."""
    for entry, wanted in json.loads(json.dumps(made_of)).items():
        found = record.config.get(entry) or {}
        if not isinstance(found, dict):
            raise ValueError(f"{record.config_file} is damaged: {entry} is {found!r}")
        differing = [
            f"{name} {found.get(name)}, not {value}" for name, value in wanted.items() if found.get(name) != value
        ]
        if differing:
            begun = f"; it was begun by `{record.config['command']}`" if "command" in record.config else ""
            raise ValueError(f"{record.folder} cannot be gone on with: its {entry} had {'; '.join(differing)}{begun}")
    if not record.checkpoint_file.exists():
        if record.config["epochs_done"] > 1:  # killed after its first epoch, it may have none of that one
            raise ValueError(
                f"{record.folder} cannot be gone on with: {record.config['epochs_done']} epochs are done and "
                f"{record.checkpoint_file.name} is missing; --overwrite begins anew"
            )
        return ", from the beginning"
    found, _ = checkpoint.read(record.checkpoint_file)
    done, planned = len(found.get("history", {}).get("loss", ())), record.config["settings"]["epochs"]
    return f", going on after epoch {done:,} of {planned:,}" if found.get("stopped") == "until" else ", trained already"


def _train(model: CVAE, data: Data, record: Run, *, until: int | None, quiet: bool) -> int:
    """Fit, measure and draw; whatever happens, the run folder says how it ended."""
    history = History()
    try:
        _fit(model, data, record, history, until=until, verbose=not quiet)
        model.save(record.model_file)
        _conclude(model, data, record, history, quiet=quiet)
    except KeyboardInterrupt:
        if history.stopped == "error":
            history.stopped = "interrupted"
        model.save(record.model_file)
        done, planned = record.config["epochs_done"], record.config["settings"]["epochs"]
        more = "; to go on: the same command with --resume" if history.stopped in ("interrupted", "until") else ""
        print(
            f"interrupted: the model so far is in {record.folder} ({done} of {planned} epochs done)\n"
            f"to draw the pictures: minicvae plot {record.folder}{more}",
            file=sys.stderr,
        )
        return INTERRUPTED
    except NonFiniteError as error:
        kept = "the model of the last good epoch" if record.model_file.exists() else "no model, for no epoch was good"
        raise RuntimeError(f"{error}. {record.folder} holds the losses so far and {kept}") from error
    finally:
        record.update(status=STATUSES[history.stopped])
    return 0


def _build(preset: Preset, data: Data, args: Namespace) -> CVAE:
    overrides = {name: getattr(args, name) for name in ("latent_dim", "beta", "free_bits")}
    overrides = {name: value for name, value in overrides.items() if value is not None}
    kind = {"iwae": IWAE, "elbo": ELBO}.get(args.objective, type(preset.objective))
    objective = preset.objective if isinstance(preset.objective, kind) else kind()
    overrides["objective"] = replace(objective, samples=args.samples) if args.samples else objective
    if isinstance(preset.condition, Classes):
        overrides["classes"] = len(data.class_names)
    shape = data.test.x.shape[1:]
    model = build(preset.name, image_shape=shape, seed=args.seed, dtype=args.dtype, device=args.device, **overrides)
    if preset.mean_start:
        model.start_at_mean(data.train.x)
    return model


def _settings(preset: Preset, model: CVAE, args: Namespace) -> dict[str, Any]:
    """How the model is trained, with the preset's protocol where nothing else was asked for."""
    return {
        "epochs": args.epochs or preset.epochs,
        "batch_size": args.batch_size or preset.batch_size,
        "learning_rate": args.learning_rate or describe(preset.learning_rate),
        "optimizer": args.optimizer or describe(preset.optimizer),
        "clip_norm": args.clip_norm,
        "kl_annealing": args.kl_annealing,
        "patience": args.patience,
        "seed": args.seed,
        "device": model.device,
    }


def _plan(preset: Preset, model: CVAE, data: Data, settings: dict[str, Any], where: str) -> str:
    """What is going to happen, for people to read."""
    height, width = data.test.x.shape[1:]
    epochs, steps = settings["epochs"], -(-len(data.train) // settings["batch_size"])
    if data.held_out:
        validation = f"{len(data.held_out):,} training images held out"
    else:
        validation = "the test images; nothing is chosen by them"
    lines = {
        "model": f"{model.parameters.size:,} parameters, latent {model.latent_dim}, {model.dtype} on {model.device}",
        "data": f"{data.source}: {len(data.train):,} training and {len(data.test):,} test images of {height}x{width}, "
        f"{data.pixels} pixels",
        "condition": "none" if isinstance(preset.condition, Nothing) else ", ".join(data.names),
        "training": f"{_count(epochs, 'epoch')} of {_count(steps, 'step')}, {settings['batch_size']} images in each",
        "": str(_live(settings["optimizer"])),
        "rate": f"{_live(settings['learning_rate'])}, seed {settings['seed']}",
        "validation": validation,
        "run folder": where,
    }
    return "\n".join([f"{preset.name}: {preset.summary}", *(f"  {name:10}  {line}" for name, line in lines.items())])


def _live(setting: Any) -> Any:
    """A setting as `fit` takes it: the schedule or the optimiser, where it is the description of one."""
    return restore(setting, [*SCHEDULES, *OPTIMIZERS.values()])


def _count(n: int, thing: str) -> str:
    return f"{n:,} {thing}" + "s" * (n != 1)


def _fit(model: CVAE, data: Data, record: Run, history: History, *, until: int | None, verbose: bool) -> None:
    settings = record.config["settings"]
    same = ("epochs", "batch_size", "learning_rate", "optimizer", "clip_norm", "seed")
    # An overflow is not worth a warning: the error that follows says where it was.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        model.fit(
            *data.training_pair(),
            binarise=data.pixels == "dynamic",
            validation_data=data.pair(data.held_out or data.test),
            beta=_annealed(settings["kl_annealing"], model.objective.beta),
            early_stopping=settings["patience"],
            callbacks=[Recorder(record)],
            verbose=int(verbose),
            history=history,
            checkpoint=record.checkpoint_file,
            until=until,
            **{name: _live(settings[name]) for name in same},
        )


def _annealed(how: str, beta: float) -> Schedule | None:
    """The weight of the KL over the training, which ends at `beta`."""
    return {"none": None, "linear": Linear(0.0, beta, over=0.3), "cyclical": Cyclical(0.0, beta)}[how]


def _conclude(model: CVAE, data: Data, record: Run, history: History, *, quiet: bool) -> None:
    """The final losses and the pictures, and where all of it is."""
    losses = model.evaluate(*data.pair(data.test))
    record.update(test_losses=losses)
    if not quiet:
        which = ", the best epoch's model" if record.config["settings"]["patience"] else ""
        print(f"\ntest images: {as_sum(**losses)} nats per image{which}\ndrawing the pictures ...", flush=True)
    pictures = draw(record, model, data)
    if quiet:
        print(record.folder)
    else:
        print(*(f"  {path}" for path in pictures), sep="\n")
        print(f"run folder: {record.folder}\nnext, for example: minicvae generate {record.folder}")


def _versions() -> dict[str, str]:
    """What the run was made with."""
    packages = {name: version(name) for name in ("numpy", "numba")}
    return {"minicvae": __version__, "python": platform.python_version(), **packages, "platform": platform.platform()}
