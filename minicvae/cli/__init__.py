"""The command line: `minicvae COMMAND ...`.

A command is a line in `COMMANDS` and the module of its name beside this file, with DESCRIPTION and EXAMPLE for its
help, `arguments(parser)` that says what it takes, and `run(args)` that does it and returns the exit status. A module is
loaded when its command is asked for, so help is quick.

Exit status: 0 done; 1 it could not be done; 2 the command was not understood; 130 interrupted by Ctrl-C. Errors are one
line on stderr; with MINICVAE_DEBUG set in the environment they come with their traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from minicvae import __version__
from minicvae.cli.parser import INTERRUPTED, Parser, UsageError, suggestion

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "train": "train a model; leaves a folder with model, losses, pictures",
    "generate": "draw images on demand: which digit, how many",
    "reconstruct": "show images beside what the model makes of them",
    "evaluate": "measure a trained model, and say what is wrong with it",
    "plot": "draw all pictures of a run anew",
    "gradcheck": "check every gradient of a model by finite differences",
    "bench": "time training steps, against PyTorch and JAX if you like",
    "presets": "list the models there are to train",
    "summary": "show a model's layers, shapes and parameter counts",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command with the arguments `argv`, by default those of the process; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _run(words)
        sys.stdout.flush()
        return status
    except SystemExit as done:  # argparse's way to end after --help or an error
        return int(done.code or 0)
    except KeyboardInterrupt:
        print("minicvae: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has had enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        if os.environ.get("MINICVAE_DEBUG"):
            raise
        print(f"minicvae: error: {_message(error)}", file=sys.stderr)
        return 1


def _run(words: Sequence[str]) -> int:
    if not words or words[0].startswith("-"):
        top = _top_parser()
        top.parse_args(words)
        top.print_help()
        return 0
    name, *rest = words
    if name not in COMMANDS:
        _top_parser().error(f"there is no command {name!r}{suggestion(name, COMMANDS)}")
    command = import_module(f"minicvae.cli.{name}")
    parser = Parser(f"minicvae {name}", command.DESCRIPTION, command.EXAMPLE)
    command.arguments(parser)
    args = parser.parse_args(rest)
    args.words = words
    if getattr(args, "device", None) == "auto":
        from minicvae.kernels import load

        args.device = load("auto").name
    try:
        return command.run(args)
    except UsageError as error:
        parser.error(str(error))


def _top_parser() -> Parser:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {line}" for name, line in COMMANDS.items())
    parser = Parser(
        "minicvae",
        f"Conditional variational autoencoders from the arrays up.\n\ncommands:\n{commands}\n\n"
        "`minicvae COMMAND --help` says more about each.",
        "minicvae train --epochs 10",
        usage="minicvae COMMAND ...",
    )
    parser.add_argument("--version", action="version", version=f"minicvae {__version__}")
    return parser


def _message(error: Exception) -> str:
    """What an error says; the system's errors without their number, and with the file first."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
