"""The checker checked: plant every small bug in the real source, one at a time, and see whether the tests notice.

    python tests/mutation                        every bug (slow: README.md says how slow)
    python tests/mutation --sample 20 --seed 1   twenty of them, drawn
    python tests/mutation --only cpu.py:Cpu      those of one file, of one of its classes or functions
    python tests/mutation --results FILE         goes on where the last run with this file was broken off, adds up
    python tests/mutation --list                 names them, runs nothing

A bug is caught when a test fails, the process dies, or the tests do not end: they compute for far longer than without
it, or wait for what never comes. The bugs that no test can see, because the program means the same with them, stand in
`equivalent.py`, each with its reason. Exit status 1 if any other bug survives.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import re
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
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
SECONDS = 150  # of computing for a trial: the slowest tests of a file without a bug take a third of that
SILENCE, PATIENCE = 5, 12  # seconds without computing: a trial that is held up has them once, one that hangs ever again
SUSPECTS = 6  # tests and cases that noticed bugs of the same operation, to be run first


@dataclass(frozen=True)
class Target:
    """A file to plant bugs in, and the tests that must notice, those that tell most first."""

    path: str
    tests: tuple[str, ...]

    @property
    def module(self) -> str:
        """The name under which the file is imported."""
        dotted = self.path.removesuffix(".py").replace("/", ".")
        return f"minicvae.{dotted}" if dotted.startswith("kernels.") else dotted

    @property
    def device(self) -> str:
        """The device whose tests run: the one that the file is for."""
        return "cpu" if self.path in FAST else "cuda" if self.path in FOR_CUDA else "numpy"

    def source(self) -> str:
        """The file as it is."""
        return (ROOT / self.path).read_text(encoding="utf-8")

    @cached_property
    def state(self) -> str:
        """A short name for the file as it is."""
        return sha256(self.source().encode()).hexdigest()[:12]

    def mutants(self) -> list[Mutant]:
        """All bugs of the file."""
        return list(mutants(self.module, self.source()))


MODEL = ("models/test_cvae", "models/test_calls", "test_training", "test_training_errors", "test_model")
TESTS = {
    "kernels/reference": (
        "kernels/test_reference",
        "test_optimizers",
        "layers/test_dense",
        "layers/test_embedding",
        "test_distributions",
        "kernels/test_devices",
        "models/test_cvae",
        "kernels/test_probability",
        "test_objectives",
        "test_evaluate",
    ),
    "kernels/convolution": (
        "kernels/test_convolution",
        "kernels/test_image_maps",
        "layers/test_pooling",
        "layers/test_convolution",
    ),
    "minicvae/distributions": (
        "test_distributions",
        "models/test_quadrants",
        "models/test_cvae",
        "models/test_calls",
        "kernels/test_probability",
    ),
    "minicvae/objectives": ("test_objectives", "models/test_cvae"),
    "minicvae/optimizers": ("test_optimizers", "test_training"),
    "minicvae/conditions": ("test_conditions", *MODEL),
    "minicvae/parameters": ("test_parameters", "layers/test_layer", "layers/test_dense", *MODEL),
    **{
        f"minicvae/layers/{name}": (f"layers/test_{name}", "layers/test_layer", *more)
        for name, *more in (
            ("dense", "models/test_cvae"),
            ("embedding", "models/test_cvae"),
            ("chain", "models/test_cvae", "layers/test_fused"),
            ("fused",),
            ("pathways", "models/test_cvae"),
            ("layer", "test_summary", "test_training_errors"),
            ("shape",),
            ("planes", "models/test_convolutional"),
            ("pooling", "models/test_convolutional"),
            ("convolution", "models/test_convolutional", "layers/test_fused"),
        )
    },
    "minicvae/models/base": (*MODEL, "test_completion", "test_repeated"),
    "minicvae/models/cvae": (*MODEL, "models/test_adversarial"),
    "minicvae/models/adversarial": ("models/test_adversarial",),
    "minicvae/models/quadrants": ("models/test_quadrants", "test_completion"),
    "minicvae/masks": ("test_masks",),
    "minicvae/evaluate": ("test_evaluate", "models/test_calls"),
    "minicvae/initializers": ("test_initializers", "layers/test_convolution"),
    "minicvae/snapshot": ("test_snapshot",),
    "minicvae/callbacks": ("test_callbacks", "test_snapshot", "test_training"),
    "minicvae/schedules": ("test_schedules", "test_training"),
    "kernels/workspace": ("kernels/test_workspace", "kernels/test_cpu"),
    "kernels/compiled": (
        "kernels/test_cpu",
        "kernels/test_compiled",
        "kernels/test_probability",
        "test_optimizers",
        "kernels/test_reference",
    ),
    "kernels/compiled_products": ("kernels/test_products", "kernels/test_zeros", "kernels/test_cpu"),
    "kernels/pieces": ("kernels/test_pieces", "kernels/test_cpu", "test_optimizers"),
    "kernels/zeros": ("kernels/test_zeros",),
    "kernels/tiles": ("kernels/test_tiles",),
    "kernels/cpu": (
        "kernels/test_cpu",
        "kernels/test_products",
        "kernels/test_workspace",
        "test_optimizers",
        "kernels/test_reference",
        "kernels/test_recorded",
        "test_repeated",
    ),
    "kernels/recorded": ("kernels/test_recorded", "test_repeated"),
    "kernels/steps": ("kernels/test_steps",),
    "kernels/job": ("kernels/test_job", "kernels/test_spread", "kernels/test_cpu"),
    "kernels/compiled_images": ("kernels/test_cpu_images", "kernels/test_convolution", "kernels/test_image_maps"),
    **{
        f"kernels/{name}": ("kernels/test_image_maps", "kernels/test_cpu_images", "kernels/test_convolution")
        for name in ("compiled_tiles", "compiled_maps", "image_maps")
    },
    "kernels/cpu_images": (
        "kernels/test_cpu_images",
        "kernels/test_image_maps",
        "kernels/test_convolution",
        "layers/test_pooling",
    ),
    "kernels/vector_math": ("kernels/test_vector_math",),
    "minicvae/classifier": ("test_classifier",),
    "minicvae/diagnostics": ("test_diagnostics",),
    "minicvae/datasets/measures": ("datasets/test_measures",),
    "minicvae/models/convolutional": ("models/test_convolutional", "models/test_presets"),
    **{
        f"minicvae/gradcheck/{name}": tuple(f"gradcheck/test_{test}" for test in tests)
        for name, *tests in (
            ("differences", "differences", "kinks", "check"),
            ("comparison", "comparison", "tolerances", "verdicts", "check", "kinks", "adapters", "conduct"),
            ("check", "conduct", "check"),
            ("subject", "subject", "conduct", "adapters", "check"),
            ("rounding", "rounding"),
            ("adapters", "adapters"),
            ("report", "report"),
        )
    },
}
FAST = {
    f"kernels/{name}.py"
    for name in (
        "compiled",
        "compiled_images",
        "compiled_maps",
        "compiled_products",
        "compiled_tiles",
        "cpu",
        "cpu_images",
        "image_maps",
        "pieces",
        "recorded",
        "workspace",
        "zeros",
    )
}
FOR_CUDA = {"minicvae/snapshot.py"}  # what tells the host's arrays from a device's, which the stand-in tells apart too
TARGETS = [
    Target(f"{path}.py", tuple(f"tests/{name}.py" for name in dict.fromkeys(tests))) for path, tests in TESTS.items()
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


@dataclass(frozen=True)
class Trial:
    """A source to run tests on; kin: the operation, whose other bugs the same tests may notice.

    source: makes it where it is run, for thousands of them would take a minute before the first could begin.
    """

    target: Target
    source: Callable[[], str]
    tests: Sequence[str]
    kin: str = ""


def outcomes(trials: Sequence[Trial], jobs: int, folder: Path) -> Iterator[tuple[int, str, str]]:
    """Run the tests of each trial in a child process, `jobs` at a time.

    The tests that noticed the last bugs of the same operation run first, and alone: most bugs end there, in a second.
    Yields (index, "passed", "failed" or "timeout", the test that failed if one did) as the trials end; `folder` keeps
    what each printed.
    """
    waiting = deque((i, False) for i in range(len(trials)))  # index, and whether its first tests have passed
    running: dict[int, tuple[int, bool]] = {}
    noticed: dict[str, list[str]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            i, whole = waiting.popleft()
            first = noticed.get(trials[i].kin)
            tests = first if first and not whole else trials[i].tests
            child = os.fork()
            if child == 0:
                _in_child(trials[i], tests, folder / f"{i}.log")
            running[child] = i, tests is not first
        child, status = os.wait()
        i, whole = running.pop(child)
        kin, log = trials[i].kin, folder / f"{i}.log"
        if status:
            found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", log.read_text(), re.MULTILINE)
            by = found[1] if found else ""
            if by:  # this very case first, then the others of the same test
                noticed[kin] = list(dict.fromkeys([by, by.split("[")[0], *noticed.get(kin, [])]))[:SUSPECTS]
            late = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGXCPU, signal.SIGALRM)
            yield i, "timeout" if late else "failed", by
        elif whole:
            yield i, "passed", ""
        else:
            waiting.appendleft((i, True))


def _in_child(trial: Trial, tests: Sequence[str], log: Path) -> None:
    """Never returns: exits with pytest's status."""
    status = 70
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        threading.Thread(target=_end_if_it_hangs, daemon=True).start()
        output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(ROOT)
        target = trial.target
        sys.meta_path.insert(0, Planted(target.module, ROOT / target.path, trial.source()))
        import numba
        import pytest

        # Compiled code in Numba's cache is found by its bytecode, which does not tell one constant from another.
        numba.config.DISABLE_JIT = target.device == "cpu"
        plugins = ["-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        options = ["-x", "-q", "--hypothesis-profile", "mutation", "--device", target.device]
        options += ["--stand-in"] if target.device == "cuda" else []
        status = int(pytest.main([*options, *plugins, *tests]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _end_if_it_hangs() -> None:
    """End this process once it waits without computing: how long it takes by the clock is up to what else runs."""
    silent = 0
    while silent < PATIENCE:
        before = time.process_time()
        time.sleep(SILENCE)
        silent = silent + 1 if time.process_time() - before < SILENCE / 100 else 0
    os.kill(os.getpid(), signal.SIGALRM)


class Results:
    """What became of each bug, in a file if one is given: a line as soon as it is known.

    A bug that was caught is not tried again until its own file changes; one that survived is, for its test may be
    there now. Who takes tests away begins with a new file.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[tuple[str, str], tuple[str, str]] = {}
        if path and path.exists():
            with path.open(newline="") as lines:
                for state, key, result, by in csv.reader(lines):
                    self._known[state, key] = ("", "") if result == "survived" else (result, by)

    def get(self, target: Target, mutant: Mutant) -> tuple[str, str]:
        """What became of a bug, and the test that noticed it; empty where that is not known."""
        return self._known.get((target.state, mutant.key), ("", ""))

    def add(self, target: Target, mutant: Mutant, result: str, by: str) -> None:
        """Note it down."""
        self._known[target.state, mutant.key] = result, by
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", newline="") as lines:
                csv.writer(lines).writerow((target.state, mutant.key, result, by))


def main() -> int:
    """Plant, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, metavar="N", help="only N bugs, drawn by their names")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--only", metavar="TEXT", help="only where TEXT is in path:function")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="processes at a time")
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep there what became of each bug, and go on")
    parser.add_argument("--list", action="store_true", help="name the bugs and stop")
    options = parser.parse_args()

    every = [(target, mutant) for target in TARGETS for mutant in target.mutants()]
    gone = EQUIVALENT.keys() - {mutant.key for _, mutant in every}
    if gone:
        print("equivalent.py names bugs that can no longer be planted:", *sorted(gone), sep="\n")
        return 2
    work = [(t, m) for t, m in every if options.only is None or options.only in f"{t.path}:{m.function}"]
    if options.sample and options.sample < len(work):
        work = sorted(work, key=lambda planted: _lot(options.seed, planted[1].key))[: options.sample]
    if options.list:
        print(*(mutant.key for _, mutant in work), sep="\n")
        return 0
    _load()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = Results(options.results)
        real = [(target, mutant) for target, mutant in work if mutant.key not in EQUIVALENT]
        planted = [(target, mutant) for target, mutant in real if not results.get(target, mutant)[0]]
        trials = [Trial(t, m.source, t.tests, f"{m.module}.{m.function}") for t, m in planted]
        for k, outcome, by in outcomes(trials, options.jobs, folder):
            target, mutant = planted[k]
            result = {"passed": "survived", "failed": "caught"}.get(outcome, outcome)
            results.add(target, mutant, result, by)
            if outcome != "failed":
                print(f"{result.upper()}  {target.path}:{mutant.line}  {mutant.key}", flush=True)

        # A test that fails without a bug too has noticed nothing.
        noticed: dict[Target, set[str]] = {target: set() for target, _ in real}
        for target, mutant in real:
            noticed[target] |= {results.get(target, mutant)[1].split("[")[0]} - {""}
        sound = [Trial(target, target.source, sorted(tests) or target.tests) for target, tests in noticed.items()]
        for k, outcome, _ in outcomes(sound, options.jobs, folder):
            if outcome != "passed":
                print((folder / f"{k}.log").read_text())
                print(f"the tests of {sound[k].target.path} end with {outcome!r} without any bug planted")
                return 2
    return report(work, ["equivalent" if m.key in EQUIVALENT else results.get(t, m)[0] for t, m in work])


def _lot(seed: int, key: str) -> bytes:
    """A number for a bug that no change of other lines changes: the sample stays the same."""
    return sha256(f"{seed} {key}".encode()).digest()


def _load() -> None:
    """Load once what every child, a fork of this process, would load for itself; set what all tests share."""
    os.environ |= {"CI": "true", "OPENBLAS_NUM_THREADS": "1"}
    import hypothesis.extra.numpy
    import numba
    import numpy
    import pytest
    import scipy.integrate
    import scipy.stats

    # One failure is enough, and nobody reads the smallest example.
    hypothesis.settings.register_profile(
        "mutation",
        deadline=None,
        max_examples=25,
        derandomize=True,
        report_multiple_bugs=False,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    gc.freeze()  # what is loaded stays: no child looks for garbage in it
    loaded = (hypothesis, numba, numpy, pytest, scipy)
    print(", ".join(f"{m.__name__} {m.__version__}" for m in loaded), flush=True)


def report(work: list[tuple[Target, Mutant]], results: list[str]) -> int:
    """Print the score by operation, and by file as the table of README.md; 1 if a bug survived."""
    columns = ("caught", "timeout", "equivalent", "survived")

    def table(names: list[str]) -> list[tuple[str, list[int]]]:
        score = Counter(zip(names, results, strict=True))
        rows = [(name, [score[name, result] for result in columns]) for name in dict.fromkeys(names)]
        return [*rows, ("all", [results.count(result) for result in columns])]

    print("\n" + "  ".join([f"{'operation':<62}", "planted", *columns]))
    for name, counts in table([f"{m.module}.{m.function}" for _, m in work]):
        cells = zip(counts, columns, strict=True)
        print("  ".join([f"{name:<62}", f"{sum(counts):>7}", *(f"{n:>{len(c)}}" for n, c in cells)]))
    print("\n| file | planted | " + " | ".join(columns) + " |\n| :-- |" + " --: |" * (1 + len(columns)))
    for name, counts in table([target.path for target, _ in work]):
        print("| " + " | ".join([name, *(f"{n:,}" for n in (sum(counts), *counts))]) + " |")
    return 1 if "survived" in results else 0


if __name__ == "__main__":
    sys.exit(main())
