"""The run folder: what is written comes back, what is somebody else's stays."""

import csv
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minicvae as mc
from minicvae.runs import OURS, STATUSES, Recorder, Run, check_free, last, next_free
from minicvae.training import History

CONFIG = {"preset": "mlp-small", "data": {"source": "mnist"}}
SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

names = st.text('abcäöü[]{}\n" ,:', max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | names,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def model():
    return mc.build("mlp-small", image_shape=(4, 4), classes=2, latent_dim=2, device="numpy")


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "runs" / "mine", **CONFIG)


def losses(value, epochs=1):
    return [{"loss": value + i, "kl": -value, "seconds": 0.5} for i in range(epochs)]


def test_a_new_run_is_running_and_opens_again(run):
    again = Run.open(str(run.folder))
    assert again.config == {"format": "minicvae run 1", "status": "running", **CONFIG}
    assert again.history() == {}
    assert run.figures.is_dir()


@SAME_FOLDER
@given(value=json_values)
def test_whatever_json_knows_comes_back_from_the_config(tmp_path, value):
    run = Run.create(tmp_path, overwrite=True, **CONFIG)
    run.update(value=value, status="finished")
    config = Run.open(tmp_path).config
    assert config["value"] == value
    assert config["status"] == "finished"
    assert config["data"] == CONFIG["data"]


def test_lists_of_plain_values_take_one_line_in_the_config(run):
    run.update(mean=[1.5, 2.5], classes=[0, 1], names=["a]", "b"], empty=[])
    text = run.config_file.read_text()
    assert '"mean": [1.5, 2.5],\n' in text
    assert '"classes": [0, 1],\n' in text
    assert json.loads(text)["names"] == ["a]", "b"]


@SAME_FOLDER
@given(rows=st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2), min_size=1))
def test_the_metrics_come_back_to_the_last_bit_one_row_an_epoch(tmp_path, model, rows):
    run = Run.create(tmp_path, overwrite=True, **CONFIG)
    recorder, history = Recorder(run), History()
    for epoch, (loss, kl) in enumerate(rows):
        recorder.on_epoch_end(model, epoch, {"loss": loss, "kl": kl})
        history.append({"loss": loss, "kl": kl})
        assert run.history() == history.history
    lines = run.metrics_file.read_text().splitlines()
    assert lines[0] == "epoch,loss,kl"
    assert [line.split(",")[0] for line in lines[1:]] == [str(i + 1) for i in range(len(rows))]


def test_after_each_epoch_the_model_of_that_epoch_is_there(run, model):
    recorder = Recorder(run)
    for epoch, logs in enumerate(losses(3.0, 2)):
        model.parameters["encoder.0.W"] = np.full_like(model.parameters["encoder.0.W"], epoch)
        recorder.on_epoch_end(model, epoch, logs)
        loaded = Run.open(run.folder).model("numpy")
        assert loaded.device == "numpy"
        assert (loaded.parameters["encoder.0.W"] == epoch).all()


def test_an_epoch_that_is_trained_again_takes_the_place_of_its_row_and_of_those_after_it(run, model):
    recorder = Recorder(run)
    for epoch, logs in enumerate(losses(3.0, 4)):
        recorder.on_epoch_end(model, epoch, logs)
    recorder.on_epoch_end(model, 2, {"loss": 9.5, "kl": 0.0, "seconds": 0.5})
    assert run.history()["loss"] == [3.0, 4.0, 9.5]
    assert run.config["epochs_done"] == 3


def test_each_epoch_is_counted_with_its_seconds_while_the_run_goes_on(run, model):
    recorder = Recorder(run)
    for epoch, logs in enumerate(losses(3.0, 3)):
        recorder.on_epoch_end(model, epoch, logs)
        config = Run.open(run.folder).config
        assert (config["status"], config["epochs_done"], config["seconds"]) == ("running", epoch + 1, 0.5 * (epoch + 1))


def test_no_row_speaks_of_a_model_that_could_not_be_written(run, model, monkeypatch):
    recorder = Recorder(run)
    first, second = losses(3.0, 2)
    recorder.on_epoch_end(model, 0, first)

    def full(path):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(model, "save", full)
        with pytest.raises(OSError, match="No space left"):
            recorder.on_epoch_end(model, 1, second)
    assert Run.open(run.folder).history()["loss"] == [3.0]
    assert Run.open(run.folder).config["epochs_done"] == 1


def test_a_row_is_written_whole_or_not_at_all(run, model, monkeypatch):
    recorder = Recorder(run)
    first, second = losses(3.0, 2)
    recorder.on_epoch_end(model, 0, first)

    class Full(csv.DictWriter):
        def writerow(self, row):
            self.writer.writerow(["half of a row"])
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(csv, "DictWriter", Full)
        with pytest.raises(OSError, match="No space left"):
            recorder.on_epoch_end(model, 1, second)
    assert run.history()["loss"] == [3.0]


def test_a_run_without_a_model_says_how_its_training_stands(run):
    with pytest.raises(FileNotFoundError, match="holds no model; status of its training: running"):
        run.model()


def test_a_run_is_not_overwritten_unless_it_is_allowed_and_then_nothing_of_it_stays(run, model):
    Recorder(run).on_epoch_end(model, 0, losses(1.0)[0])
    (run.figures / "walks.png").write_bytes(b"")
    (run.figures / "manifold_11.png").write_bytes(b"")
    (run.folder / "generated.png").write_bytes(b"")
    run.evaluation_file.write_text("{}")
    (run.folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="already holds a run"):
        Run.create(run.folder, **CONFIG)
    assert run.history()["loss"] == [1.0]
    for theirs in ("photo.png", "figures/photo.png", "figures/manifold_mine.png", "figures/notes.txt"):
        (run.folder / theirs).write_bytes(b"")
    Run.create(run.folder, overwrite=True, preset="mlp", data={})
    left = {file.relative_to(run.folder).as_posix() for file in run.folder.rglob("*")}
    theirs = {"notes.txt", "photo.png", "figures/photo.png", "figures/manifold_mine.png", "figures/notes.txt"}
    assert left == {"config.json", "figures"} | theirs
    assert Run.open(run.folder).config["preset"] == "mlp"


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_another_kind_are_never_in_danger(tmp_path, overwrite):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds thesis.txt and no run"):
        Run.create(tmp_path, overwrite=overwrite, **CONFIG)
    with pytest.raises(FileExistsError, match=r"thesis.txt is a file"):
        check_free(tmp_path / "thesis.txt", overwrite=overwrite)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("config", ['{"architectures": ["GPT2Model"]}', '{"format": "pt"}', "[]", "{"])
def test_a_config_of_somebody_elses_makes_no_run(tmp_path, config):
    theirs = {"config.json": config, "model.safetensors": "weights", "photo.png": "picture"}
    for name, content in theirs.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(FileExistsError, match=r"holds config\.json and no run; choose another folder"):
        Run.create(tmp_path, overwrite=True, **CONFIG)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == theirs


def test_every_picture_of_a_run_is_known_as_its_own(tmp_path):
    x = np.zeros((4, 6, 6), np.uint8)
    for preset, c in (("latent2d", np.arange(4) % 2), ("vector", np.zeros((4, 5)))):
        model = mc.build(preset, image_shape=(6, 6), latent_dim=2, device="numpy")
        history = {name: [1.0] for name in ("loss", "reconstruction", "kl")}
        for path in mc.plots.draw_all(model, x, c, tmp_path / "figures", history=history):
            assert OURS.fullmatch(path.relative_to(tmp_path).as_posix())


def test_an_empty_folder_and_a_new_one_are_free(tmp_path):
    check_free(tmp_path)
    check_free(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


@SAME_FOLDER
@given(numbers=st.sets(st.integers(0, 200), max_size=5))
def test_the_next_free_folder_has_the_number_after_the_highest(tmp_path_factory, numbers):
    parent = tmp_path_factory.mktemp("runs")
    for name in [*(f"mlp-{n}" for n in numbers), "mlp-small-900", "mlp-x", "xmlp-950", "mlp-960x"]:
        (parent / name).mkdir()
    assert next_free(parent, "mlp") == parent / f"mlp-{max(numbers, default=0) + 1}"


def test_the_last_run_has_the_highest_number(tmp_path):
    assert last(tmp_path / "none", "mlp") is None
    for name in ("mlp-9", "mlp-10", "mlp-small-11", "mlp-x", "gaussian-12"):
        (tmp_path / name).mkdir()
    assert last(tmp_path, "mlp") == tmp_path / "mlp-10"


def test_the_first_run_needs_no_folder_for_runs(tmp_path):
    assert next_free(tmp_path / "runs", "mlp") == tmp_path / "runs" / "mlp-1"


def test_a_missing_run_is_told_from_a_folder_that_is_none(run):
    with pytest.raises(FileNotFoundError, match=r"no run folder .*nine; did you mean .*mine\?"):
        Run.open(run.folder.parent / "nine")
    with pytest.raises(FileNotFoundError, match=r"no run folder other$"):
        Run.open("other")
    with pytest.raises(ValueError, match=r"is no run folder: it has no config\.json"):
        Run.open(run.folder.parent)
    with pytest.raises(ValueError, match="is no run folder"):
        Run.open(run.config_file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json is damaged"),
        ("[]", "expected an object, got list"),
        ("{}", "expected format 'minicvae run 1' with status, preset, data, got None with nothing"),
        ('{"format": "minicvae run 1", "status": "finished", "preset": "mlp"}', "with data, got"),
        ('{"format": "other", "status": "finished", "preset": "mlp", "data": {}}', "got 'other'"),
    ],
)
def test_a_config_that_is_no_runs_is_refused_by_name(run, text, message):
    run.config_file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        Run.open(run.folder)
    assert str(run.config_file) in str(caught.value)


@pytest.mark.parametrize("text", ["epoch,loss\n1,abc\n", "epoch,loss\n1\n", "epoch,loss\n1,2\n2,\n"])
def test_damaged_metrics_are_refused_by_name(run, text):
    run.metrics_file.write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.csv is damaged"):
        run.history()


def test_every_way_to_stop_has_a_status():
    assert History().stopped in STATUSES
    assert set(STATUSES) == {"epochs", "until", "early", "interrupted", "error"}
