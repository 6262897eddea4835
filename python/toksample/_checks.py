"""Parameters: one value for each row, each in its range, and the errors for what is not.

The numpy reference reads all of its parameters here. The compiled functions read plain numbers themselves, and come here for
everything else, so that both accept the same and say the same.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from toksample._arrays import as_float32, as_native
from toksample._text import show

MAX_TOKENS = 2**22


class Rows(NamedTuple):
    """Logits as float32 rows, and whether they came as a batch."""

    rows: npt.NDArray[np.float32]
    is_batch: bool


def as_rows(logits: object) -> Rows:
    """Give logits of shape (V,) or (B, V) as float32 rows."""
    array = as_float32(as_native(logits)[0])
    if not 1 <= array.shape[-1] <= MAX_TOKENS:
        raise ValueError(f"logits must have 1 to {MAX_TOKENS} tokens a row, got shape {array.shape}")
    return Rows(np.atleast_2d(array), array.ndim == 2)


def row_error(row: npt.NDArray[np.float32]) -> tuple[str, str] | None:
    """Say what is wrong with a row, and at which id; None if nothing is."""
    wrong = np.flatnonzero(np.isnan(row) | (row == np.inf))
    if len(wrong):
        return ("nan" if np.isnan(row[wrong[0]]) else "inf"), f"id {wrong[0]}"
    if np.all(row == -np.inf):
        return "only -inf", ""
    return None


def raise_row_errors(rows: Rows) -> None:
    """Raise the error that names the rows without an answer, if there are any."""
    found = [(b, error) for b, row in enumerate(rows.rows) if (error := row_error(row)) is not None]
    if not found:
        return
    rule = "have a finite value" if all(what == "only -inf" for _, (what, _) in found) else "be finite or -inf"
    texts = [_row_text(b, what, where, rows.is_batch) for b, (what, where) in found[:8]]
    if len(found) > 8:
        texts.append(f"and {len(found) - 8} more rows")
    raise ValueError(f"logits must {rule}, got {'; '.join(texts)}")


def _row_text(b: int, what: str, where: str, is_batch: bool) -> str:
    if not is_batch:
        return f"{what} at {where}" if where else what
    return f"{what} at row {b}, {where}" if where else f"{what} in row {b}"


class Parameter(NamedTuple):
    """What a parameter of a draw may be."""

    convert: Callable[[Any], Any]
    what: str
    rule: str
    holds: Callable[[Any], bool]
    off: float | None
    """What None stands for; without it, None is an error."""


def _share(off: float) -> Parameter:
    return Parameter(float, "a number", "in [0, 1]", lambda p: 0 <= p <= 1, off)


_ID = Parameter(operator.index, "an integer", "in [0, 2**64)", lambda n: 0 <= n < 2**64, None)

PARAMETERS = {
    "temperature": Parameter(
        float, "a number", "0 or in [1e-30, 1e30]", lambda t: t == 0 or 1e-30 <= t <= 1e30, off=1.0
    ),
    "top_k": Parameter(operator.index, "an integer", "in [0, 2**64), or -1", lambda k: -1 <= k < 2**64, off=0),
    "top_p": _share(off=1.0),
    "min_p": _share(off=0.0),
    "seed": _ID,
    "stream": _ID,
    "position": _ID,
}


_OR_MANY = ", or one for each row of a batch"
_TEXT = (str, bytes, bytearray, memoryview)


def per_row(name: str, value: object) -> Any:
    """Read a parameter: a number, or a list of numbers if there is one for each row.

    A list, a tuple, another sequence or an array of one dimension has one for each row. The kernels read plain numbers and
    arrays themselves, and come here for everything else, errors included.
    """
    is_array = hasattr(value, "__array__") and not isinstance(value, np.generic)
    given = _array(name, value).tolist() if is_array else value
    if isinstance(given, Sequence) and not isinstance(given, _TEXT):
        return [_number(name, value, one, f" (row {b})") for b, one in enumerate(list(given))]
    return _number(name, value, given, "")


def _array(name: str, value: object) -> npt.NDArray[Any]:
    """Return an array of at most one dimension."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise _wrong_type(name, value, _OR_MANY) from error
    if array.ndim > 1:
        raise _wrong_type(name, value, _OR_MANY)
    return array


def one(name: str, value: object) -> Any:
    """Read a parameter that is one number."""
    return _number(name, value, value, None)


def _number(name: str, given: object, value: Any, row: str | None) -> Any:
    """Convert one number of a parameter, and see that it is in its range; ``row`` is None if there can be only one."""
    parameter = PARAMETERS[name]
    if value is None and parameter.off is not None:
        return parameter.off
    try:
        number = _refuse(value) if isinstance(value, (*_TEXT, np.complexfloating)) else parameter.convert(value)
    except TypeError as error:
        raise _wrong_type(name, given, "" if row is None else _OR_MANY) from error
    except OverflowError as error:  # an integer beyond float64
        raise ValueError(f"{name} must be {parameter.rule}, got {show(value)}{row or ''}") from error
    if not parameter.holds(number):
        raise ValueError(f"{name} must be {parameter.rule}, got {show(number)}{row or ''}")
    return parameter.off if name == "top_k" and number == -1 else number


def _refuse(value: object) -> NoReturn:
    """Refuse what ``float`` would take: text, and a complex number, of which it drops a part."""
    raise TypeError(f"a {type(value).__name__} is not a real number")


def _wrong_type(name: str, given: object, where: str) -> TypeError:
    return TypeError(f"{name} must be {PARAMETERS[name].what}{where}, got {show(given)}")


def check_count(name: str, given: object, count: int, rows: int, is_batch: bool) -> None:
    """See that a parameter with one value for each row has as many as there are rows."""
    if not is_batch:
        raise _wrong_type(name, given, " where logits are one row")
    if count != rows:
        raise ValueError(f"{name} must have one value for each of the {rows} rows, got {count}")


def for_rows(name: str, value: object, rows: Rows) -> list[Any]:
    """Give a parameter for each row."""
    read = per_row(name, value)
    if not isinstance(read, list):
        return [read] * len(rows.rows)
    check_count(name, value, len(read), len(rows.rows), rows.is_batch)
    return read


def integer(name: str, value: Any) -> int:
    """Give an integer."""
    try:
        return operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} must be an integer, got {show(value)}") from error


def count(name: str, value: object, most: int | None = None) -> int:
    """Give an integer of at least 1 and, if it is given, at most ``most``."""
    number = integer(name, value)
    if number < 1 or (most is not None and number > most):
        rule = ">= 1" if most is None else f"in [1, {most}]"
        raise ValueError(f"{name} must be {rule}, got {show(number)}")
    return number


class Filters(NamedTuple):
    """The filters' parameters of one row."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float


def filters(temperature: object, top_k: object, top_p: object, min_p: object, rows: Rows) -> list[Filters]:
    """Give the filters' parameters of each row, each in its range."""
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    return [Filters(*row) for row in zip(*(for_rows(name, value, rows) for name, value in given.items()), strict=True)]


def errors_mode(errors: object) -> None:
    """Check the parameter ``errors``."""
    if not isinstance(errors, str) or errors not in ("raise", "mark"):
        raise ValueError(f"errors must be 'raise' or 'mark', got {show(errors)}")


def write_out(result: npt.NDArray[Any], out: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    """Copy a result to ``out``, if there is one; the kernels' checks of it are theirs alone."""
    if out is None:
        return result
    out[...] = result
    return out
