"""Data sets by name, and from a folder of IDX files or an .npz file of one's own."""

import dataclasses
import importlib.resources
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from minicvae.datasets.dataset import Dataset
from minicvae.datasets.idx import read_idx

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclasses.dataclass(frozen=True)
class Download:
    """Where FILES lie, gzipped, the SHA-256 of each in the same order, and what the labels are called."""

    url: str
    sha256: tuple[str, ...]
    class_names: tuple[str, ...]


DOWNLOADS = {
    "fashion-mnist": Download(
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        sha256=(
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        class_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
    ),
    "kmnist": Download(
        url="https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        sha256=(
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
}
NAMES = ("mnist", *DOWNLOADS)


def load(name: str = "mnist", *, folder: str | os.PathLike[str] | None = None) -> tuple[Dataset, Dataset]:
    """(train, test): images uint8 (n, h, w) and integer labels (n,).

    "mnist" comes with the package; "fashion-mnist" and "kmnist" are downloaded once into the user's cache
    folder, each file checked against its SHA-256. `folder` reads one's own data instead, and `name` then only
    says what the classes are called: a folder of four IDX files (FILES, plain or ending in .gz or .xz; a dot
    before "idx" will do), or an .npz file with the arrays x_train, y_train, x_test and y_test.

    Raises ValueError for an unknown name or for content that is no such data set, FileNotFoundError for what
    is missing, and OSError where a download fails, saying which files to put where.
    """
    if name not in NAMES:
        raise ValueError(f"name: expected one of {', '.join(NAMES)}, got {name!r}; for others pass folder=")
    class_names = DOWNLOADS[name].class_names if name in DOWNLOADS else ()
    place: Path | Traversable
    if folder is not None:
        place = Path(folder)
    elif name in DOWNLOADS:
        place = _downloaded(name)
    else:
        place = importlib.resources.files("minicvae.datasets") / "mnist"

    read = _read_npz if place.name.endswith(".npz") else _read_folder
    x_train, y_train, x_test, y_test = read(place)
    sizes = x_train.shape[1:], x_test.shape[1:]
    if sizes[0] != sizes[1]:
        raise ValueError(f"{place}: expected images of one size, got {sizes[0]} and {sizes[1]}")
    try:
        return Dataset(x_train, y_train, class_names), Dataset(x_test, y_test, class_names)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {error}") from error


def _read_folder(folder: "Path | Traversable") -> list[NDArray]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is neither a folder of IDX files nor an .npz file")
    found, missing = [], []
    for file in FILES:
        if path := _find(folder, file):
            found.append((path, 3 if "images" in file else 1))
        else:
            missing.append(file)
    if missing:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)} (each may also end in .gz or .xz)")
    return [read_idx(path, ndim=ndim) for path, ndim in found]


def _find(folder: "Path | Traversable", file: str) -> "Path | Traversable | None":
    names = (stem + suffix for stem in (file, file.replace("-idx", ".idx")) for suffix in ("", ".gz", ".xz"))
    return next((path for name in names if (path := folder / name).is_file()), None)


def _read_npz(file: "Path | Traversable") -> list[NDArray]:
    with file.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            raise ValueError(f"{file}: not an .npz file")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as archive:
            missing = [array for array in ARRAYS if array not in archive]
            if missing:
                held = ", ".join(archive) or "nothing"
                raise ValueError(f"{file} lacks {', '.join(missing)}; it holds {held}")
            try:
                return [archive[array] for array in ARRAYS]
            except (ValueError, zipfile.BadZipFile) as error:
                raise ValueError(f"{file}: {error}") from error


def _downloaded(name: str) -> Path:
    """The cache folder of a data set, after downloading those of the four files that it lacks."""
    import platformdirs

    folder = platformdirs.user_cache_path("minicvae") / name
    source = DOWNLOADS[name]
    checksums = dict(zip(FILES, source.sha256, strict=True))
    missing = {file + ".gz": sha for file, sha in checksums.items() if not _find(folder, file)}
    if missing:
        import pooch

        try:
            for file, sha in missing.items():
                pooch.retrieve(source.url + file, known_hash=f"sha256:{sha}", fname=file, path=folder)
        except (OSError, ValueError) as error:
            raise OSError(
                f"{name} could not be downloaded from {source.url}: {error}\n"
                f"Put {', '.join(missing)} into {folder} by hand, or say in which folder they are: "
                "folder= in Python, --data FOLDER on the command line."
            ) from error
    return folder
