"""What the arguments of all commands share: a parser whose errors are one line, and the types of the values."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

__all__ = [
    "INTERRUPTED",
    "Parser",
    "UsageError",
    "at_least",
    "choice",
    "data_option",
    "device_option",
    "number",
    "out_option",
    "run_argument",
    "suggestion",
]

SYNONYMS = {"gpu": "cuda"}  # whose letters are nearer to another word's
INTERRUPTED = 130  # the exit status after Ctrl-C: 128 + SIGINT, as shells have it


class Parser(argparse.ArgumentParser):
    """The parser of a command: its help ends with an example, its errors are one line and offer the nearest option."""

    def __init__(self, prog: str, description: str, example: str, **settings: Any) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=f"example:\n  {example.replace(chr(10), chr(10) + '  ')}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **settings,
        )
        self._negative_number_matcher = re.compile(r"-\.?\d")  # as argparse's own, and -1e-3 too
        self._taker: str | None = None

    def parse_args(self, words: Sequence[str]) -> argparse.Namespace:  # type: ignore[override]
        """The arguments; for an unknown option, an error that offers the nearest one."""
        self.usage = self.usage or self._usage()
        self._taker = self._takes_all(words)
        for word in words:
            option = word.split("=")[0]
            known = option in self._option_string_actions or self._negative_number_matcher.match(word)
            if option.startswith("-") and not known:
                self.error(f"there is no option {option}{suggestion(option, self._option_string_actions)}")
        return super().parse_args(words)

    def error(self, message: str) -> NoReturn:
        """End with exit status 2, and one line."""
        places = self._get_positional_actions()
        if (
            self._taker
            and places
            and message.startswith((f"argument {self._taker}:", "the following arguments are required"))
        ):
            message += f"; {places[0].metavar} goes before {self._taker}, which takes all words behind it"
        self.exit(2, f"{self.prog}: error: {message} (see `{self.prog} --help`)\n")

    def _usage(self) -> str:
        """Positional arguments come first: behind an option of several values they would be lost to it."""
        forms: dict[Any, str] = {None: "{}", "?": "[{}]", "*": "[{} ...]"}
        places = (forms[action.nargs].format(action.metavar) for action in self._get_positional_actions())
        return " ".join([self.prog, *places, "[options]"])

    def _takes_all(self, words: Sequence[str]) -> str | None:
        """The last option of several values, where these or other options take every word."""
        taker, wanted = None, 0.0
        for word in words:
            name, _, value = word.partition("=")
            if name in self._option_string_actions:
                nargs = self._option_string_actions[name].nargs
                wanted = math.inf if nargs in ("+", "*") else 0 if nargs == 0 or value else 1
                taker = name if wanted == math.inf else taker
            elif wanted == 0:
                return None
            else:
                wanted -= 1
        return taker


class UsageError(ValueError):
    """Arguments that are right one by one and wrong together."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """A question whether the nearest known word was meant, or nothing if none is near."""
    near = get_close_matches(SYNONYMS.get(word.casefold(), word), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def choice(*known: str) -> Callable[[str], str]:
    """The type of an argument that is one of `known`."""

    def check(word: str) -> str:
        if word not in known:
            near = suggestion(word, known)
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(known)}, got {word!r}{near}")
        return word

    return check


def at_least(least: int) -> Callable[[str], int]:
    """The type of a whole number of at least `least`."""

    def check(word: str) -> int:
        try:
            value = int(word)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {word!r}")
        return value

    return check


def number(*, zero: bool) -> Callable[[str], float]:
    """The type of a positive finite number; `zero`: or zero."""

    def check(word: str) -> float:
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
            raise argparse.ArgumentTypeError(f"expected a number {'of at least' if zero else 'above'} 0, got {word!r}")
        return value

    return check


def file_ending_in(*suffixes: str) -> Callable[[str], Path]:
    """The type of a file to write, whose name says its format."""

    def check(word: str) -> Path:
        if Path(word).suffix not in suffixes:
            raise argparse.ArgumentTypeError(f"expected a name that ends in {' or '.join(suffixes)}, got {word!r}")
        return Path(word)

    return check


def run_argument(parser: Parser) -> None:
    """RUN: the folder of a trained model."""
    parser.add_argument("run", metavar="RUN", help="the run folder that `minicvae train` made")


def data_option(parser: Parser) -> None:
    """--data: other images than the run's."""
    parser.add_argument(
        "--data", metavar="DATA", help="other images, named as for `minicvae train` (default: the run's)"
    )


def out_option(parser: Parser, name: str) -> None:
    """--out: the picture or the arrays to write."""
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=file_ending_in(".png", ".npz"),
        help=f"a .png or .npz file to write (default: RUN/{name})",
    )


def device_option(parser: argparse._ActionsContainer) -> None:
    """--device: where to compute."""
    from minicvae.kernels import DEVICES

    parser.add_argument(
        "--device",
        type=choice(*DEVICES, "auto"),
        default="cpu",
        metavar="NAME",
        help="where to compute: cpu (compiled kernels, the default), numpy (plain arrays), cuda (an NVIDIA GPU), or "
        "auto: cuda if it is there, else cpu",
    )
