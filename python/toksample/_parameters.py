"""The parameters: what each is, which values it takes, and the errors for all others.

One table describes them. The functions below read values by it. The numpy reference reads all of its parameters here. The
compiled functions read plain numbers themselves and come here for everything else, so both take the same values and raise the
same errors. The options of the command line come from the table, too.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from toksample._text import show


class Parameter(NamedTuple):
    """What there is to say about a parameter of a draw."""

    name: str
    convert: Callable[[Any], Any]
    """From a value of any type to a number, or a TypeError."""
    what: str
    """What that number is, for error messages."""
    rule: str
    holds: Callable[[Any], bool]
    default: float | None
    off: float | None
    """The number that None stands for. Without it, None is an error, unless it is the default."""
    metavar: str | None = None
    """How the help of the command line calls the value. Without it there is no option."""
    meaning: str = ""
    """What the option does."""


def _real(name: str, rule: str, holds: Callable[[float], bool], off: float, metavar: str, meaning: str) -> Parameter:
    return Parameter(name, float, "a number", rule, holds, off, off, metavar, meaning)


def _share(name: str, off: float, meaning: str) -> Parameter:
    return _real(name, "in [0, 1]", lambda p: 0 <= p <= 1, off, "P", meaning)


def _word(name: str, default: int | None, metavar: str | None = None, meaning: str = "") -> Parameter:
    rule = "in [0, 2**64)"
    return Parameter(
        name, operator.index, "an integer", rule, lambda n: 0 <= n < 2**64, default, None, metavar, meaning
    )


_TABLE = (
    _real(
        "temperature",
        "0 or in [1e-30, 1e30]",
        lambda t: t == 0 or 1e-30 <= t <= 1e30,
        1.0,
        "T",
        "divide the logits by T: below 1, likely tokens become more likely",
    ),
    Parameter(
        "top_k",
        operator.index,
        "an integer",
        "in [0, 2**64), or -1",
        lambda k: -1 <= k < 2**64,
        0,
        0,
        "K",
        "keep the K most probable tokens; 0 and -1 are off",
    ),
    _share("top_p", 1.0, "keep the most probable tokens that sum to P; 1 is off, and 0 keeps one token"),
    _share("min_p", 0.0, "keep tokens at least P times as probable as the most probable one; 0 is off"),
    _word("seed", None, "N", "draw the same tokens again"),
    _word("stream", None),
    _word("position", 0),
)

PARAMETERS = {parameter.name: parameter for parameter in _TABLE}
"""The table, in the order in which the parameters apply."""


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


def errors_mode(errors: object) -> None:
    """Check the parameter ``errors``."""
    if not isinstance(errors, str) or errors not in ("raise", "mark"):
        raise ValueError(f"errors must be 'raise' or 'mark', got {show(errors)}")


def unexpected(name: object) -> NoReturn:
    """Refuse a keyword that is no parameter."""
    raise TypeError(f"got an unexpected keyword argument {show(name)}")
