"""Data sets by name, from folders and from .npz files; a small web of our own stands in for the network."""

import gzip
import hashlib
import lzma
import struct
from pathlib import Path

import numpy as np
import platformdirs
import pooch
import pytest

import minicvae.datasets
from minicvae.datasets import NAMES, Dataset, load, read_idx, sources

MNIST = Path(minicvae.datasets.__file__).parent / "mnist"
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
ARRAYS = {
    "train-images-idx3-ubyte": np.arange(6 * 4 * 5, dtype=np.uint8).reshape(6, 4, 5),
    "train-labels-idx1-ubyte": np.array([0, 1, 2, 3, 4, 5], np.uint8),
    "t10k-images-idx3-ubyte": 255 - np.arange(2 * 4 * 5, dtype=np.uint8).reshape(2, 4, 5),
    "t10k-labels-idx1-ubyte": np.array([7, 8], np.uint8),
}
NPZ = dict(zip(("x_train", "y_train", "x_test", "y_test"), ARRAYS.values(), strict=True))


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


FILES = {name: idx(array) for name, array in ARRAYS.items()}


def fill(folder, *, rename=lambda name: name, pack=bytes):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in FILES.items():
        (folder / rename(name)).write_bytes(pack(content))
    return folder


def assert_is_the_small_set(train, test):
    for found, expected in zip((train.x, train.y, test.x, test.y), ARRAYS.values(), strict=True):
        np.testing.assert_array_equal(found, expected, strict=True)


@pytest.fixture(scope="module")
def mnist():
    return load()


def test_mnist_comes_with_the_package_in_its_known_sizes(mnist):
    train, test = mnist
    assert isinstance(train, Dataset)
    assert (train.x.shape, train.y.shape) == ((60_000, 28, 28), (60_000,))
    assert (test.x.shape, test.y.shape) == ((10_000, 28, 28), (10_000,))
    assert train.x.dtype == test.x.dtype == np.uint8
    assert np.bincount(train.y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(test.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert train.class_names == ()


@pytest.mark.parametrize("name", SHA256)
def test_each_mnist_file_is_the_original_bit_for_bit_and_its_note_says_so(name):
    digest = hashlib.sha256(lzma.decompress((MNIST / f"{name}.xz").read_bytes())).hexdigest()
    assert digest == SHA256[name]
    assert digest in (MNIST / "README.md").read_text(encoding="utf-8")


def test_mnist_holds_what_the_reader_finds_in_its_files(mnist):
    np.testing.assert_array_equal(mnist[1].x, read_idx(MNIST / "t10k-images-idx3-ubyte.xz"))
    np.testing.assert_array_equal(mnist[0].y, read_idx(MNIST / "train-labels-idx1-ubyte.xz"))


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
@pytest.mark.parametrize("separator", ["-idx", ".idx"])
@pytest.mark.parametrize("name", NAMES)
def test_any_folder_of_four_idx_files_loads(tmp_path, suffix, separator, name):
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix]
    fill(tmp_path, rename=lambda name: name.replace("-idx", separator) + suffix, pack=pack)
    train, test = load(name, folder=tmp_path)
    assert_is_the_small_set(train, test)
    assert len(train.class_names) == len(test.class_names) == (0 if name == "mnist" else 10)
    assert_is_the_small_set(*load(folder=str(tmp_path)))


def test_the_error_lists_exactly_the_files_a_folder_lacks(tmp_path):
    fill(tmp_path, rename=lambda name: name + ".gz" if "images" in name else "other-" + name)
    with pytest.raises(FileNotFoundError) as error:
        load(folder=tmp_path)
    message = str(error.value)
    assert str(tmp_path) in message
    assert [name for name in FILES if name in message] == [
        "train-labels-idx1-ubyte",
        "t10k-labels-idx1-ubyte",
    ]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is neither a folder"):
        load(folder=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz"):
        load(folder=tmp_path / "nowhere.npz")


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (
            {"train-images-idx3": FILES["train-labels-idx1-ubyte"]},
            "train-images.* expected 3 dimension.* found 1",
        ),
        (
            {"t10k-labels-idx1": FILES["t10k-images-idx3-ubyte"]},
            "t10k-labels.* expected 1 dimension.* found 3",
        ),
        (
            {"train-labels-idx1": FILES["t10k-labels-idx1-ubyte"]},
            r"one label for each of 6 images, got the shape \(2,\)",
        ),
        ({"t10k-images-idx3": idx(np.zeros((2, 3, 5), np.uint8))}, r"one size, got \(4, 5\) and \(3, 5\)"),
        (
            {"train-images-idx3": bytes([0, 0, 9, *FILES["train-images-idx3-ubyte"][3:]])},
            "x: expected uint8.*got int8",
        ),
        ({"t10k-images-idx3": FILES["t10k-images-idx3-ubyte"][:-1]}, "t10k-images.* cut short"),
        ({"t10k-labels-idx1": FILES["t10k-labels-idx1-ubyte"] + b"x"}, "t10k-labels.* too long"),
    ],
)
def test_files_that_do_not_belong_together_are_refused_and_named(tmp_path, contents, message):
    fill(tmp_path)
    for name, content in contents.items():
        (tmp_path / f"{name}-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        load(folder=tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_file_with_the_four_arrays_loads(tmp_path, save):
    save(tmp_path / "own.npz", **NPZ, another=np.zeros(3))
    assert_is_the_small_set(*load(folder=tmp_path / "own.npz"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"x_train": NPZ["x_train"], "y_test": NPZ["y_test"]},
            "lacks y_train, x_test; it holds x_train, y_test",
        ),
        ({}, "lacks x_train, y_train, x_test, y_test; it holds nothing"),
        (NPZ | {"x_train": NPZ["x_train"] / 255}, "x: expected uint8 .* got float64"),
        (NPZ | {"y_test": np.array(["a", "b"])}, "y: expected integer labels"),
        (NPZ | {"y_test": np.array([object(), 1], dtype=object)}, "Object arrays cannot be loaded"),
    ],
)
def test_an_npz_file_with_other_contents_is_refused_and_named(tmp_path, arrays, message):
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(ValueError, match=rf"own\.npz.*{message}"):
        load(folder=tmp_path / "own.npz")


def test_a_file_that_is_only_called_npz_is_refused(tmp_path):
    (tmp_path / "own.npz").write_bytes(FILES["train-images-idx3-ubyte"])
    with pytest.raises(ValueError, match=r"own\.npz: not an \.npz file"):
        load(folder=tmp_path / "own.npz")


def test_a_damaged_npz_file_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "own.npz", **NPZ)
    content = bytearray((tmp_path / "own.npz").read_bytes())
    content[120:140] = bytes(20)
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"own\.npz"):
        load(folder=tmp_path / "own.npz")


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="name: expected one of mnist, fashion-mnist, kmnist, got 'cifar'"):
        load("cifar")


class Web:
    """What the addresses of a small data set hold, which were asked for, and whether the line is up."""

    def __init__(self):
        self.pages = {}
        self.asked = []
        self.up = True

    def __call__(self, _downloader, url, output_file, _pooch, check_only=False):
        self.asked.append(url.rpartition("/")[2])
        if not self.up:
            raise ConnectionError("Name or service not known")
        Path(output_file).write_bytes(self.pages[url])


@pytest.fixture
def web(monkeypatch, tmp_path):
    """Pooch's real bookkeeping and checksums over pretended pages, with an empty cache folder."""
    web = Web()
    packed = {f"https://small.example/{name}.gz": gzip.compress(content) for name, content in FILES.items()}
    web.pages.update(packed)
    digests = tuple(hashlib.sha256(page).hexdigest() for page in packed.values())
    source = sources.Download("https://small.example/", digests, ("a", "b"))
    monkeypatch.setitem(sources.DOWNLOADS, "kmnist", source)
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", lambda *args, **kwargs: web(*args, **kwargs))
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda app: tmp_path / "cache" / app)
    return web


def test_a_named_data_set_is_downloaded_once(web, tmp_path):
    train, test = load("kmnist")
    assert_is_the_small_set(train, test)
    assert train.class_names == ("a", "b")
    assert web.asked == [f"{name}.gz" for name in FILES]
    assert sorted(path.name for path in (tmp_path / "cache/minicvae/kmnist").iterdir()) == sorted(web.asked)
    web.up = False
    assert_is_the_small_set(*load("kmnist"))
    assert len(web.asked) == 4


def test_only_what_the_cache_lacks_is_downloaded(web, tmp_path):
    fill(tmp_path / "cache/minicvae/kmnist")
    (tmp_path / "cache/minicvae/kmnist/t10k-labels-idx1-ubyte").unlink()
    assert_is_the_small_set(*load("kmnist"))
    assert web.asked == ["t10k-labels-idx1-ubyte.gz"]


def test_without_a_network_the_error_says_which_files_to_put_where(web, tmp_path):
    web.up = False
    with pytest.raises(OSError, match="could not be downloaded") as error:
        load("kmnist")
    message = str(error.value)
    folder = tmp_path / "cache/minicvae/kmnist"
    for part in (
        *(f"{name}.gz" for name in FILES),
        str(folder),
        "folder=",
        "https://small.example/",
        "not known",
    ):
        assert part in message
    fill(folder, rename=lambda name: name + ".xz", pack=lzma.compress)
    assert_is_the_small_set(*load("kmnist"))


def test_a_download_with_another_checksum_is_refused_and_not_kept(web, tmp_path):
    changed = ARRAYS["train-labels-idx1-ubyte"][::-1].copy()
    web.pages["https://small.example/train-labels-idx1-ubyte.gz"] = gzip.compress(idx(changed))
    with pytest.raises(OSError, match=r"(?s)hash of downloaded file .* does not match.*by hand"):
        load("kmnist")
    kept = [path.name for path in (tmp_path / "cache/minicvae/kmnist").iterdir()]
    assert kept == ["train-images-idx3-ubyte.gz"]


@pytest.mark.parametrize("name", sources.DOWNLOADS)
def test_each_download_has_four_checksums_and_ten_class_names(name):
    source = sources.DOWNLOADS[name]
    assert len(source.sha256) == len(sources.FILES)
    assert all(len(digest) == 64 and int(digest, 16) for digest in source.sha256)
    assert len(set(source.class_names)) == 10
    assert source.url.endswith("/")
