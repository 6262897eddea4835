"""Logits of any kind: the container never changes the answer, and what the kernels can read in place is not copied."""

import array
import ctypes
import datetime
import itertools
import sys
import tracemalloc
import warnings
from decimal import Decimal
from fractions import Fraction
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rows import DTYPES, assert_same, cast, generators, make_rows

import toksample
from toksample import reference
from toksample._arrays import as_native

RNG = np.random.default_rng(4)
BATCH = make_rows(RNG, "normal", 5, 130)
ROW = BATCH[0]
PARAMS = {"temperature": 0.8, "top_k": 100, "top_p": 0.95, "seed": 11}
SHAPES = "logits must be of shape (V,) or (B, V)"
LAST_STEP = ": for the last step of each row, write logits[:, -1]"
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
    """An array whose `__getitem__` and comparisons differ from those of other arrays, so that nothing may rely on them."""

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
    "a record's field": lambda rows: np.rec.fromarrays([rows, rows], names="a,b")["a"],
    "rows of one token more": lambda rows: np.concatenate([rows, rows[..., :1]], axis=-1)[..., :-1],
}
holders = pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS.keys())


def answers(module, logits):
    """Return the answers of every function that returns arrays of the shape of the logits."""
    return (
        module.argmax(logits),
        module.softmax(logits, 0.8),
        module.log_softmax(logits, 0.8),
        *module.top_k(logits, 7),
        module.sample(logits, **PARAMS),
        module.mask_logits(logits, temperature=0.8, top_p=0.9),
    )


def outcome(call, logits):
    try:
        return call(logits)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


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
def test_lists_of_numbers_are_float64(module):
    assert_all_same(answers(module, BATCH.tolist()), answers(module, BATCH.astype(np.float64)))
    assert_all_same(answers(module, tuple(ROW.tolist())), answers(module, ROW.astype(np.float64)))
    for dtype in DTYPES:
        row = cast(ROW, dtype)
        assert_all_same(answers(module, [*row]), answers(module, row.astype(np.float64)))
        assert_all_same(answers(module, [*map(np.array, row)]), answers(module, row.astype(np.float64)))
    assert module.sample([1, 2, 3, False], temperature=0) == 2
    assert module.argmax([Fraction(1, 3), Decimal("0.4"), np.float16(0.25), np.longdouble(0.3), 0]) == 1


@both
@pytest.mark.parametrize("dtype", DTYPES)
def test_lists_of_rows_keep_their_type(module, dtype):
    batch = cast(BATCH, dtype)
    for rows in ([*batch], (*batch,), [*map(HasArray, batch)], [*batch.astype(batch.dtype.newbyteorder("="))]):
        assert_all_same(answers(module, rows), answers(module, batch))
    if dtype not in ("bfloat16", "float16"):  # array.array does not have these types
        rows = [array.array(batch.dtype.char, row.tolist()) for row in batch]
        assert_all_same(answers(module, rows), answers(module, batch))
    if dtype != "bfloat16":
        assert_all_same(answers(module, [*batch.astype(batch.dtype.newbyteorder(">"))]), answers(module, batch))


@both
@pytest.mark.parametrize(
    ("logits", "error"),
    [
        ([np.float32([1, 2]), np.float16([1, 2])], "Type rows of one dtype, got float32 in row 0 and float16 in row 1"),
        ([cast(ROW, "bfloat16"), ROW], "Type rows of one dtype, got bfloat16 in row 0 and float32 in row 1"),
        ([np.float32([1]), [1.0]], "Type rows of one dtype, got float32 in row 0 and float64 in row 1"),
        ([ROW, ROW, ROW[1:]], "Value rows of one length, got shape (130,) in row 0 and (129,) in row 2"),
        ([[1.0, 2.0], [1.0]], "Value rows of one length, got shape (2,) in row 0 and (1,) in row 1"),
        ([[], [1.0]], "Value rows of one length, got shape (0,) in row 0 and (1,) in row 1"),
    ],
)
def test_lists_of_different_rows(module, logits, error):
    kind, text = error.split(" ", 1)
    assert outcome(module.argmax, logits) == f"{kind}Error: logits must have {text}"


@both
def test_lists_that_are_not_logits(module):
    endless = []
    endless.append(endless)
    not_numbers = "TypeError: logits must be an array, got a list not made of numbers: it holds a"
    for logits, text in {
        "numbers and rows": ([1.0, [2.0]], "TypeError: logits must be numbers or rows of them, got a list of both"),
        "arrays and numbers": ([ROW, 2.0], "TypeError: logits must be numbers or rows of them, got a list of both"),
        "integers": ([np.arange(3)], "TypeError: logits must be float32, float16, bfloat16 or float64, got int64"),
        "strings": (["1.5"], f"{not_numbers} str"),
        "an array of a string": ([np.array("1.5"), 2j], f"{not_numbers} str_"),
        "complex": ([1.0, 2j], f"{not_numbers} complex"),
        "times": ([np.datetime64(0, "s")], f"{not_numbers} datetime64"),
        "nothing": ([1.0, None], f"{not_numbers} NoneType"),
        "batches": ([BATCH], f"ValueError: {SHAPES}, got shape (1, 5, 130){LAST_STEP}"),
        "deep": ([[[[1.0]]]], f"ValueError: {SHAPES}, got lists nested more than 3 deep"),
        "endless": (endless, f"ValueError: {SHAPES}, got lists nested more than 3 deep"),
        "empty": ([], "ValueError: logits must have 1 to 4194304 tokens a row, got shape (0,)"),
        "an empty row": ([[]], "ValueError: logits must have 1 to 4194304 tokens a row, got shape (1, 0)"),
    }.values():
        assert outcome(module.argmax, logits) == text


@both
def test_array_module_and_memmap(module, tmp_path):
    assert_all_same(answers(module, array.array("f", ROW.tolist())), answers(module, ROW))
    assert_all_same(answers(module, array.array("d", ROW.tolist())), answers(module, ROW.astype(np.float64)))
    assert_all_same(answers(module, as_memmap(BATCH, tmp_path)), answers(module, BATCH))


@both
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_masked_array_is_refused(module, dtype):
    """A masked array is also refused if nothing is masked, because whether a call works should not depend on that."""
    masked = np.ma.masked_array(cast(BATCH, dtype), mask=BATCH > 0)
    whole = np.ma.asarray(cast(BATCH, dtype))
    assert whole.mask is np.ma.nomask
    for logits in (masked, whole, masked[0], HasArray(masked), [*masked], (masked[0], BATCH[0]), [1.0, np.ma.masked]):
        for function in (
            module.sample,
            module.argmax,
            module.softmax,
            module.mask_logits,
            lambda x: module.top_k(x, 1),
        ):
            assert outcome(function, logits) == (
                "TypeError: logits must be an array without a mask, got a MaskedArray: "
                "write logits.filled(-np.inf) to ban the masked tokens"
            )
    assert_all_same(answers(module, masked.filled(-np.inf)), answers(module, np.where(BATCH > 0, -np.inf, masked.data)))


@both
@pytest.mark.parametrize("form", [np.copy, memoryview, np.ndarray.tolist, lambda x: HasArray(x.astype(">f8"))])
def test_a_third_axis(module, form):
    for function in (module.sample, module.argmax, module.softmax, module.mask_logits, lambda x: module.top_k(x, 1)):
        text = f"ValueError: {SHAPES}, got shape (2, 3, 5){LAST_STEP}"
        assert outcome(function, form(np.zeros((2, 3, 5)))) == text
        assert outcome(function, form(np.zeros((1, 1, 1, 2)))).startswith(f"ValueError: {SHAPES}, got ")
    with pytest.raises(ValueError, match=r"got shape \(\)$"):
        module.argmax(np.float32(1))


@both
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_matrix(module):
    assert_all_same(answers(module, np.matrix(BATCH)), answers(module, BATCH))


@both
def test_types_of_the_results(module):
    for dtype in DTYPES:
        rows = cast(BATCH, dtype)
        values, ids = module.top_k(rows, 3)
        masked = module.mask_logits(rows, top_k=3)
        assert (values.dtype, ids.dtype, masked.dtype) == (rows.dtype, np.int64, rows.dtype)
        assert module.softmax(rows).dtype == module.log_softmax(rows).dtype == np.float32
        assert module.sample(rows).dtype == module.argmax(rows).dtype == np.int64
        assert type(module.sample(rows[0])) is type(module.argmax(rows[0])) is int
        ids, probs = module.candidates(rows[0])
        assert (ids.dtype, probs.dtype) == (np.int64, np.float64)


@both
def test_values_keep_their_bits(module):
    for dtype in DTYPES:
        row = cast(np.float32([-0.0, 0.0, -0.0, 1.0, 0.0]), dtype)
        values, ids = module.top_k(row, 5)
        assert ids.tolist() == [3, 0, 1, 2, 4]
        assert_same(values, row[ids])
        assert_same(module.mask_logits(row), row)


# ---- float64 -----------------------------------------------------------------------------------------------------------

_float64 = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-50, 50),
    st.integers(-3, 3).map(lambda steps: 1e8 + steps * 2.0**-26),
    st.integers(-3, 3).map(lambda steps: steps * 2.0**-149),
    st.sampled_from([-np.inf, 0.0, -0.0, 1.0, 1 + 2.0**-52, 1e39, -1e39, 5e-324, -5e-324, 1.7e308, -1.7e308]),
)
float64_rows = hnp.arrays(np.float64, st.integers(1, 40), elements=_float64, fill=st.nothing()).filter(
    lambda row: bool(np.any(row > -np.inf))
)


def true_softmax(row, temperature=1.0):
    """Return the softmax in numpy's widest type. Differences are clipped to the range of float32."""
    wide = row.astype(np.longdouble)
    weights = np.exp(np.maximum(wide - wide.max(), -np.finfo(np.float32).max) / temperature)
    weights[row == -np.inf] = 0
    return weights / weights.sum()


@both
@given(row=float64_rows, temperature=st.sampled_from([0.3, 1.0, 2.5, 1e4]))
def test_float64_rows_mean_what_they_say(module, row, temperature):
    assert module.argmax(row) == np.argmax(row)
    want = true_softmax(row, temperature)
    got = module.softmax(row, temperature)
    assert np.all(np.abs(got - want) <= 1e-5 * want + 1e-12)
    assert np.abs(got - want).sum() / 2 <= 2e-6
    for k in {1, (len(row) + 1) // 2, len(row)}:
        ids = np.lexsort((np.arange(len(row)), -row))[:k]
        assert_same(module.top_k(row, k), (row[ids], ids))
    masked = module.mask_logits(row, temperature=temperature, top_p=0.9)
    kept = masked > -np.inf
    assert_same(masked, np.where(kept, row, -np.inf))
    assert_same(np.sort(module.candidates(row, temperature=temperature, top_p=0.9)[0]), np.flatnonzero(kept))


@given(row=float64_rows)
def test_float64_is_rounded_after_the_maximum_is_subtracted(row):
    native, sources, _ = as_native(row)
    assert sources[0] is row
    assert native.dtype == np.float32
    assert_same(native == 0, row == row.max())
    assert_same(native == -np.inf, row == -np.inf)
    with np.errstate(over="ignore"):
        distance = np.maximum(row - row.max(), -float(np.finfo(np.float32).max))
    right = distance.astype(np.float32)
    right[(right == 0) & (row < row.max())] = -(2.0**-149)
    right[row == -np.inf] = -np.inf
    assert_same(native == right, np.ones(len(row), bool))


@given(rng=generators, rows=st.integers(1, 5), size=st.integers(1, 70))
def test_float64_in_every_form(rng, rows, size):
    batch = np.where(
        rng.random((rows, size)) < 0.2, -np.inf, rng.normal(size=(rows, size)) * 10.0 ** rng.integers(-320, 308)
    )
    batch[:, 0] = rng.normal(size=rows)
    want = np.stack([as_native(row)[0] for row in batch])
    for form in (np.asfortranarray, unaligned, lambda x: x.astype(">f8"), lambda x: np.repeat(x, 3, axis=1)[:, ::3]):
        assert_same(as_native(form(batch))[0], want)
    assert_same(as_native(batch.tolist())[0], want)
    assert as_native(batch.tolist())[1] == []


@both
def test_float64_where_float32_would_be_wrong(module):
    np.testing.assert_allclose(module.softmax([1e8 + 1, 1e8]), [0.7310586, 0.2689414], rtol=1e-6)
    assert module.softmax([1, 1, 1e100]).tolist() == [0, 0, 1]
    assert module.softmax([1.7e308, -1.7e308]).tolist() == [1, 0]
    assert module.mask_logits([-1e39, 0.0]).tolist() == [-1e39, 0.0]
    assert module.candidates([-1e39, 0.0])[0].tolist() == [1, 0]
    assert module.argmax([0.0, 5e-324]) == 1
    assert module.top_k([1.0, 1 + 2.0**-52, 1 - 2.0**-53], 3)[1].tolist() == [1, 0, 2]
    assert module.top_k(np.array([-1e300, -1e299, 0.0]), 2)[1].tolist() == [2, 1]  # both are the lowest float32


@both
@pytest.mark.parametrize(
    ("row", "text"),
    [
        ([0.0, 1e39, np.nan, np.inf], "be finite or -inf, got nan at id 2"),
        ([-1e300, -np.inf, np.inf, np.nan], "be finite or -inf, got inf at id 2"),
        ([np.nan, 0.0], "be finite or -inf, got nan at id 0"),
        ([-np.inf, -np.inf], "have a finite value, got only -inf"),
    ],
)
def test_float64_rows_without_an_answer(module, row, text):
    for call in (
        module.sample,
        module.argmax,
        module.softmax,
        module.mask_logits,
        lambda logits: module.top_k(logits, 1),
    ):
        assert outcome(call, np.array(row)) == f"ValueError: logits must {text}"
    good = np.zeros((2, len(row)))
    good[:, 1] = 9
    tokens = module.sample(np.stack([good[0], row, good[1]]), errors="mark", temperature=0)
    assert tokens.tolist() == [1, -1, 1]


def test_no_warning_comes_of_a_conversion():
    rows = np.array(
        [[np.nan, 1e308, -1e308], [np.inf, -np.inf, 0], [-np.inf] * 3, [5e-324, 0, 1e-320], [-1.7e308, 1.7e308, 1]]
    )
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        as_native(rows)
        toksample.top_k(rows[3:], 2)
        toksample.mask_logits(rows[3:])


def test_float64_is_copied_once():
    batch = np.random.default_rng(0).normal(size=(32, 2**17))
    as_native(batch)
    tracemalloc.start()
    as_native(batch)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.75 * batch.nbytes  # the result is half of it


def test_every_float16_and_bfloat16_is_its_value():
    bits = np.arange(2**16, dtype=np.uint16)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        values = bits.view(dtype)
        values = values[np.isfinite(values.astype(np.float32))]
        wide = values.astype(np.float32)
        assert_same(toksample.top_k(values, len(values))[1], toksample.top_k(wide, len(wide))[1])
        assert_same(toksample.top_k(values, len(values))[1], np.argsort(-wide, kind="stable"))
        assert_same(toksample.log_softmax(values, 3.0), toksample.log_softmax(wide, 3.0))
        for temperature in (1e-30, 0.01, 1.0, 1e4):
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


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_array_is_what_python_makes_of_it(form, dtype):
    """Short and long rows, alone and in batches, give the same answers whether Rust reads them or Python converts them."""
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
        native, (source,), _ = as_native(logits)
        assert native is source
        assert type(native) is np.ndarray
        assert native.__array_interface__["data"][0] == held.__array_interface__["data"][0]
        assert native.strides == held.strides
    for logits in (memoryview(BATCH), HasDlpack(BATCH)):
        assert np.shares_memory(as_native(logits)[0], BATCH)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_source_is_the_callers_own_memory(dtype):
    """Whatever is converted, the caller's memory is known, because `out` must not share it."""
    memory = np.zeros((10, 260), cast(BATCH, dtype).dtype)
    swapped = np.zeros((10, 260), memory.dtype.newbyteorder(">")) if dtype != "bfloat16" else memory
    forms = [memory, memory[::2, ::2], memory.T, memory[:, ::-1], swapped, unaligned(memory), memory.view(Subclass)]
    for held, hold in itertools.product(forms, (lambda held: held, HasArray)):
        native, (source,), _ = as_native(hold(held))
        assert type(native) is type(source) is np.ndarray
        assert native.dtype.isnative
        assert native.flags.aligned
        assert native.strides[-1] == native.itemsize
        assert np.shares_memory(source, held)
    if dtype != "bfloat16":
        assert np.shares_memory(as_native(HasDlpack(memory[:, ::2]))[1][0], memory)
    assert [np.shares_memory(source, memory) for source in as_native([*memory])[1]] == [True] * len(memory)
    assert as_native([1.0, 2.0])[1] == []


def test_the_kernels_never_get_an_unaligned_row():
    for dtype in ("float32", "float16", "bfloat16", "float64"):
        for rows in (cast(BATCH, dtype), cast(ROW, dtype)):
            assert not unaligned(rows).flags.aligned
            assert as_native(unaligned(rows))[0].flags.aligned


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
        assert peak < 50_000, name  # numpy's allocations are traced, and a copy would take a million


# ---- what is not installed, or only in part ------------------------------------------------------------------------------


def test_torch_may_be_half_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    for logits in (BATCH.tolist(), HasArray(BATCH), [*cast(BATCH, "bfloat16")]):
        answers(toksample, logits)


@both
def test_bfloat16_without_ml_dtypes(module, monkeypatch):
    """Only results that are bfloat16 logits need ml_dtypes. Tokens and probabilities do not."""
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    logits, rows = HasBfloat16(BATCH, False), cast(BATCH, "bfloat16")
    assert_same(module.sample(logits, **PARAMS), module.sample(rows, **PARAMS))
    assert_same(module.softmax(logits), module.softmax(rows))
    for function in (module.mask_logits, lambda logits: module.top_k(logits, 1)):
        text = "TypeError: a result in bfloat16 needs the package ml_dtypes: pip install ml_dtypes"
        assert outcome(function, logits) == text


# ---- DLPack ------------------------------------------------------------------------------------------------------------


class HasBfloat16:
    """Exports bfloat16 through either version of the protocol, as JAX and others do."""

    def __init__(self, rows, versioned):
        self.bits, self.versioned = cast(rows, "bfloat16").view(np.uint16), versioned

    def __dlpack_device__(self):
        return (1, 0)

    def __dlpack__(self, **keywords):
        versioned = self.versioned and keywords.get("max_version") is not None
        capsule = self.bits.__dlpack__(**(keywords if versioned else {}))
        set_dtype_code(capsule, b"dltensor_versioned" if versioned else b"dltensor", 4)
        return capsule


def set_dtype_code(capsule, name, code):
    """Change the type in a capsule. The offsets are those of `DLTensor.dtype` in the two structures of dlpack.h."""
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    offset = {b"dltensor": 20, b"dltensor_versioned": 52}[name]
    ctypes.c_uint8.from_address(pointer_of(capsule, name) + offset).value = code


# numpy learned the versioned form in 2.1.
versions = pytest.mark.parametrize(
    "versioned", [False, True] if np.lib.NumpyVersion(np.__version__) >= "2.1.0" else [False]
)


@both
@versions
def test_bfloat16_by_dlpack(module, versioned):
    for rows in (BATCH, ROW, BATCH[:0], BATCH[::2], BATCH[:, ::2], BATCH[::-1]):
        assert_all_same(answers(module, HasBfloat16(rows, versioned)), answers(module, cast(rows, "bfloat16")))
    with pytest.raises((RuntimeError, BufferError)):
        np.from_dlpack(HasBfloat16(ROW, versioned))  # shows that it is bfloat16, because numpy itself cannot read it


@versions
def test_bfloat16_by_dlpack_is_not_copied(versioned):
    held = HasBfloat16(BATCH, versioned)
    native, (source,), _ = as_native(held)
    assert native is source
    assert native.dtype == np.uint16
    assert np.shares_memory(native, held.bits)
    before = sys.getrefcount(held.bits)
    del native, source
    after = sys.getrefcount(held.bits)
    assert after == before - 1  # the capsule's own destructor has run


@both
def test_integers_by_dlpack_are_not_taken_for_bfloat16(module):
    for dtype in (np.uint16, np.int16, np.int32):
        logits = HasDlpack(np.zeros(4, dtype))
        text = f"TypeError: logits must be float32, float16, bfloat16 or float64, got {np.dtype(dtype)}"
        assert outcome(module.argmax, logits) == text


def test_what_is_not_bfloat16_in_dlpack_stays_as_it_is():
    relabel = toksample._native.bfloat16_as_bits
    for thing in (None, 5, np.float32([1]), np.float32([1]).__dlpack__(), datetime.datetime_CAPI):
        assert relabel(thing) is False
    capsule = HasBfloat16(ROW, False).__dlpack__()
    assert relabel(capsule) is True
    assert relabel(capsule) is False


class Refuses(HasDlpack):
    def __init__(self, held, error):
        super().__init__(held)
        self.error = error

    def __dlpack__(self, **keywords):
        raise self.error

    def __dlpack_device__(self):
        return (1, 0)


class RefusesButHasArray(Refuses):
    def __array__(self, dtype=None, copy=None):
        return self.held


class RefusesAll(Refuses):
    def __array__(self, dtype=None, copy=None):
        raise ValueError("no array either")


ERRORS = [
    RuntimeError,
    NotImplementedError,
    BufferError,
    TypeError,
    ValueError,
    OverflowError,
    AttributeError,
    RecursionError,
]


@both
@pytest.mark.parametrize("error", ERRORS)
def test_a_protocol_that_fails(module, error):
    assert_all_same(answers(module, RefusesButHasArray(ROW, error("no"))), answers(module, ROW))
    for cls in (Refuses, RefusesAll):
        with pytest.raises(TypeError, match=f"^logits must be an array, got {cls.__name__}: not today$") as caught:
            module.argmax(cls(ROW, error("not today")))
        assert type(caught.value.__cause__) is error


@both
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_is_not_about_the_logits_passes(module, error):
    class Number:
        ndim = 0

        def __float__(self):
            raise error

    for logits in (RefusesButHasArray(ROW, error()), [Number()]):
        with pytest.raises(error):
            module.argmax(logits)


@both
def test_devices(module):
    class OnDevice(HasDlpack):
        def __dlpack_device__(self):
            return (self.device, 0)

    logits = OnDevice(ROW)
    for logits.device in (1, 3, 8, 11, 13):  # memory that the CPU reads
        assert module.argmax(logits) == module.argmax(ROW)
    for logits.device in (2, 10, 14):
        text = f"ValueError: logits must be on the CPU, got OnDevice on DLPack's device type {logits.device}"
        assert outcome(module.argmax, logits) == text


@both
def test_dlpack_is_preferred(module):
    """DLPack is preferred because `__array__` of another library's array may copy or warn."""

    class HasBoth(HasDlpack):
        def __array__(self, dtype=None, copy=None):
            raise AssertionError("not asked for")

    assert_all_same(answers(module, HasBoth(BATCH)), answers(module, BATCH))
