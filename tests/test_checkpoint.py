"""Files whole or not at all, and what is said of files that are not ours."""

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from minicvae.checkpoint import FORMAT, read, whole_file, write

CONFIG = {"preset": None, "numbers": [1, 2.5], "nested": {"name": "ä"}}


def tensors():
    rng = np.random.default_rng(0)
    return {
        "a.W": rng.standard_normal((3, 4)).astype("f4"),
        "a.b": rng.standard_normal(4),
        "c": np.array([np.nan, -0.0]),
    }


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "model.safetensors", CONFIG, tensors().items())
    return tmp_path / "model.safetensors"


def test_everything_comes_back_bit_for_bit(path):
    for name in (path, str(path)):
        config, weights = read(name)
        assert config == CONFIG
        assert weights.keys() == tensors().keys()
        for key, value in tensors().items():
            assert weights[key].dtype == value.dtype
            assert weights[key].tobytes() == value.tobytes()


def test_views_are_written_as_what_they_show(tmp_path):
    array = np.arange(12.0).reshape(3, 4)
    write(tmp_path / "m", {}, [("t", array.T), ("s", array[:, ::2])])
    _, weights = read(tmp_path / "m")
    np.testing.assert_array_equal(weights["t"], array.T)
    np.testing.assert_array_equal(weights["s"], array[:, ::2])


def test_any_reader_of_safetensors_can_read_it(path):
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        assert json.loads(file.metadata()["minicvae"]) == {"format": FORMAT, "config": CONFIG}


def test_the_same_model_is_the_same_bytes(tmp_path):
    written = set()
    for i in range(20):
        write(tmp_path / str(i), CONFIG, tensors().items())
        written.add((tmp_path / str(i)).read_bytes())
    assert len(written) == 1


# Whole or not at all


def break_off(target, error):
    with whole_file(target) as temporary:
        temporary.write_text("half of the new")
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_a_block_that_breaks_off_leaves_what_was_there(tmp_path, error):
    (tmp_path / "file.txt").write_text("old")
    for target in (tmp_path / "file.txt", tmp_path / "new" / "file.txt"):
        with pytest.raises(error):
            break_off(target, error)
    assert (tmp_path / "file.txt").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["file.txt", "new"]
    assert os.listdir(tmp_path / "new") == []


def test_tensors_that_cannot_be_read_leave_the_old_model(path):
    def broken():
        yield from tensors().items()
        raise OSError("the device is gone")

    before = path.read_bytes()
    with pytest.raises(OSError, match="the device is gone"):
        write(path, {}, broken())
    with pytest.raises(TypeError):
        write(path, {"config": object()}, tensors().items())
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
def test_a_full_disk_is_an_error_of_the_system_and_leaves_the_old_model(path, monkeypatch):
    before = path.read_bytes()

    def write_to_full_disk(self, content):
        with open("/dev/full", "wb") as full:
            full.write(content)

    monkeypatch.setattr(type(path), "write_bytes", write_to_full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        write(path, {}, tensors().items())
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_an_error_names_the_file_that_was_asked_for_and_not_the_temporary_one(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed").chmod(0o500)
    for target in (tmp_path / "folder.png", tmp_path / "closed" / "file.png", Path("/proc/file.png")):
        if target.parent.name == "closed" and os.access(target.parent, os.W_OK):  # as it is for root
            continue
        with pytest.raises(OSError, match=r".") as caught, whole_file(target) as temporary:
            temporary.write_text("new")
        assert caught.value.filename == str(target)
        assert str(caught.value).endswith(f": {str(target)!r}")
    (tmp_path / "closed").chmod(0o700)
    assert sorted(os.listdir(tmp_path)) == ["closed", "folder.png"]


@pytest.mark.skipif(os.name != "posix", reason="elsewhere an open file cannot be replaced")
def test_who_is_reading_the_old_file_reads_it_to_its_end(tmp_path):
    """The new file takes the old one's name and not its place: no moment shows half of it."""
    target = tmp_path / "file.txt"
    target.write_text("old")
    with target.open() as reader:
        with whole_file(target) as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"
    assert target.read_text() == "new"


def test_the_new_file_is_nowhere_to_be_seen_until_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "er" / "file.txt"
    with whole_file(str(target)) as temporary:
        temporary.write_text("new")
        assert not target.exists()
        assert temporary.parent == target.parent  # a rename within one file system
        assert temporary.suffix == target.suffix
    assert target.read_text() == "new"
    assert os.listdir(target.parent) == ["file.txt"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_the_file_has_the_mode_that_any_other_new_file_would_have(tmp_path):
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "file") as temporary:
            temporary.write_text("x")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


# Files that are not ours


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^path: there is no model file .*nothing"):
        read(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n" * 50, b"\xff" * 64, b"{}", bytes(1000)])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    foreign = tmp_path / "model.safetensors"
    foreign.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is not a model file, or is damaged"):
        read(foreign)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_cut_anywhere_is_refused(path, data):
    content = path.read_bytes()
    cut = path.with_name("cut.safetensors")
    cut.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(ValueError, match=r"cut\.safetensors is not a model file, or is damaged"):
        read(cut)


@pytest.mark.parametrize(
    "metadata",
    [None, {}, {"format": "pt"}, {"format": FORMAT, "config": "{}"}],
)
def test_somebody_elses_tensors_are_refused(tmp_path, metadata):
    save_file({"w": np.ones(3)}, tmp_path / "other", metadata=metadata)
    with pytest.raises(ValueError, match="other is no minicvae model: expected 'minicvae' in its header, got "):
        read(tmp_path / "other")


@pytest.mark.parametrize("header", ["", "{", "[]", "null", "{}", '{"config": {}}', f'{{"format": "{FORMAT}"}}'])
def test_a_model_without_its_configuration_is_refused(tmp_path, header):
    save_file({"w": np.ones(3)}, tmp_path / "bare", metadata={"minicvae": header})
    with pytest.raises(ValueError, match="bare holds weights without a configuration that can be read"):
        read(tmp_path / "bare")


def test_a_model_of_another_format_is_refused(tmp_path):
    save_file({"w": np.ones(3)}, tmp_path / "new", metadata={"minicvae": '{"format": "minicvae model 9", "config": 1}'})
    with pytest.raises(ValueError, match=f"new: expected a model of the format '{FORMAT}', got 'minicvae model 9'"):
        read(tmp_path / "new")
