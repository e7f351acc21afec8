"""The checker checked: plant every small bug in the real source, one at a time, and see whether the tests notice.

    python tests/mutation                        every bug (slow: about an hour on two cores)
    python tests/mutation --sample 20 --seed 1   twenty of them, drawn
    python tests/mutation --only reference       the bugs of one file
    python tests/mutation --list                 names them, runs nothing

A bug is caught when a test fails, the process dies, or the tests do not end in time. The bugs that no test can see,
because the program means the same with them, stand in `equivalent.py`, each with its reason. Exit status 1 if any
other bug survives.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from equivalent import EQUIVALENT
from operators import Mutant, mutants

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 240  # seconds


@dataclass(frozen=True)
class Target:
    """A file to plant bugs in, and the tests that must notice; jit: run Numba's kernels compiled, not as Python."""

    path: str
    tests: tuple[str, ...]
    functions: frozenset[str] | None = None
    jit: bool = False

    @property
    def module(self) -> str:
        """The name under which the file is imported."""
        dotted = self.path.removesuffix(".py").replace("/", ".")
        return f"minicvae.{dotted}" if dotted.startswith("kernels.") else dotted

    def mutants(self) -> list[Mutant]:
        """All bugs of the file, each only once."""
        source = (ROOT / self.path).read_text(encoding="utf-8")
        found = {m.key: m for m in mutants(self.module, source, self.functions)}
        return list(found.values())


LAYERS = ("tests/layers",)
PROBABILITY = "tests/kernels/test_probability.py"
MODEL = ("tests/models/test_cvae.py", "tests/test_objectives.py", "tests/test_training.py")
TARGETS = [
    Target(
        "kernels/reference.py",
        ("tests/kernels/test_reference.py", PROBABILITY, "tests/test_optimizers.py", *LAYERS, *MODEL),
    ),
    Target("kernels/cpu.py", ("tests/kernels/test_cpu.py", "tests/test_optimizers.py")),
    Target("minicvae/distributions.py", ("tests/test_distributions.py", *MODEL)),
    Target("minicvae/objectives.py", ("tests/test_objectives.py", *MODEL)),
    Target("minicvae/optimizers.py", ("tests/test_optimizers.py", "tests/test_training.py")),
    Target("minicvae/conditions.py", ("tests/test_conditions.py", *MODEL)),
    Target("minicvae/parameters.py", ("tests/test_parameters.py", *LAYERS)),
    *(
        Target(f"minicvae/layers/{name}.py", (*LAYERS, "tests/models/test_cvae.py"))
        for name in ("dense", "embedding", "chain", "pathways", "shape")
    ),
    Target("minicvae/models/cvae.py", MODEL),
    Target("minicvae/models/adversarial.py", ("tests/models/test_adversarial.py",)),
    Target("minicvae/evaluate.py", ("tests/test_evaluate.py",)),
    Target("minicvae/classifier.py", ("tests/test_classifier.py",)),
    Target("minicvae/diagnostics.py", ("tests/test_diagnostics.py",)),
]


class Planted(MetaPathFinder, Loader):
    """Imports one module from a source of ours instead of its file."""

    def __init__(self, module: str, path: Path, source: str) -> None:
        self.module, self.path, self.source = module, path, source

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Only the module that is mutated."""
        return spec_from_loader(fullname, self, origin=str(self.path)) if fullname == self.module else None

    def exec_module(self, module: ModuleType) -> None:
        """Run the mutated source."""
        module.__file__ = str(self.path)
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def outcomes(work: Sequence[tuple[Target, str]], jobs: int, folder: Path) -> Iterator[tuple[int, str]]:
    """Run the tests of each (target, source) in a child process, `jobs` at a time.

    Yields (index, "passed", "failed" or "timeout") as the children end; `folder` keeps what each printed.
    """
    waiting = list(enumerate(work))[::-1]
    running: dict[int, tuple[int, float]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            i, (target, source) = waiting.pop()
            child = os.fork()
            if child == 0:
                _in_child(target, source, folder / f"{i}.log")
            running[child] = i, time.monotonic() + TIMEOUT
        time.sleep(0.02)
        for child, (i, deadline) in list(running.items()):
            done, status = os.waitpid(child, os.WNOHANG)
            late = not done and time.monotonic() > deadline
            if late:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
            if done or late:
                del running[child]
                yield i, "timeout" if late else "failed" if os.waitstatus_to_exitcode(status) else "passed"


def _in_child(target: Target, source: str, log: Path) -> None:
    """Never returns: exits with pytest's status."""
    status = 70
    try:
        os.setpgid(0, 0)
        output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ |= {"CI": "true", "OPENBLAS_NUM_THREADS": "1", "NUMBA_CACHE_DIR": str(log.parent / "numba")}
        import numba
        import pytest

        numba.config.DISABLE_JIT = not target.jit
        os.chdir(ROOT)
        sys.meta_path.insert(0, Planted(target.module, ROOT / target.path, source))
        arguments = [
            "-x",
            "-q",
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            *target.tests,
        ]
        status = int(pytest.main(arguments))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def drawn(options: argparse.Namespace) -> Iterator[tuple[Target, Mutant]]:
    """The bugs that the options ask for."""
    every = [
        (target, mutant)
        for target in TARGETS
        if options.only is None or options.only in target.path
        for mutant in target.mutants()
    ]
    if options.sample and options.sample < len(every):
        every = random.Random(options.seed).sample(every, options.sample)
    yield from every


def main() -> int:
    """Plant, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, metavar="N", help="only N bugs, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--only", metavar="TEXT", help="only files whose path has TEXT in it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="processes at a time")
    parser.add_argument("--list", action="store_true", help="name the bugs and stop")
    options = parser.parse_args()

    work = list(drawn(options))
    if options.list:
        print(*(mutant.key for _, mutant in work), sep="\n")
        return 0
    import hypothesis
    import numba
    import numpy
    import pytest
    import scipy.stats  # loaded once, here; each child is a fork of this process

    loaded = (hypothesis, numba, numpy, pytest, scipy.stats)
    print(f"{len(work)} bugs; {', '.join(f'{m.__name__} {m.__version__}' for m in loaded[:4])}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        targets = list({target.path: target for target, _ in work}.values())
        sound = [(target, (ROOT / target.path).read_text(encoding="utf-8")) for target in targets]
        for i, outcome in outcomes(sound, options.jobs, folder):
            if outcome != "passed":
                print((folder / f"{i}.log").read_text())
                print(f"the tests of {targets[i].path} end with {outcome!r} without any bug planted")
                return 2

        results = ["equivalent" if mutant.key in EQUIVALENT else "" for _, mutant in work]
        open_questions = [i for i, result in enumerate(results) if not result]
        sources = [(work[i][0], work[i][1].source) for i in open_questions]
        for k, outcome in outcomes(sources, options.jobs, folder):
            i = open_questions[k]
            results[i] = "survived" if outcome == "passed" else "caught"
            if outcome == "passed":
                print(f"SURVIVED  {work[i][0].path}:{work[i][1].line}  {work[i][1].key}", flush=True)
    return report([mutant for _, mutant in work], results)


def report(planted: list[Mutant], results: list[str]) -> int:
    """Print the score by operation; 1 if a bug survived."""
    score = Counter((m.module, m.function, result) for m, result in zip(planted, results, strict=True))
    print(f"\n{'operation':<62} {'planted':>8} {'caught':>8} {'equivalent':>11} {'survived':>9}")
    for module, function in sorted({(m.module, m.function) for m in planted}):
        counts = [score[module, function, result] for result in ("caught", "equivalent", "survived")]
        print(f"{module + '.' + function:<62} {sum(counts):>8} {counts[0]:>8} {counts[1]:>11} {counts[2]:>9}")
    total = Counter(results)
    print(f"{'all':<62} {len(planted):>8} {total['caught']:>8} {total['equivalent']:>11} {total['survived']:>9}")
    return 1 if total["survived"] else 0


if __name__ == "__main__":
    sys.exit(main())
