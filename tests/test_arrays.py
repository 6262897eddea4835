"""Logits of any kind: what holds them changes no answer, and no copy is made of what the kernels can read in place."""

import array
import sys
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from rows import DTYPES, assert_same, cast, make_rows

import toksample
from toksample import reference
from toksample._arrays import as_native

RNG = np.random.default_rng(4)
BATCH = make_rows(RNG, "normal", 5, 130)
ROW = BATCH[0]
PARAMS = {"temperature": 0.8, "top_k": 100, "top_p": 0.95, "seed": 11}
both = pytest.mark.parametrize("module", [toksample, reference], ids=["kernels", "reference"])


class HasArray:
    def __init__(self, held):
        self.held = held

    def __array__(self, dtype=None, copy=None):
        return self.held


class HasDlpack:
    def __init__(self, held):
        self.held = held

    def __dlpack__(self, **keywords):
        return self.held.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.held.__dlpack_device__()


class Subclass(np.ndarray):
    """Another `__getitem__` and other comparisons than an array: nothing may rely on those."""

    def __getitem__(self, key):
        raise AssertionError("rows are read in place")

    def __gt__(self, other):
        raise AssertionError("rows are read in place")


def unaligned(rows):
    memory = np.zeros(rows.nbytes + 1, np.uint8)
    view = memory[1:].view(rows.dtype).reshape(rows.shape)
    view[...] = rows
    return view


def as_memmap(rows, folder):
    path = folder / "rows.npy"
    np.save(path, rows)
    return np.load(path, mmap_mode="r")


HOLDERS = {
    "__array__": HasArray,
    "__dlpack__": HasDlpack,
    "a buffer": memoryview,
    "bytes swapped": lambda rows: rows.astype(rows.dtype.newbyteorder(">")),
    "unaligned": unaligned,
    "Fortran order": np.asfortranarray,
    "a subclass": lambda rows: rows.view(Subclass),
    "a masked array without a mask": np.ma.asarray,
    "a record's field": lambda rows: np.rec.fromarrays([rows, rows], names="a,b")["a"],
    "rows of one token more": lambda rows: np.concatenate([rows, rows[..., :1]], axis=-1)[..., :-1],
}
holders = pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS.keys())


def answers(module, logits):
    """What every function gives. Candidates take one row."""
    return (
        module.argmax(logits),
        module.softmax(logits, 0.8),
        module.log_softmax(logits, 0.8),
        *module.top_k(logits, 7),
        module.sample(logits, **PARAMS),
        module.mask_logits(logits, temperature=0.8, top_p=0.9),
    )


def assert_all_same(got, want):
    for one, other in zip(got, want, strict=True):
        assert_same(one, other)


@both
@holders
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_holder(module, hold, dtype):
    for rows in (cast(BATCH, dtype), cast(ROW, dtype)):
        held = hold(rows)
        assert_all_same(answers(module, held), answers(module, rows))
    held = hold(cast(ROW, dtype))
    assert_all_same(module.candidates(held, top_p=0.9), module.candidates(cast(ROW, dtype), top_p=0.9))


@both
@pytest.mark.parametrize("hold", [HasArray, unaligned, np.asfortranarray, lambda rows: rows.view(Subclass)])
def test_holder_of_bfloat16(module, hold):
    for rows in (cast(BATCH, "bfloat16"), cast(ROW, "bfloat16")):
        assert_all_same(answers(module, hold(rows)), answers(module, rows))


@both
def test_python_lists_are_float32(module):
    assert_all_same(answers(module, BATCH.tolist()), answers(module, BATCH))
    assert_all_same(answers(module, tuple(ROW.tolist())), answers(module, ROW))
    assert_all_same(answers(module, [*ROW]), answers(module, ROW))
    assert_all_same(answers(module, [*BATCH]), answers(module, BATCH))
    assert module.sample([1, 2, 3, False], temperature=0) == 2


@both
def test_array_module_and_memmap(module, tmp_path):
    assert_all_same(answers(module, array.array("f", ROW.tolist())), answers(module, ROW))
    assert_all_same(answers(module, array.array("d", ROW.tolist())), answers(module, ROW.astype(np.float64)))
    assert_all_same(answers(module, as_memmap(BATCH, tmp_path)), answers(module, BATCH))


@both
def test_a_mask_is_not_looked_at(module):
    """A masked array is its data; banned tokens are -inf."""
    masked = np.ma.masked_array(BATCH, mask=BATCH > 0)
    assert_all_same(answers(module, masked), answers(module, BATCH))


@both
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_matrix(module):
    assert_all_same(answers(module, np.matrix(BATCH)), answers(module, BATCH))


@both
def test_types_of_the_results(module):
    for dtype in DTYPES:
        rows = cast(BATCH, dtype)
        native = np.dtype(np.float32) if dtype == "float64" else rows.dtype
        values, ids = module.top_k(rows, 3)
        masked = module.mask_logits(rows, top_k=3)
        assert (values.dtype, ids.dtype, masked.dtype) == (native, np.int64, native)
        assert module.softmax(rows).dtype == module.log_softmax(rows).dtype == np.float32
        assert module.sample(rows).dtype == module.argmax(rows).dtype == np.int64
        assert type(module.sample(rows[0])) is type(module.argmax(rows[0])) is int
        ids, probs = module.candidates(rows[0])
        assert (ids.dtype, probs.dtype) == (np.int64, np.float64)


@both
def test_values_keep_their_bits(module):
    for dtype in ("float32", "float16", "bfloat16"):
        row = cast(np.float32([-0.0, 0.0, -0.0, 1.0, 0.0]), dtype)
        values, ids = module.top_k(row, 5)
        assert ids.tolist() == [3, 0, 1, 2, 4]
        assert_same(values, row[ids])
        assert_same(module.mask_logits(row), row)


@both
def test_float64_is_rounded_to_float32(module):
    row = np.array([1.0, 1 + 2.0**-30, 1 - 2.0**-30, 1 + 2.0**-20, -1e300])
    assert module.top_k(row, 5)[1].tolist() == [3, 0, 1, 2, 4]
    assert module.mask_logits(row).tolist() == [1, 1, 1, 1 + 2.0**-20, -np.inf]


def test_every_float16_and_bfloat16_is_its_value():
    bits = np.arange(2**16, dtype=np.uint16)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        values = bits.view(dtype)
        values = values[np.isfinite(values.astype(np.float32))]
        wide = values.astype(np.float32)
        assert_same(toksample.top_k(values, len(values))[1], toksample.top_k(wide, len(wide))[1])
        assert_same(toksample.top_k(values, len(values))[1], np.argsort(-wide, kind="stable"))
        assert_same(toksample.log_softmax(values, 3.0), toksample.log_softmax(wide, 3.0))
        for temperature in (1e-38, 0.01, 1.0, 1e4):
            assert_same(toksample.softmax(values, temperature), toksample.softmax(wide, temperature))


# ---- arrays that Rust reads itself, and those that Python makes ready ----------------------------------------------------


def read_only(rows):
    rows = rows.copy()
    rows.flags.writeable = False
    return rows


FORMS = {
    "contiguous": np.copy,
    "read-only": read_only,
    "strided": lambda rows: np.repeat(rows, 2, axis=-1)[..., ::2],
    "reversed": lambda rows: rows[..., ::-1].copy()[..., ::-1],
    "rows strided": lambda rows: np.repeat(rows, 2, axis=0)[::2],
    "rows reversed": lambda rows: rows[::-1].copy()[::-1],
    "rows repeated": lambda rows: np.broadcast_to(rows[..., :1, :], rows.shape) if rows.ndim == 2 else rows,
    "a part": lambda rows: np.pad(rows, 1)[(slice(1, -1),) * rows.ndim],
    "one token": lambda rows: rows[..., :1],
    "one token of more": lambda rows: np.pad(rows, 1)[..., 3:4],
    "no token": lambda rows: rows[..., :0],
    "no row": lambda rows: rows[:0],
    "no axis": lambda rows: np.array(rows.flat[0]),
    "three axes": lambda rows: rows.reshape(1, -1, rows.shape[-1]),
    "with a dtype's metadata": lambda rows: rows.astype(np.dtype(rows.dtype, metadata={"a": 1})),
    **{name: HOLDERS[name] for name in ("bytes swapped", "unaligned", "Fortran order", "a subclass")},
}


LONG = make_rows(RNG, "normal", 2, 1100)
CALLS = (
    lambda logits: toksample.sample(logits, temperature=0.7, top_k=50, top_p=0.9, seed=3, position=5),
    lambda logits: toksample.sample(logits, seed=3, errors="mark"),
    lambda logits: toksample.softmax(logits, 0.8),
    lambda logits: toksample.top_k(logits, 1),
    toksample.argmax,
    toksample.candidates,
)


def outcome(call, logits):
    try:
        return call(logits)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_array_is_what_python_makes_of_it(form, dtype):
    """Short and long rows, alone and in batches: read in Rust, or first made ready by Python code."""
    for rows in (ROW[:16], BATCH[:, :16], BATCH, LONG[0], LONG):
        logits = form(cast(rows, dtype))
        for call in CALLS:
            assert_same(outcome(call, logits), outcome(call, HasArray(logits)))


def test_arrays_that_can_be_read_in_place_need_no_python_code():
    called = set()

    def profile(frame, event, argument):
        called.add(frame.f_code.co_name)

    for rows in (ROW, BATCH):
        for dtype in ("float32", "float16"):
            logits = cast(rows, dtype)
            sys.setprofile(profile)
            toksample.sample(logits, seed=1)
            sys.setprofile(None)
    assert "sample" in called
    assert "as_native" not in called


def test_other_types_than_floats_are_refused():
    for dtype in (np.uint16, np.int32, np.complex64, "S4", "datetime64[s]"):
        with pytest.raises(TypeError, match="logits must be float32, float16, bfloat16 or float64, got"):
            toksample.sample(np.zeros(16, dtype))


# ---- no copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_can_be_read_in_place_is_not_copied(dtype):
    batch = cast(BATCH, dtype)
    for logits in (batch, batch[0], batch[::2], batch[::-1], batch[:, 3:77], batch[1:1], HasArray(batch)):
        held = logits.held if isinstance(logits, HasArray) else logits
        native = as_native(logits)
        assert native.__array_interface__["data"][0] == held.__array_interface__["data"][0]
        assert native.strides == held.strides
    for logits in (memoryview(BATCH), HasDlpack(BATCH)):
        assert np.shares_memory(as_native(logits), BATCH)


def test_the_kernels_never_get_an_unaligned_row():
    for dtype in ("float32", "float16", "bfloat16", "float64"):
        for rows in (cast(BATCH, dtype), cast(ROW, dtype)):
            assert not unaligned(rows).flags.aligned
            assert as_native(unaligned(rows)).flags.aligned


def test_a_call_allocates_no_copy(real_row):
    calls = {
        "sample": lambda: toksample.sample(real_row, temperature=0.7, top_k=50, top_p=0.9, seed=1),
        "argmax": lambda: toksample.argmax(real_row),
        "top_k": lambda: toksample.top_k(real_row, 50),
    }
    for name, call in calls.items():
        call()
        tracemalloc.start()
        call()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 50_000, name  # numpy's arrays are traced; a copy would be a million


# ---- torch -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def torch():
    return pytest.importorskip("torch", exc_type=ImportError)


@both
@pytest.mark.parametrize("dtype", DTYPES)
def test_torch(torch, module, dtype):
    tensor = torch.from_numpy(BATCH).to(getattr(torch, dtype))
    rows = cast(BATCH, dtype) if dtype != "float64" else BATCH.astype(np.float64)
    assert_all_same(answers(module, tensor), answers(module, rows))
    assert_all_same(answers(module, tensor[0]), answers(module, rows[0]))
    assert_all_same(answers(module, tensor.clone().requires_grad_()), answers(module, rows))
    assert_all_same(answers(module, tensor.T.contiguous().T), answers(module, rows))
    assert np.shares_memory(as_native(tensor), as_native(tensor)) or dtype == "float64"


@both
def test_torch_that_is_not_a_float(torch, module):
    with pytest.raises(TypeError, match=r"logits must be float32, float16, bfloat16 or float64, got torch.int64"):
        module.sample(torch.arange(4))


def test_torch_flushes_subnormals(torch):
    """`torch.set_flush_denormal` changes how the thread computes; the answers stay those of IEEE 754."""
    row = make_rows(np.random.default_rng(3), "denormal", 1, 500)[0]
    words = {"temperature": 1e-44, "top_p": 0.9, "position": list(range(20)), "seed": 1}
    rows = np.tile(row, (20, 1))
    want = answers(toksample, rows), toksample.sample(rows, **words)
    assert torch.set_flush_denormal(True)
    try:
        got = answers(toksample, rows), toksample.sample(rows, **words)
        still_flushed = float(torch.tensor(1e-40) * 1) == 0
    finally:
        torch.set_flush_denormal(False)
    assert still_flushed  # it was, and the call gave the thread back as it was
    assert_all_same(got[0], want[0])
    assert_same(got[1], want[1])
