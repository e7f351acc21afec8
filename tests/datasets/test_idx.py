"""The IDX reader: what it reads, and above all what it refuses."""

import gzip
import lzma
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minicvae.datasets import read_idx

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
PACKERS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}

arrays = st.sampled_from(sorted(CODES)).flatmap(
    lambda name: hnp.arrays(np.dtype(name), hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5))
)
packers = st.sampled_from(sorted(PACKERS))


def header(code, shape):
    return bytes([0, 0, code, len(shape)]) + b"".join(struct.pack(">I", size) for size in shape)


def encode(array):
    big_endian = array.astype(array.dtype.newbyteorder(">"))
    return header(CODES[array.dtype.str[1:]], array.shape) + big_endian.tobytes()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("idx") / "some-idx"


@given(array=arrays, packer=packers)
def test_every_type_shape_and_compression_comes_back_as_it_went(path, array, packer):
    path.write_bytes(PACKERS[packer](encode(array)))
    for file in (path, str(path)):
        result = read_idx(file)
        assert result.dtype == array.dtype
        assert result.dtype.isnative
        assert result.flags.writeable
        np.testing.assert_array_equal(result, array, strict=True)


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("suffix", PACKERS)
def test_the_bytes_and_not_the_name_decide_how_a_file_is_unpacked(tmp_path, packer, suffix):
    file = tmp_path / f"images{suffix}"
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    file.write_bytes(PACKERS[packer](encode(images)))
    np.testing.assert_array_equal(read_idx(file), images)


@given(array=arrays, packer=packers, data=st.data())
def test_a_file_cut_anywhere_is_refused(path, array, packer, data):
    content = PACKERS[packer](encode(array))
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(ValueError, match=r"some-idx: (.*cut short|not an IDX file)"):
        read_idx(path)


@given(array=arrays, packer=packers, data=st.data())
def test_elements_that_are_missing_are_counted_in_the_error(path, array, packer, data):
    content = encode(array)
    lost = data.draw(st.integers(0, array.nbytes))
    path.write_bytes(PACKERS[packer](content[: len(content) - lost]))
    if lost == 0:
        read_idx(path)
    else:
        left = array.nbytes - lost
        with pytest.raises(ValueError, match=rf"cut short: expected {array.nbytes} .* found {left}"):
            read_idx(path)


@given(array=arrays, packer=packers, more=st.binary(min_size=1, max_size=9))
def test_bytes_after_the_last_element_are_refused(path, array, packer, more):
    path.write_bytes(PACKERS[packer](encode(array) + more))
    with pytest.raises(ValueError, match=rf"some-idx: too long: .* {array.nbytes} bytes"):
        read_idx(path)


@pytest.mark.parametrize("packer", [".gz", ".xz"])
@settings(max_examples=30)
@given(data=st.data())
def test_a_flipped_bit_in_compressed_data_never_passes_as_other_data(path, packer, data):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)
    content = bytearray(PACKERS[packer](encode(images)))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        result = read_idx(path)
    except ValueError:
        return
    np.testing.assert_array_equal(result, images)


@given(magic=st.binary(min_size=4, max_size=4))
def test_another_magic_number_is_refused_and_shown(path, magic):
    assume(magic[:2] != b"\0\0" or magic[2] not in CODES.values())
    path.write_bytes(magic + bytes(100))
    with pytest.raises(ValueError, match=r"some-idx: (not an IDX file: .* found|the compressed data)"):
        read_idx(path)


@pytest.mark.parametrize(("shape", "expected"), [((7,), 3), ((7, 4, 4), 1), ((7, 4), 3)])
def test_labels_in_the_place_of_images_are_refused_and_so_is_the_reverse(tmp_path, shape, expected):
    file = tmp_path / "mislabelled"
    file.write_bytes(encode(np.zeros(shape, np.uint8)))
    assert read_idx(file, ndim=len(shape)).shape == shape
    with pytest.raises(ValueError, match=rf"mislabelled: expected {expected} dimension.*found {len(shape)}"):
        read_idx(file, ndim=expected)


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("shape", [(2**31, 28, 28), (2**32 - 1,) * 3, (2_000_000, 28, 28), (0, *[2**31] * 4)])
def test_a_header_that_promises_too_much_costs_no_memory(tmp_path, packer, shape):
    file = tmp_path / "greedy"
    file.write_bytes(PACKERS[packer](header(0x08, shape) + bytes(100)))

    def refuse():
        with pytest.raises(ValueError, match="greedy"):
            read_idx(file)

    # An xz file asks for 8 MB of dictionary whatever it holds.
    assert tracemalloc_peak(refuse) < 16e6


def test_reading_holds_little_more_than_the_array_itself(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20_000, 28, 28), np.uint8)
    file = tmp_path / "images"
    file.write_bytes(encode(images))
    assert tracemalloc_peak(lambda: read_idx(file)) < 1.3 * images.nbytes


def tracemalloc_peak(action):
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_idx(tmp_path / "nowhere")
