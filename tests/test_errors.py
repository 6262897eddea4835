"""Every wrong input raises a ValueError or TypeError with an exact text, which is the same from kernels and reference.

After an error, the arguments (logits, `out` and parameters) are unchanged.
"""

import itertools
from decimal import Decimal

import ml_dtypes
import numpy as np
import pytest

import toksample
from toksample import reference

ROW = np.float32([1, 2, 3, 0])
BATCH = np.tile(ROW, (3, 1))
V = 2**22
SHAPES = "logits must be of shape (V,) or (B, V)"
both = pytest.mark.parametrize("module", [toksample, reference], ids=["kernels", "reference"])


def error_of(function, *args, **keywords):
    """Return the error of a call as text, with its type. The test fails if there is no error, or one of another type."""
    given = [value.copy() if isinstance(value, np.ndarray) else value for value in (*args, *keywords.values())]
    text = "no error"
    try:
        function(*args, **keywords)
    except (ValueError, TypeError) as error:
        text = f"{type(error).__name__}: {error}"
    for before, after in zip(given, (*args, *keywords.values()), strict=True):
        if isinstance(after, np.ndarray):
            assert before.tobytes() == after.tobytes()
    return text


# ---- parameters --------------------------------------------------------------------------------------------------------

# Each is tried with a single row, and with a batch as the same value for all rows.
WRONG_VALUES = [
    ("temperature", -1.0, "temperature must be 0 or in [1e-30, 1e30], got -1.0"),
    ("temperature", -5e-324, "temperature must be 0 or in [1e-30, 1e30], got -5e-324"),
    ("temperature", -1, "temperature must be 0 or in [1e-30, 1e30], got -1.0"),
    ("temperature", np.nan, "temperature must be 0 or in [1e-30, 1e30], got nan"),
    ("temperature", -np.nan, "temperature must be 0 or in [1e-30, 1e30], got nan"),
    ("temperature", np.inf, "temperature must be 0 or in [1e-30, 1e30], got inf"),
    ("temperature", -np.inf, "temperature must be 0 or in [1e-30, 1e30], got -inf"),
    ("temperature", np.float32(-0.5), "temperature must be 0 or in [1e-30, 1e30], got -0.5"),
    ("temperature", 9e-31, "temperature must be 0 or in [1e-30, 1e30], got 9e-31"),
    ("temperature", 5e-324, "temperature must be 0 or in [1e-30, 1e30], got 5e-324"),
    ("temperature", 1.1e30, "temperature must be 0 or in [1e-30, 1e30], got 1.1e+30"),
    ("top_k", -2, "top_k must be in [0, 2**64), or -1, got -2"),
    ("top_k", np.int8(-3), "top_k must be in [0, 2**64), or -1, got -3"),
    ("top_k", -(2**70), f"top_k must be in [0, 2**64), or -1, got {-(2**70)}"),
    ("top_k", 2**64, f"top_k must be in [0, 2**64), or -1, got {2**64}"),
    ("top_p", -5e-324, "top_p must be in [0, 1], got -5e-324"),
    ("top_p", 1.5, "top_p must be in [0, 1], got 1.5"),
    ("top_p", 2, "top_p must be in [0, 1], got 2.0"),
    ("top_p", 1 + 2**-52, "top_p must be in [0, 1], got 1.0000000000000002"),
    ("top_p", -0.1, "top_p must be in [0, 1], got -0.1"),
    ("top_p", np.nan, "top_p must be in [0, 1], got nan"),
    ("top_p", np.inf, "top_p must be in [0, 1], got inf"),
    ("min_p", -0.5, "min_p must be in [0, 1], got -0.5"),
    ("min_p", 1 + 2**-52, "min_p must be in [0, 1], got 1.0000000000000002"),
    ("min_p", np.nan, "min_p must be in [0, 1], got nan"),
    ("min_p", np.inf, "min_p must be in [0, 1], got inf"),
    *[
        (name, value, f"{name} must be in [0, 2**64), got {value}")
        for name in ("seed", "stream", "position")
        for value in (-1, 2**64, -(2**63), 10**30)
    ],
]
# Each entry is a value, and how the error shows it.
WRONG_NUMBERS = ["0.5", 1j, np.complex64(1), b"1", bytearray(b"1"), object, {}, {1.0, 2.0}, {1: 2}, np.array([[0.5]])]
WRONG_INTEGERS = ["1", 1.0, 1.5, np.float32(1), 1j, b"1", {1, 2}, np.array([[1]]), np.array([1.0])]


@both
@pytest.mark.parametrize(("name", "value", "text"), WRONG_VALUES)
def test_value_out_of_range(module, name, value, text):
    for logits in (ROW, BATCH, BATCH[:0]):
        assert error_of(module.sample, logits, **{name: value}) == f"ValueError: {text}"
    if name in ("temperature", "top_k", "top_p", "min_p"):
        assert error_of(module.mask_logits, ROW, **{name: value}) == f"ValueError: {text}"
        assert error_of(module.candidates, ROW, **{name: value}) == f"ValueError: {text}"
    if name == "temperature":
        assert error_of(module.softmax, ROW, value) == f"ValueError: {text}"
        assert error_of(module.log_softmax, ROW, value) == f"ValueError: {text}"


@both
@pytest.mark.parametrize("name", ["temperature", "top_p", "min_p"])
@pytest.mark.parametrize("value", WRONG_NUMBERS, ids=repr)
def test_what_is_not_a_number(module, name, value):
    text = f"TypeError: {name} must be a number, or one for each row of a batch, got {value!r}"
    for logits in (ROW, BATCH):
        assert error_of(module.sample, logits, **{name: value}) == text


@both
@pytest.mark.parametrize("name", ["top_k", "seed", "stream", "position"])
@pytest.mark.parametrize("value", WRONG_INTEGERS, ids=repr)
def test_what_is_not_an_integer(module, name, value):
    text = f"TypeError: {name} must be an integer, or one for each row of a batch, got {value!r}"
    for logits in (ROW, BATCH):
        assert error_of(module.sample, logits, **{name: value}) == text


@both
@pytest.mark.parametrize("value", [[1.0], (1, 1), np.array([1.0]), [None], range(1)], ids=repr)
def test_one_row_takes_one_value(module, value):
    text = f"TypeError: top_p must be a number where logits are one row, got {value!r}"
    assert error_of(module.sample, ROW, top_p=value) == text
    assert error_of(module.candidates, ROW, top_p=value) == text


@both
def test_position_has_no_value_for_none(module):
    text = "TypeError: position must be an integer, or one for each row of a batch, got None"
    assert error_of(module.sample, ROW, position=None) == text


@both
@pytest.mark.parametrize("logits", [ROW, BATCH], ids=["one row", "batch"])
def test_what_is_off(module, logits):
    """None turns a filter off, as in the configurations of transformers and vLLM, and so does top_k = -1."""
    one = logits.ndim == 1
    want = module.mask_logits(logits).tolist()
    for off in ({"top_k": -1}, {"top_k": None}, {"top_p": None}, {"min_p": None}, {"temperature": None}):
        assert module.mask_logits(logits, **off).tolist() == want
        each = off if one else {name: [value] * 3 for name, value in off.items()}
        assert module.mask_logits(logits, **each).tolist() == want
    want = module.sample(logits, seed=4)
    assert np.all(module.sample(logits, seed=4, temperature=None, top_k=None, top_p=None, min_p=None) == want)


@both
@pytest.mark.parametrize("zero", [0, 0.0, -0.0, np.float32(0), 5e-324])
def test_top_p_of_nothing_keeps_the_most_probable_token(module, zero):
    ids, probs = module.candidates(np.float32([1, 3, 3, 2]), top_p=zero)
    assert ids.tolist() == [1]
    assert probs.tolist() == [1.0]
    ties = np.zeros(20_000, np.float32)
    assert module.candidates(ties, top_p=zero)[0].tolist() == [0]
    assert module.candidates(ties, top_k=15_000, top_p=zero)[0].tolist() == [0]


@both
@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("temperature", [1.0, -1.0, 1.0], "ValueError: temperature must be 0 or in [1e-30, 1e30], got -1.0 (row 1)"),
        (
            "temperature",
            np.float32([1, 1, np.nan]),
            "ValueError: temperature must be 0 or in [1e-30, 1e30], got nan (row 2)",
        ),
        ("top_p", (-1.0, 2.0, 1.0), "ValueError: top_p must be in [0, 1], got -1.0 (row 0)"),
        ("top_p", np.array([1, 1, 3]), "ValueError: top_p must be in [0, 1], got 3.0 (row 2)"),
        ("min_p", [0.5, 1.0, 1.25], "ValueError: min_p must be in [0, 1], got 1.25 (row 2)"),
        ("top_k", [1, -2, 1], "ValueError: top_k must be in [0, 2**64), or -1, got -2 (row 1)"),
        ("top_k", np.array([1, 1, -7]), "ValueError: top_k must be in [0, 2**64), or -1, got -7 (row 2)"),
        ("seed", [0, 1, 2**64], f"ValueError: seed must be in [0, 2**64), got {2**64} (row 2)"),
        ("stream", [-1, 1, 2], "ValueError: stream must be in [0, 2**64), got -1 (row 0)"),
        ("position", np.array([0, 0, -1]), "ValueError: position must be in [0, 2**64), got -1 (row 2)"),
        ("temperature", [1.0, 1.0], "ValueError: temperature must have one value for each of the 3 rows, got 2"),
        ("top_k", np.array([1]), "ValueError: top_k must have one value for each of the 3 rows, got 1"),
        ("seed", [], "ValueError: seed must have one value for each of the 3 rows, got 0"),
        (
            "top_p",
            ["a", "b", "c"],
            "TypeError: top_p must be a number, or one for each row of a batch, got ['a', 'b', 'c']",
        ),
        (
            "top_p",
            ["0.5"] * 3,
            "TypeError: top_p must be a number, or one for each row of a batch, got ['0.5', '0.5', '0.5']",
        ),
        (
            "min_p",
            [0.5, "1", 0],
            "TypeError: min_p must be a number, or one for each row of a batch, got [0.5, '1', 0]",
        ),
        ("top_k", [1, 2, 3.0], "TypeError: top_k must be an integer, or one for each row of a batch, got [1, 2, 3.0]"),
        (
            "top_k",
            np.float64([1, 2, 3]),
            "TypeError: top_k must be an integer, or one for each row of a batch, got array([1., 2., 3.])",
        ),
        ("seed", "123", "TypeError: seed must be an integer, or one for each row of a batch, got '123'"),
        (
            "stream",
            [None] * 3,
            "TypeError: stream must be an integer, or one for each row of a batch, got [None, None, None]",
        ),
    ],
)
def test_one_value_for_each_row(module, name, value, text):
    assert error_of(module.sample, BATCH, **{name: value}) == text


@both
@pytest.mark.parametrize("value", [1, 1.0, True, np.float16(1), np.int8(1), np.array(1), np.array(1.0)], ids=repr)
def test_numbers_of_other_types_are_fine(module, value):
    want = module.sample(ROW, seed=3, temperature=1.0, top_p=1.0, min_p=1.0)
    assert module.sample(ROW, seed=3, temperature=value, top_p=value, min_p=value) == want
    if np.asarray(value).dtype.kind in "ib":
        want = module.sample(ROW, top_k=1, seed=1, stream=1, position=1)
        assert module.sample(ROW, top_k=value, seed=value, stream=value, position=value) == want


@both
@pytest.mark.parametrize("digits", [400, 5_000])
def test_huge_integers(module, digits):
    """Python itself refuses to format integers of more than 4,300 digits, with an error that names no parameter."""
    for sign in (1, -1):
        for name in ("temperature", "top_k", "top_p", "min_p", "seed", "stream", "position"):
            for logits, value in (
                (ROW, sign * 10**digits),
                (BATCH, sign * 10**digits),
                (BATCH, [sign * 10**digits] * 3),
            ):
                error = error_of(module.sample, logits, **{name: value})
                assert error.startswith(f"ValueError: {name} must be "), error
                assert f"integer of about {digits}" in error or f"integer of about {digits + 1}" in error, error
        assert error_of(module.top_k, ROW, sign * 10**digits).startswith("ValueError: k must be in [1, 4], got ")
    for num_threads in (-(10**digits), 10.0**300):
        assert "Error: num_threads must be" in error_of(toksample.sample, ROW, num_threads=num_threads)


@both
@pytest.mark.parametrize(
    ("k", "text"),
    [
        (0, "ValueError: k must be in [1, 4], got 0"),
        (5, "ValueError: k must be in [1, 4], got 5"),
        (-1, "ValueError: k must be in [1, 4], got -1"),
        (2**65, f"ValueError: k must be in [1, 4], got {2**65}"),
        (1.0, "TypeError: k must be an integer, got 1.0"),
        (None, "TypeError: k must be an integer, got None"),
        ("1", "TypeError: k must be an integer, got '1'"),
        ([1, 1, 1], "TypeError: k must be an integer, got [1, 1, 1]"),
        (np.array([1]), "TypeError: k must be an integer, got array([1])"),
    ],
)
def test_k(module, k, text):
    for logits in (ROW, BATCH, BATCH[:0]):
        assert error_of(module.top_k, logits, k) == text


@both
def test_errors(module):
    assert error_of(module.sample, ROW, errors="ignore") == "ValueError: errors must be 'raise' or 'mark', got 'ignore'"
    for value in (None, 5, True, b"raise", ["raise"]):
        text = error_of(module.sample, ROW, errors=value)
        assert text.split(": ", 1)[1] == f"errors must be 'raise' or 'mark', got {value!r}"


# The reference has this parameter only to have the same signature.
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "ValueError: num_threads must be >= 1, got 0"),
        (-1, "ValueError: num_threads must be >= 1, got -1"),
        (1.5, "TypeError: num_threads must be an integer, got 1.5"),
        ("2", "TypeError: num_threads must be an integer, got '2'"),
        ([1], "TypeError: num_threads must be an integer, got [1]"),
    ],
)
def test_num_threads(value, text):
    for function in ("argmax", "softmax", "log_softmax", "sample", "mask_logits", "top_k"):
        keywords = {"k": 1} if function == "top_k" else {}
        assert error_of(getattr(toksample, function), BATCH, **keywords, num_threads=value) == text


def test_more_threads_than_a_system_starts():
    rows = np.zeros((40_000, 1), np.float32)
    assert toksample.sample(rows, num_threads=2**64 - 1).shape == (40_000,)


@both
@pytest.mark.parametrize(
    "function", ["argmax", "softmax", "sample", "top_k", "candidates", "mask_logits", "log_softmax"]
)
def test_unknown_keyword(module, function):
    keywords = {"k": 1} if function == "top_k" else {}
    assert "unexpected keyword argument 'beams'" in error_of(getattr(module, function), ROW, **keywords, beams=1)


# ---- logits ------------------------------------------------------------------------------------------------------------

FUNCTIONS = {
    "argmax": lambda module, logits: module.argmax(logits),
    "softmax": lambda module, logits: module.softmax(logits),
    "log_softmax": lambda module, logits: module.log_softmax(logits),
    "top_k": lambda module, logits: module.top_k(logits, 1),
    "sample": lambda module, logits: module.sample(logits),
    "sample at temperature 0": lambda module, logits: module.sample(logits, temperature=0),
    "mask_logits": lambda module, logits: module.mask_logits(logits),
    "candidates": lambda module, logits: module.candidates(logits),
}
NOT_NUMBERS = "logits must be an array, got a list not made of numbers:"
TYPES = "logits must be float32, float16, bfloat16 or float64"


@both
@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((), f"{SHAPES}, got shape ()"),
        ((1, 2, 3), f"{SHAPES}, got shape (1, 2, 3): for the last step of each row, write logits[:, -1]"),
        ((1, 1, 1, 3), f"{SHAPES}, got shape (1, 1, 1, 3)"),
        ((0,), f"logits must have 1 to {V} tokens a row, got shape (0,)"),
        ((2, 0), f"logits must have 1 to {V} tokens a row, got shape (2, 0)"),
        ((V + 1,), f"logits must have 1 to {V} tokens a row, got shape ({V + 1},)"),
        ((1, V + 1), f"logits must have 1 to {V} tokens a row, got shape (1, {V + 1})"),
    ],
)
def test_shape(module, shape, text):
    for function, dtype in itertools.product(FUNCTIONS.values(), (np.float32, np.float16)):
        assert error_of(function, module, np.zeros(shape, dtype)) == f"ValueError: {text}"


@both
def test_a_batch_of_no_rows_has_no_answers(module):
    none = np.zeros((0, 5), np.float16)
    assert module.argmax(none).shape == module.sample(none, temperature=[], seed=[]).shape == (0,)
    assert module.argmax(none).dtype == module.sample(none).dtype == np.int64
    assert module.softmax(none).shape == module.log_softmax(none).shape == module.mask_logits(none).shape == (0, 5)
    assert module.mask_logits(none).dtype == np.float16
    values, ids = module.top_k(none, 2)
    assert (values.shape, values.dtype, ids.shape, ids.dtype) == ((0, 2), np.float16, (0, 2), np.int64)


@both
@pytest.mark.parametrize(
    ("logits", "text"),
    [
        (np.arange(4), f"{TYPES}, got int64"),
        (np.zeros(4, np.uint16), f"{TYPES}, got uint16"),
        (np.zeros(4, np.uint8), f"{TYPES}, got uint8"),
        (np.zeros(4, bool), f"{TYPES}, got bool"),
        (np.zeros(4, complex), f"{TYPES}, got complex128"),
        (np.array(["1.5"]), f"{TYPES}, got <U3"),
        (np.array([1.0], object), f"{TYPES}, got object"),
        (np.zeros(4, "M8[s]"), f"{TYPES}, got datetime64[s]"),
        (b"1234", f"{TYPES}, got uint8"),
        (None, "logits must be an array, got NoneType"),
        ("1234", "logits must be an array, got str"),
        (5.0, "logits must be an array, got float"),
        ({1: 2.0}, "logits must be an array, got dict"),
        (object(), "logits must be an array, got object"),
        (["a", "b"], f"{NOT_NUMBERS} it holds a str"),
        (["1.5", "2"], f"{NOT_NUMBERS} it holds a str"),
        ([1.0, None], f"{NOT_NUMBERS} it holds a NoneType"),
        ([1j, 2.0], f"{NOT_NUMBERS} it holds a complex"),
        ((1.0, object()), f"{NOT_NUMBERS.replace('list', 'tuple')} it holds a object"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_type(module, logits, text):
    for function in FUNCTIONS.values():
        assert error_of(function, module, logits) == f"TypeError: {text}"


@both
def test_integers_beyond_float64(module):
    for function in FUNCTIONS.values():
        text = "ValueError: logits must be finite or -inf, got inf at id 1"
        assert error_of(function, module, [1.0, 10**400]) == text
    for low in (-(10**400), Decimal("-1e400")):  # neither is a ban, as -inf would be
        assert module.candidates([1.0, low, 2**70, -np.inf])[0].tolist() == [2, 0, 1]


@both
def test_float64_beyond_float32(module):
    for function in FUNCTIONS.values():
        for row in ([1.0, 1e39], [-1e39, -1e300], [-1e308, 1e308]):
            assert error_of(function, module, np.array(row)) == "no error"


@both
@pytest.mark.parametrize("dtype", ["f4", "f2", "f8"])
@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({0: np.nan}, "be finite or -inf, got nan at id 0"),
        ({1: np.nan, 2: np.inf}, "be finite or -inf, got nan at id 1"),
        ({1: np.inf, 2: np.nan}, "be finite or -inf, got inf at id 1"),
        ({699: np.inf}, "be finite or -inf, got inf at id 699"),
        ({699: np.nan}, "be finite or -inf, got nan at id 699"),
        ({700: -np.nan}, "be finite or -inf, got nan at id 700"),
        ({511: np.nan, 512: np.nan}, "be finite or -inf, got nan at id 511"),
        (dict.fromkeys(range(701), -np.inf), "have a finite value, got only -inf"),
        (dict.fromkeys(range(701), -np.inf) | {700: np.nan}, "be finite or -inf, got nan at id 700"),
        (dict.fromkeys(range(701), -np.inf) | {700: np.inf}, "be finite or -inf, got inf at id 700"),
    ],
)
def test_row_without_an_answer(module, dtype, values, text):
    row = np.zeros(701, dtype)
    row[list(values)] = list(values.values())
    for function in FUNCTIONS.values():
        assert error_of(function, module, row) == f"ValueError: logits must {text}"


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(("value", "name"), [(np.nan, "nan"), (-np.nan, "nan"), (np.inf, "inf")])
def test_every_place_is_looked_at(module, dtype, value, name):
    for place in range(0, 1100, 1 if module is toksample else 97):
        row = np.zeros(1100, dtype)
        row[place] = value
        for function in FUNCTIONS.values():
            assert (
                error_of(function, module, row)
                == f"ValueError: logits must be finite or -inf, got {name} at id {place}"
            )


BATCH_FUNCTIONS = {name: function for name, function in FUNCTIONS.items() if name != "candidates"}


@both
@pytest.mark.parametrize("function", BATCH_FUNCTIONS.values(), ids=BATCH_FUNCTIONS.keys())
def test_rows_without_an_answer(module, function):
    batch = np.tile(ROW, (12, 1))
    batch[3, 1:] = np.nan
    text = "ValueError: logits must be finite or -inf, got nan at row 3, id 1"
    assert error_of(function, module, batch) == text
    batch[5] = -np.inf
    batch[11, 2] = np.inf
    assert error_of(function, module, batch) == f"{text}; only -inf in row 5; inf at row 11, id 2"
    batch[:] = -np.inf
    batch[0] = 1
    rows = "; ".join(f"only -inf in row {b}" for b in range(1, 9))
    assert (
        error_of(function, module, batch) == f"ValueError: logits must have a finite value, got {rows}; and 3 more rows"
    )
    one = np.full((1, 4), np.nan, np.float16)
    assert error_of(function, module, one) == "ValueError: logits must be finite or -inf, got nan at row 0, id 0"


@both
def test_marked_rows(module):
    batch = np.tile(ROW, (5, 1))
    want = module.sample(batch, seed=1)
    batch[1, 3], batch[2], batch[4, 0] = np.nan, -np.inf, np.inf
    want[[1, 2, 4]] = -1
    for temperature in (1.0, 0.0):
        got = module.sample(batch, seed=1, errors="mark", temperature=[temperature] * 5)
        assert got.tolist() == (want if temperature else np.where(want < 0, want, 2)).tolist()
    out = np.zeros(5, np.int64)
    module.sample(batch, seed=1, errors="mark", out=out)
    assert out.tolist() == want.tolist()
    assert module.sample(batch[1], errors="mark") == module.sample(batch[2], errors="mark") == -1
    assert type(module.sample(batch[1], errors="mark")) is int
    # A wrong parameter is still an error.
    assert error_of(module.sample, batch, errors="mark", top_p=2) == "ValueError: top_p must be in [0, 1], got 2.0"


# ---- out ---------------------------------------------------------------------------------------------------------------


def read_only(array):
    array.flags.writeable = False
    return array


def unaligned(dtype, shape):
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    return np.zeros(size + 1, np.uint8)[1:].view(dtype).reshape(shape)


@pytest.mark.parametrize(
    ("out", "got"),
    [
        ([0, 0, 0], "TypeError: RULE, got list"),
        (0, "TypeError: RULE, got int"),
        (memoryview(np.zeros(3, np.int64)), "TypeError: RULE, got memoryview"),
        (np.zeros(3, np.int32), "TypeError: RULE, got int32 of shape (3,)"),
        (np.zeros(3, np.uint64), "TypeError: RULE, got uint64 of shape (3,)"),
        (np.zeros(3), "TypeError: RULE, got float64 of shape (3,)"),
        (np.zeros(3, ">i8"), "TypeError: RULE, got >i8 of shape (3,)"),
        (np.zeros(4, np.int64), "ValueError: RULE, got int64 of shape (4,)"),
        (np.zeros((3, 1), np.int64), "ValueError: RULE, got int64 of shape (3, 1)"),
        (np.array(0), "ValueError: RULE, got int64 of shape ()"),
        (np.zeros(6, np.int64)[::2], "ValueError: RULE, got one that is not contiguous"),
        (np.zeros(3, np.int64)[::-1], "ValueError: RULE, got one that is not contiguous"),
        (read_only(np.zeros(3, np.int64)), "ValueError: RULE, got one that is read-only"),
        (unaligned(np.int64, 3), "ValueError: RULE, got one that is not aligned"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_out_of_sample(out, got):
    rule = "out must be a writable C-contiguous int64 array of shape (3,)"
    assert error_of(toksample.sample, BATCH, out=out) == got.replace("RULE", rule)


def test_out_of_sample_on_one_row():
    text = "ValueError: out must be a writable C-contiguous int64 array of shape (), got int64 of shape (1,)"
    assert error_of(toksample.sample, ROW, out=np.zeros(1, np.int64)) == text


@pytest.mark.parametrize("function", [toksample.softmax, toksample.log_softmax])
@pytest.mark.parametrize(
    ("out", "got"),
    [
        ([], "TypeError: RULE, got list"),
        (np.zeros((3, 4)), "TypeError: RULE, got float64 of shape (3, 4)"),
        (np.zeros((3, 4), np.float16), "TypeError: RULE, got float16 of shape (3, 4)"),
        (np.zeros((3, 4), ">f4"), "TypeError: RULE, got >f4 of shape (3, 4)"),
        (np.zeros((4, 3), np.float32), "ValueError: RULE, got float32 of shape (4, 3)"),
        (np.zeros(12, np.float32), "ValueError: RULE, got float32 of shape (12,)"),
        (np.zeros((3, 4), np.float32, order="F"), "ValueError: RULE, got one that is not contiguous"),
        (np.zeros((3, 8), np.float32)[:, ::2], "ValueError: RULE, got one that is not contiguous"),
        (read_only(np.zeros((3, 4), np.float32)), "ValueError: RULE, got one that is read-only"),
        (unaligned(np.float32, (3, 4)), "ValueError: RULE, got one that is not aligned"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_out_of_probabilities(function, out, got):
    rule = "out must be a writable C-contiguous float32 array of shape (3, 4)"
    assert error_of(function, BATCH, out=out) == got.replace("RULE", rule)


SHARED = "ValueError: out must not share memory with logits, got one that does"


@pytest.mark.parametrize("function", [toksample.softmax, toksample.log_softmax])
def test_out_that_shares_memory(function):
    batch = BATCH.copy()
    assert error_of(function, batch, out=batch) == SHARED
    assert error_of(function, batch[0], out=batch[0]) == SHARED
    memory = np.zeros(40, np.float32)
    assert error_of(function, memory[2:10].reshape(2, 4), out=memory[:8].reshape(2, 4)) == SHARED
    assert error_of(function, memory.view(np.float16)[:8], out=memory[:8]) == SHARED
    function(memory[8:16], out=memory[:8])  # adjacent memory is fine


@pytest.mark.parametrize("function", [toksample.softmax, toksample.log_softmax])
def test_out_that_shares_memory_by_way_of_another_object(function):
    buffer = bytearray(ROW.tobytes())
    logits, out = np.frombuffer(buffer, np.float32), np.frombuffer(buffer, np.float32)
    assert np.shares_memory(logits, out)
    assert error_of(function, logits, out=out) == SHARED
    assert logits.tolist() == ROW.tolist()


def test_tokens_that_share_memory():
    memory = np.zeros(4, np.int64)
    assert error_of(toksample.sample, memory.view(np.float32).reshape(4, 2), out=memory) == SHARED


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_out_is_unchanged_by_a_row_without_an_answer(wrong, threads):
    batch = BATCH.copy()
    batch[wrong, 3] = np.nan
    text = f"ValueError: logits must be finite or -inf, got nan at row {wrong}, id 3"
    for function in (toksample.softmax, toksample.log_softmax):
        # error_of asserts that the arrays are unchanged.
        assert error_of(function, batch, out=np.full((3, 4), 7, np.float32), num_threads=threads) == text
        single = error_of(function, batch[wrong], out=np.full(4, 7, np.float32))
        assert single == "ValueError: logits must be finite or -inf, got nan at id 3"
    assert error_of(toksample.sample, batch, out=np.full(3, 7), num_threads=threads) == text


@both
def test_out_is_unchanged_by_a_wrong_parameter(module):
    assert error_of(module.softmax, BATCH, -1.0, out=np.full((3, 4), 7, np.float32)).startswith(
        "ValueError: temperature"
    )
    assert error_of(module.sample, BATCH, top_p=np.array([1, 1, 9]), out=np.full(3, 7)).endswith("got 9.0 (row 2)")
    assert error_of(module.sample, BATCH, seed=-1, out=np.full(3, 7)).startswith("ValueError: seed")


def test_an_error_leaves_nothing_behind():
    """Calls after an error return the same as before it."""
    want = toksample.sample(BATCH, seed=5).tolist()
    wrong = BATCH.copy()
    wrong[1] = np.nan
    for _ in range(100):
        error_of(toksample.sample, wrong, num_threads=2)
        error_of(toksample.softmax, wrong)
    assert toksample.sample(BATCH, seed=5).tolist() == want
    out = np.zeros((3, 4), np.float32)
    assert error_of(toksample.softmax, wrong, out=out) != "no error"
    toksample.softmax(BATCH, out=out)  # the call that failed no longer holds `out`
