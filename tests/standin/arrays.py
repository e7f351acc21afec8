"""CuPy without a GPU: an array module as strict as CuPy is, with NumPy's memory behind it.

The differences that break code which only ever saw NumPy:

* a NumPy array never becomes one of the device but by `asarray` or `array`, and a device array never one of the host
  but by `get`, `asnumpy`, or as a single number (`item`, `float`, `int`, `bool`); anything else is a TypeError;
* both crossings are counted (`CROSSINGS`), so that a test can ask for none;
* a sum is an array of no dimensions, not a number, and a list is no index;
* only what stands in `FUNCTIONS` and `METHODS` is there, and only the arguments that CuPy takes;
* fresh memory holds NaN, or the largest integer, and so does the memory beside it.
"""

import time
from collections import Counter
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import numpy as np

LAUNCHED = Counter()  # graphs
CROSSINGS = Counter()  # "to the device" and "to the host"


def listed(names):
    return names.split()


UFUNCS = listed(
    "abs add divide equal exp expm1 floor isfinite isnan log log1p log2 maximum minimum multiply negative power sign "
    "sqrt square subtract tanh"
)
# What CuPy 14 shares with NumPy and the library may use; `test_stand_in.py` holds the lists to CuPy where it is there.
FUNCTIONS = listed(
    "arange ascontiguousarray broadcast_to clip concatenate count_nonzero empty empty_like full isclose matmul mean "
    "ones ones_like pad stack sum take tensordot tile where zeros zeros_like"
)
METHODS = listed(
    "all any argmax argmin astype clip copy cumsum dot fill max mean min prod ravel repeat reshape squeeze std sum "
    "swapaxes take transpose var view"
)
PRODUCTS = ("matmul", "dot", "tensordot", "__matmul__", "__rmatmul__", "__imatmul__")  # what cuBLAS does
FRESH = ("ascontiguousarray", "copy", "zeros", "zeros_like")  # what gives memory of its own
CONSTANTS = ["bool_", "float32", "float64", "inf", "int32", "int64", "nan", "newaxis", "pi", "uint8"]
PAD = 64  # numbers beside the memory of an array, which nobody may write to
NOT_IN_CUPY = {"where", "initial", "subok", "like", "keepdim"}  # arguments that NumPy has and CuPy lacks


def crossed(direction):
    if tape.recording:
        raise RuntimeError(f"cudaErrorStreamCaptureUnsupported: something goes {direction} while a graph is recorded")
    CROSSINGS[direction] += 1


@contextmanager
def crossings():
    """Counts what crosses within the block, by direction."""
    before, within = CROSSINGS.copy(), Counter()
    try:
        yield within
    finally:
        within.update(CROSSINGS - before)


def peer(x):
    """What NumPy shall see of an argument: a device array's memory, or a number; TypeError for an array of the host."""
    if isinstance(x, ndarray):
        return x._held
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {np.ndarray}: a NumPy array of shape {x.shape} meets device arrays")
    if isinstance(x, (tuple, list)):
        return type(x)(peer(part) for part in x)
    return x


class Tape:
    """What a stream records: each result with what has to be done to have it anew.

    A stream carries nothing out while it records. Here all is carried out, for shapes and types, and undone afterwards.
    """

    def __init__(self):
        self.recording, self.entries, self.before = False, [], {}

    def begin(self):
        self.recording, self.entries, self.before = True, [], {}

    def end(self):
        """What was recorded; all memory is as it was."""
        self.recording = False
        for whole, content in self.before.values():
            whole[...] = content
        return self.entries

    def will_change(self, held):
        """Has to be called before something is written to this memory."""
        whole = held
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        if self.recording and id(whole) not in self.before:
            self.before[id(whole)] = whole, whole.copy()

    def keep(self, result, carry_out):
        """`result`, which `carry_out` gives anew, or None where a kernel will fill it."""
        if self.recording:
            self.entries.append((result, carry_out))
        return result

    def refuse_cublas(self):
        if self.recording:
            raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")


tape = Tape()


class Graph:
    """A CUDA graph: does again what was recorded, in the same memory."""

    def __init__(self, entries):
        self._entries = entries
        for result, _ in entries:  # of what the recording itself has computed nothing may be used
            if isinstance(result, ndarray) and result.dtype.kind == "f":
                owns = result._held.base is None or isinstance(result._held.base, Fenced)
                result._held.fill(np.nan) if owns else None

    def launch(self, stream=None):
        LAUNCHED["graph"] += 1
        for result, carry_out in self._entries:
            anew = carry_out() if carry_out else None
            if isinstance(result, ndarray) and anew is not None and not np.shares_memory(anew, result._held):
                result._held[...] = anew


class Stream:
    """`cupy.cuda.Stream`, which is current inside `with`. `WAITED` says which waits for which, by `ptr`."""

    def __init__(self, null=False, non_blocking=False, ptds=False):
        self.ptr = 0 if null else id(self)

    def __enter__(self):
        CURRENT.append(self)
        return self

    def __exit__(self, *error):
        CURRENT.pop()

    def begin_capture(self, mode=None):
        assert CURRENT[-1] is self
        tape.begin()

    def end_capture(self):
        return Graph(tape.end())

    def record(self, event=None):
        return self

    def wait_event(self, event):
        WAITED.append((self.ptr, event.ptr))


WAITED = []
CURRENT = [Stream(null=True)]


class Event:
    """`cupy.cuda.Event`."""

    def record(self, stream=None):
        self.time = time.perf_counter()

    def synchronize(self):
        pass


class MemoryPool:
    def malloc(self, size):
        raise NotImplementedError("the stand-in has no memory of its own")


@contextmanager
def using_allocator(allocator=None):
    assert callable(allocator)
    yield


def refuse_lists(args):
    for x in args:
        if isinstance(x, (tuple, list)):
            raise TypeError(f"Unsupported type {type(x)}")


def wrapped(x):
    """The result of a NumPy call, on the device; a number becomes an array of no dimensions."""
    if isinstance(x, (np.ndarray, np.generic)):
        return ndarray(np.asarray(x))
    return tuple(wrapped(part) for part in x) if isinstance(x, (tuple, list)) else x


class Fenced(np.ndarray):
    """Memory with `PAD` numbers to spare on either side; fence: the bytes that have to stay there."""


def fenced(shape, dtype):
    """An array full of what a computation must not read, with as much of it on either side."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64))
    whole = np.empty(size + 2 * PAD, dtype).view(Fenced)
    whole.fill(np.nan if dtype.kind in "fc" else np.iinfo(dtype).max if dtype.kind in "iu" else True)
    whole.fence = whole[: 2 * PAD].tobytes()
    return whole[PAD : PAD + size].reshape(shape).view(np.ndarray)


def kept(values, dtype=None):
    """A fenced copy."""
    values = np.asarray(values, dtype)
    copy = fenced(values.shape, values.dtype)
    copy[...] = values
    return copy


def offered(function, name):
    """A NumPy function, called with device arrays and with CuPy's arguments only."""

    def call(*args, **kwargs):
        if lacking := NOT_IN_CUPY & set(kwargs):
            raise TypeError(f"{name}() got an unexpected keyword argument {lacking.pop()!r}")
        if name in UFUNCS:
            refuse_lists(args)
        out = kwargs.get("out")

        def carry_out():
            return function(*map(peer, args), **{key: peer(value) for key, value in kwargs.items()})

        if name in PRODUCTS:
            tape.refuse_cublas()
        if name in ("concatenate", "stack") and tape.recording:
            raise RuntimeError(f"cudaErrorStreamCaptureUnsupported: {name} may upload the addresses of its arrays")
        if out is not None:
            tape.will_change(peer(out))
        result = carry_out()
        if out is not None:
            tape.keep(None, carry_out)
            return out
        if name.startswith("empty"):
            return tape.keep(ndarray(fenced(result.shape, result.dtype)), None)
        return tape.keep(ndarray(kept(result)) if name in FRESH else wrapped(result), carry_out)

    call.__name__ = name
    return call


class ndarray:  # noqa: N801 - the name that errors show
    """An array of the device."""

    __slots__ = ("_held", "base")
    __array_ufunc__ = None  # NumPy leaves an operator to this class, which refuses NumPy's arrays

    def __init__(self, held, base=None):
        self._held, self.base = held, base

    def __array__(self, *args, **kwargs):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    shape, ndim, size = (property(lambda self, n=n: getattr(self._held, n)) for n in ("shape", "ndim", "size"))
    dtype, nbytes, itemsize = (
        property(lambda self, n=n: getattr(self._held, n)) for n in ("dtype", "nbytes", "itemsize")
    )
    strides = property(lambda self: self._held.strides)
    T = property(lambda self: ndarray(self._held.T))
    flags = property(
        lambda self: SimpleNamespace(
            c_contiguous=self._held.flags.c_contiguous,
            f_contiguous=self._held.flags.f_contiguous,
            owndata=self._held.flags.owndata,
        )
    )
    data = property(lambda self: SimpleNamespace(ptr=self._held.ctypes.data))

    # To the host

    def get(self):
        crossed("to the host")
        return self._held.copy()

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def __float__(self):
        return float(self.get())

    def __int__(self):
        return int(self.get())

    def __bool__(self):
        return bool(self.get())

    def __repr__(self):
        return f"device {self.get()!r}"

    def __format__(self, form):
        return format(self.item(), form)

    # Elements

    def __len__(self):
        if self.ndim == 0:
            raise TypeError("len() of unsized object")
        return len(self._held)

    def __iter__(self):
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):
        where = self._index(index)
        found = self._held[where]
        root = self if self.base is None else self.base
        view = ndarray(found, root if np.may_share_memory(found, self._held) else None)
        return tape.keep(view, lambda: self._held[where])

    def __setitem__(self, index, value):
        where = self._index(index)
        tape.will_change(self._held)
        self._held[where] = peer(value)
        tape.keep(None, lambda: self._held.__setitem__(where, peer(value)))

    @staticmethod
    def _index(index):
        """An index as NumPy takes it; the dots make a view even of a single number."""
        parts = index if isinstance(index, tuple) else (index,)
        for part in parts:
            if isinstance(part, (list, np.ndarray)):
                raise TypeError(f"an index of the type {type(part).__name__}, which lies on the host")
            if isinstance(part, ndarray) and part.dtype == bool:
                crossed("to the host")  # how many are true decides about the shape
        parts = tuple(part if part is None or part is ... else peer(part) for part in parts)
        return parts if any(part is ... for part in parts) else (*parts, ...)

    def __getattr__(self, name):
        if name not in METHODS:
            raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r}, or the stand-in does not know it")
        if name == "fill":
            tape.will_change(self._held)
        return offered(getattr(self._held, name), name)

    __hash__ = None


def operator(name):
    def call(self, other):
        refuse_lists([other])
        if name in PRODUCTS:
            tape.refuse_cublas()
        result = getattr(self._held, name)(peer(other))
        if result is NotImplemented:
            return result
        return tape.keep(wrapped(result), lambda: getattr(self._held, name)(peer(other)))

    return call


def in_place(name):
    def call(self, other):
        refuse_lists([other])
        tape.will_change(self._held)

        def carry_out():
            getattr(self._held, name)(peer(other))

        carry_out()
        tape.keep(None, carry_out)
        return self

    return call


def unary(name):
    def call(self):
        return tape.keep(wrapped(getattr(self._held, name)()), lambda: getattr(self._held, name)())

    return call


for word in ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"]:
    setattr(ndarray, f"__{word}__", operator(f"__{word}__"))
    setattr(ndarray, f"__r{word}__", operator(f"__r{word}__"))
    setattr(ndarray, f"__i{word}__", in_place(f"__i{word}__"))
for word in ["lt", "le", "eq", "ne", "gt", "ge"]:
    setattr(ndarray, f"__{word}__", operator(f"__{word}__"))
for word in ["neg", "pos", "abs", "invert"]:
    setattr(ndarray, f"__{word}__", unary(f"__{word}__"))


def array(values, dtype=None, copy=True):
    """A copy on the device, of an array of either side, a list or a number."""
    if isinstance(values, ndarray):
        return values if not copy and dtype in (None, values.dtype) else ndarray(kept(values._held, dtype))
    crossed("to the device")
    return ndarray(kept(values, dtype))


def asarray(values, dtype=None):
    return array(values, dtype, copy=False)


def asnumpy(a):
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def as_strided(x, shape, strides):
    """A view with those strides, which may not reach beyond the memory that x is a view of."""
    held = x._held
    reach = sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    whole = held
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    last = held.ctypes.data + reach + held.itemsize
    if min(strides) < 0 or last > whole.ctypes.data + whole.nbytes:
        raise ValueError(f"as_strided: the view {shape} with strides {strides} reaches beyond the memory of x")
    return ndarray(np.lib.stride_tricks.as_strided(held, shape, strides))


class CUDARuntimeError(RuntimeError):
    """What CuPy's calls of the driver raise."""


def module(raw_module):
    """The module `cupy`, with that compiler of kernels."""
    cupy = ModuleType("cupy")
    for name in UFUNCS + FUNCTIONS:
        setattr(cupy, name, offered(getattr(np, name), name))
    for name in CONSTANTS:
        setattr(cupy, name, getattr(np, name))
    for thing in (ndarray, array, asarray, asnumpy):
        setattr(cupy, thing.__name__, thing)
    cupy.lib = SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=as_strided))
    cupy.cuda = SimpleNamespace(
        runtime=SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            getDeviceCount=lambda: 1,
            getDeviceProperties=lambda device: {"name": b"a GPU's stand-in", "multiProcessorCount": 1},
            runtimeGetVersion=lambda: 12090,
            driverGetVersion=lambda: 13000,
        ),
        Device=lambda: SimpleNamespace(synchronize=lambda: None),
        Stream=Stream,
        Event=Event,
        get_elapsed_time=lambda begin, end: 1e3 * (end.time - begin.time),
        get_current_stream=lambda: CURRENT[-1],
        MemoryPool=MemoryPool,
        using_allocator=using_allocator,
    )
    cupy.RawModule = raw_module
    cupy.__version__ = "0"
    return cupy
