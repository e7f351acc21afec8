"""The stand-in is as strict as CuPy: what would fail on a GPU, or cross to the host unseen, fails here."""

import warnings

import numpy as np
import pytest
import standin
from hypothesis import given
from hypothesis import strategies as st
from standin.arrays import CONSTANTS, FUNCTIONS, METHODS, UFUNCS

from minicvae.kernels import Reference

cp = standin.module(standin.RawModule)
HOST = np.arange(6.0).reshape(2, 3)


def device():
    return cp.asarray(HOST)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda a: np.asarray(a),
        lambda a: np.array(a),
        lambda a: np.exp(a),
        lambda a: np.concatenate([a, a]),
        lambda a: np.multiply(HOST, a),
        lambda a: HOST * a,
        lambda a: a * HOST,
        lambda a: HOST @ a.T,
        lambda a: a + np.zeros(()),
        lambda a: [1.0, 2.0, 3.0] * a,
        lambda a: a < HOST,
        lambda a: cp.exp(HOST),
        lambda a: cp.maximum(a, HOST),
        lambda a: cp.where(a > 0, HOST, a),
        lambda a: cp.concatenate([a, HOST]),
        lambda a: cp.matmul(a, HOST.T),
        lambda a: a[[0, 1]],
        lambda a: a[np.array([0, 1])],
        lambda a: a.__setitem__(0, HOST[0]),
        lambda a: a.__setitem__(..., HOST),
        lambda a: a.__iadd__(HOST),
        lambda a: HOST.__iadd__(a),
        lambda a: a.sum(where=a > 0),
        lambda a: a.max(initial=0.0),
        lambda a: float(a),
        lambda a: bool(a),
        lambda a: len(a.sum()),
        lambda a: list(a.sum()),
        lambda a: range(cp.asarray(3)),
        lambda a: {a: 1},
    ],
)
def test_a_mistake_of_numpy_code_is_refused(mistake):
    with pytest.raises((TypeError, ValueError)):
        mistake(device())


@pytest.mark.parametrize("name", ["asfarray_chkfinite", "einsum_path", "nditer", "setflags", "random", "vectorise"])
def test_what_is_not_listed_is_not_there(name):
    with pytest.raises(AttributeError):
        getattr(cp, name)
    with pytest.raises(AttributeError):
        getattr(device(), name)


def test_a_sum_and_an_element_are_arrays_and_stay_on_the_device():
    a = device()
    with standin.crossings() as crossed:
        results = a.sum(), a[0, 1], a.mean(axis=0), -a, abs(a).max(), a.sum() + 1, 2 / (1 + a)
    assert all(isinstance(r, standin.ndarray) for r in results)
    assert not crossed


@pytest.mark.parametrize("read", [lambda a: a.get(), cp.asnumpy, lambda a: a.tolist(), lambda a: f"{a.sum():.1f}"])
def test_what_crosses_to_the_host_is_counted(read):
    with standin.crossings() as crossed:
        read(device())
    assert crossed == {"to the device": 1, "to the host": 1}


def test_a_number_is_read_where_it_is_asked_for_and_counted():
    a = device()
    with standin.crossings() as crossed:
        assert (float(a.sum()), int(a.max()), bool((a >= 0).all()), a.min().item()) == (15.0, 5, True, 0.0)
        a[a > 3]  # how many there are decides about the shape
    assert crossed == {"to the host": 5}


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_fresh_memory_holds_nothing_that_could_pass_for_a_result(dtype):
    a = cp.empty((2, 3), dtype).get()
    assert np.isnan(a).all() if a.dtype.kind == "f" else (a == np.iinfo(dtype).max).all()


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=2), st.sampled_from(["float32", "float64"]))
def test_its_arithmetic_is_numpys_in_the_same_types(numbers, dtype):
    a, b = (np.array([n, 2], dtype) for n in numbers)
    x, y = cp.asarray(a), cp.asarray(b)
    for found, expected in [(x + y, a + b), (x * 0.5, a * 0.5), (1 - y, 1 - b), (x**2, a**2), (x @ y, a @ b)]:
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found.get(), expected)
    x += y
    np.testing.assert_array_equal(x.get(), a + b)
    np.testing.assert_array_equal((cp.float64(2) * y).get(), np.float64(2) * b)
    assert (np.float64(2) * y).dtype == np.float64  # a number with a type of its own is as strong as an array


def test_a_view_with_strides_may_not_leave_the_memory():
    a = device()
    np.testing.assert_array_equal(cp.lib.stride_tricks.as_strided(a, (2, 2), (24, 8)).get(), HOST[:, :2])
    with pytest.raises(ValueError, match="beyond the memory"):
        cp.lib.stride_tricks.as_strided(a, (40, 3), (24, 8))


def test_a_kernel_of_numpy_code_is_caught():
    class Stray(Reference):
        def activate(self, h, activation):
            return np.maximum(np.asarray(h), 0)

    kernels = Stray(cp)
    with pytest.raises(TypeError, match="Implicit conversion to a NumPy array"):
        kernels.dense([device()], cp.zeros((3, 2)), cp.zeros(2), "relu")


def test_cupy_has_all_that_the_stand_in_offers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy warns where there is no GPU
        cupy = pytest.importorskip("cupy", reason="CuPy is not installed to compare the stand-in with")
    if not hasattr(cupy, "show_config"):
        pytest.skip("the stand-in itself")
    assert [name for name in UFUNCS + FUNCTIONS + CONSTANTS if not hasattr(cupy, name)] == []
    assert [name for name in METHODS if not hasattr(cupy.ndarray, name)] == []
    assert isinstance(cupy.exp, cupy.ufunc)
    assert all(isinstance(getattr(cupy, name), cupy.ufunc) for name in UFUNCS)
    assert hasattr(cupy.lib.stride_tricks, "as_strided")
