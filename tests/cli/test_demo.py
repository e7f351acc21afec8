"""The command line that the demos share."""

import sys

import pytest

from minicvae.cli.demo import demo_options


@pytest.fixture
def options(monkeypatch, tmp_path):
    """options(*words): what a demo with these words on its command line is told."""

    def parse(*words):
        monkeypatch.setattr(sys, "argv", ["demo.py", *words])
        monkeypatch.chdir(tmp_path)
        return demo_options("A demo.", "name", epochs=3, full_epochs=50, limit=700)

    return parse


@pytest.mark.parametrize(
    ("words", "epochs", "limit"),
    [
        ([], 3, 700),
        (["--full"], 50, None),
        (["--epochs", "5"], 5, 700),
        (["--full", "--epochs", "200", "--limit", "9"], 200, 9),
    ],
)
def test_full_is_the_reference_and_what_is_said_outright_wins(options, words, epochs, limit):
    told = options(*words)
    assert (told.epochs, told.limit, told.data) == (epochs, limit, "mnist")


def test_the_folder_for_the_pictures_is_made(options, tmp_path):
    assert options().out.is_dir()
    assert options("--out", str(tmp_path / "a" / "b")).out == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()


def test_the_arguments_of_a_notebook_are_left_alone(options, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert options("-f", "/tmp/kernel.json").epochs == 3


def test_a_misspelt_option_is_refused(options, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    with pytest.raises(SystemExit):
        options("--epcohs", "1")
    assert "unrecognised arguments: --epcohs 1" in capsys.readouterr().err


def test_a_demo_may_take_more_than_that(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["demo.py", "--seed", "7", "--epochs", "2", "--out", str(tmp_path)])
    told = demo_options(
        "A demo.", "name", epochs=3, full_epochs=50, arguments=lambda parser: parser.add_argument("--seed", type=int)
    )
    assert (told.seed, told.epochs) == (7, 2)


def test_no_epochs_at_all_are_refused(options, capsys):
    with pytest.raises(SystemExit):
        options("--epochs", "0")
    assert "--epochs" in capsys.readouterr().err
