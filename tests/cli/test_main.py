"""The command line as a whole: its help, and what it says to those who err."""

import re
import shlex
import subprocess
import sys
from importlib import import_module

import pytest

import minicvae as mc
from minicvae.cli import COMMANDS, main
from minicvae.cli import train as train_module
from minicvae.kernels import load


def test_help_lists_the_commands_in_the_order_of_a_first_day(run_to_here):
    text = run_to_here("--help")
    assert run_to_here() == text
    listed = re.findall(r"^  (\w+) +(\S.*)$", text.partition("commands:")[2], re.MULTILINE)[: len(COMMANDS)]
    assert dict(listed) == COMMANDS
    assert next(iter(COMMANDS)) == "train"


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)])
def test_all_help_ends_with_an_example_and_fits_80_columns(run_to_here, monkeypatch, words):
    monkeypatch.setenv("COLUMNS", "80")
    text = run_to_here(*words, "--help")
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"\nexample:\n(  minicvae .*\n)+$", text)
    assert text.isascii()


@pytest.mark.parametrize(
    ("name", "usage"),
    [("generate", "RUN [options]"), ("train", "[PRESET] [options]"), ("bench", "[PRESET ...] [options]")],
)
def test_the_usage_has_the_positional_arguments_first(run_to_here, name, usage):
    assert run_to_here(name, "--help").startswith(f"usage: minicvae {name} {usage}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_in_the_help_are_understood(monkeypatch, name):
    command, seen = import_module(f"minicvae.cli.{name}"), []
    monkeypatch.setattr(command, "run", lambda args: seen.append(args) or 0)
    examples = command.EXAMPLE.splitlines()
    for example in examples:
        program, *words = shlex.split(example)
        assert program == "minicvae"
        assert main(words) == 0
    assert len(seen) == len(examples)


def test_the_version_is_the_packages(run_to_here):
    assert run_to_here("--version") == f"minicvae {mc.__version__}\n"


def test_help_and_the_command_line_load_nothing_heavy():
    code = (
        "import sys; from minicvae.cli import main;"
        "main(['--help']); top = set(sys.modules); main(['train', '--help']);"
        "print({'numpy'} & top, {'numba', 'cupy', 'matplotlib', 'rich', 'safetensors', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set() set()"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("trian", 2, "there is no command 'trian'; did you mean 'train'?"),
        ("--versoin", 2, "there is no option --versoin; did you mean '--version'?"),
        ("train mpl", 2, "did you mean 'mlp'?"),
        ("train --epcohs 3", 2, "there is no option --epcohs; did you mean '--epochs'?"),
        ("train --epoch 3", 2, "there is no option --epoch; did you mean '--epochs'?"),
        ("train mlp mlp", 2, "unrecognized arguments: mlp"),
        ("train --epochs -3", 2, "--epochs: expected a whole number of at least 1, got '-3'"),
        ("train --epochs 0", 2, "--epochs: expected a whole number of at least 1, got '0'"),
        ("train --epochs many", 2, "--epochs: expected a whole number of at least 1, got 'many'"),
        ("train --seed -1", 2, "--seed: expected a whole number of at least 0, got '-1'"),
        ("train --learning-rate 0", 2, "--learning-rate: expected a number above 0, got '0'"),
        ("train --beta nan", 2, "--beta: expected a number of at least 0, got 'nan'"),
        ("train --kl-annealing liner", 2, "did you mean 'linear'?"),
        ("train --device gpu", 2, "did you mean 'cuda'?"),
        ("train --pixels gray", 2, "did you mean 'grey'?"),
        ("train --objective iwea", 2, "did you mean 'iwae'?"),
        ("train --objective iwae --free-bits 1", 2, "--free-bits: the importance-weighted bound has none"),
        ("train --patience 2 --validation test", 2, "--patience: it chooses the model, which the test images must not"),
        ("train --data fashon-mnist", 1, "there is no 'fashon-mnist'"),
        ("train --data {empty}", 1, "lacks train-images-idx3-ubyte"),
        ("train --data {text}", 1, "is neither a folder of IDX files nor an .npz file"),
        ("train --data {broken}", 1, "broken.npz: not an .npz file"),
        ("train --data {bars} --only-classes 7", 1, "there is no class '7'; expected 0, 1, 2"),
        ("train --data {bars} --out {text}", 1, "notes.txt is a file, not a folder"),
        ("train --data {bars} --out {empty}/..", 1, "and no run; choose another folder"),
        ("train --data {bars} --out {classes}", 1, "already holds a run"),
        ("train --data {bars} --device numpy --out {text}/run", 1, "Not a directory"),
        ("generate", 2, "the following arguments are required: RUN"),
        (
            "generate --classes 1 2 {classes}",
            2,
            "required: RUN; RUN goes before --classes, which takes all words behind",
        ),
        ("generate --count=2 --classes 1 {classes}", 2, "RUN goes before --classes"),
        ("reconstruct --indices 0 1 {classes}", 2, "got '{classes}'; RUN goes before --indices, which takes all"),
        ("reconstruct {classes} --indices x", 2, "at least 0, got 'x' (see"),
        ("train --learning-rate -1e-3", 2, "--learning-rate: expected a number above 0, got '-1e-3'"),
        ("generate {classes} --classes -1", 1, "there is no class '-1'; expected 0, 1, 2\n"),
        ("generate {classes} --out {empty}", 2, "expected a name that ends in .png or .npz"),
        ("generate {classes} --out {folder}", 1, "error: {folder}: Is a directory"),
        ("generate {classes} --out /proc/a.png", 1, "error: /proc/a.png: "),
        ("generate {classes}x", 1, "there is no run folder"),
        ("generate {empty}", 1, "is no run folder: it has no config.json"),
        ("generate {classes} --out a.jpg", 2, "expected a name that ends in .png or .npz, got 'a.jpg'"),
        ("generate {classes} --classes 3", 1, "there is no class '3'; expected 0, 1, 2"),
        ("generate {classes} --condition slant=1", 2, "--condition: the model of {classes} knows classes"),
        ("generate {attributes} --classes 1", 2, "--classes: the model of {attributes} knows attributes"),
        ("generate {attributes} --condition slnat=1", 2, "got 'slnat=1'; did you mean 'slant'?"),
        ("generate {attributes} --condition slant=x", 2, "expected a number for slant, got 'x'"),
        ("generate {attributes} --condition slant=inf", 2, "expected a finite number for slant, got 'inf'"),
        ("generate {classes} --out {text}/a.png", 1, "File exists"),
        ("reconstruct {classes} --indices 30", 1, "expected 0 to 29, the test images there are, got 30"),
        ("reconstruct {classes} --data mnist", 1, "expected images of shape (n, 64)"),
        ("evaluate {classes} --data nowhere", 1, "there is no 'nowhere'"),
        ("plot {empty}/no", 1, "there is no run folder"),
        ("gradcheck mlp-smal", 2, "got 'mlp-smal'; did you mean 'mlp-small'?"),
        ("gradcheck {classes}", 2, "PRESET|all: expected one of vector, "),
        ("gradcheck --example 3", 2, "there is no option --example; did you mean '--examples'?"),
        ("gradcheck --examples 0", 2, "--examples: expected a whole number of at least 1, got '0'"),
        ("gradcheck --elements 0", 2, "--elements: expected a whole number of at least 1, got '0'"),
        ("gradcheck --seed -1", 2, "--seed: expected a whole number of at least 0, got '-1'"),
        ("gradcheck --device gpu", 2, "did you mean 'cuda'?"),
        ("summary mpl", 1, "there is neither a preset nor a run 'mpl'; did you mean 'mlp'?"),
        ("summary {empty}", 1, "is no run folder"),
        ("presets mlp", 2, "unrecognized arguments: mlp"),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(
    of_classes, of_attributes, bars, tmp_path, capsys, monkeypatch, words, status, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and nothing more")
    places = {
        "bars": bars,
        "classes": of_classes.folder,
        "attributes": of_attributes.folder,
        "empty": tmp_path / "empty",
        "folder": tmp_path / "folder.png",
        "text": tmp_path / "notes.txt",
        "broken": tmp_path / "broken.npz",
    }
    device = (
        [] if "--device" in words or words.split()[0] in ("trian", "--versoin", "presets") else ["--device", "numpy"]
    )
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert main([*words.format(**places).split(), *device]) == status
    err = capsys.readouterr().err
    assert said.format(**places) in err
    assert re.fullmatch(r"minicvae( \w+)?: error: .+\n", err)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("found", ["numpy", "cpu"])
def test_auto_is_the_device_that_there_is(capsys, monkeypatch, found):
    monkeypatch.setattr("minicvae.kernels.load", lambda device: load(found if device == "auto" else device))
    assert main(["summary", "mlp-small", "--device", "auto"]) == 0
    assert f"device {found}" in capsys.readouterr().out


def test_a_device_that_is_not_there_is_said(bars, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    mc.kernels.load.cache_clear()
    with pytest.raises(RuntimeError, match="CuPy is not installed") as missing:
        mc.kernels.load("cuda")
    assert main(["train", "--data", bars, "--device", "cuda", "--out", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == f"minicvae: error: {missing.value}\n"
    assert not (tmp_path / "run").exists()


def test_the_traceback_is_there_for_who_wants_it(monkeypatch):
    monkeypatch.setenv("MINICVAE_DEBUG", "1")
    with pytest.raises(FileNotFoundError, match="there is no run folder"):
        main(["plot", "nowhere"])


def test_ctrl_c_elsewhere_is_a_line_and_130(capsys, monkeypatch):
    def interrupted(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "prepare", interrupted)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "minicvae: interrupted\n"


def test_a_reader_who_has_had_enough_is_no_error():
    command = f"{shlex.quote(sys.executable)} -m minicvae presets | true"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert done.stderr == ""
