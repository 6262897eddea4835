"""Parameters of the numpy reference: one value for each row, each in its range, with the errors of the kernels."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from toksample._arrays import as_float32, as_native

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


Rule = tuple[str, Callable[[Any], bool]]

_RULES: dict[str, Rule] = {
    "temperature": ("finite and >= 0", lambda x: math.isfinite(x) and x >= 0),
    "top_p": ("in (0, 1]", lambda x: 0 < x <= 1),
    "min_p": ("in [0, 1]", lambda x: 0 <= x <= 1),
}


def numbers(name: str, value: object, rows: Rows) -> list[float]:
    """Give a float parameter for each row."""
    return _per_row(name, value, rows, _number, "a number", _RULES[name])


def integers(name: str, value: object, rows: Rows) -> list[int]:
    """Give an integer parameter in [0, 2**64) for each row."""
    rule = ("in [0, 2**64)", lambda x: 0 <= x < 2**64)
    if name == "top_k":
        return _per_row(name, value, rows, operator.index, "an integer", (">= 0", lambda x: x >= 0), rule)
    return _per_row(name, value, rows, operator.index, "an integer", rule)


def count(name: str, value: object, most: int) -> int:
    """Give an integer in [1, most]."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if not 1 <= number <= most:
        raise ValueError(f"{name} must be in [1, {most}], got {number}")
    return number


def _number(value: Any) -> float:
    if isinstance(value, (str, bytes)):
        raise TypeError
    return float(value)


def _per_row(name: str, value: Any, rows: Rows, convert: Callable[[Any], Any], what: str, *rules: Rule) -> list[Any]:
    count = len(rows.rows)
    wrong_type = TypeError(f"{name} must be {what}{' or one for each row' if rows.is_batch else ''}, got {value!r}")
    try:
        values = list(value) if len(value) >= 0 else []
    except TypeError:
        values = None
    if values is not None:
        if isinstance(value, str) or not rows.is_batch:
            raise wrong_type
        if len(values) != count:
            raise ValueError(f"{name} must have one value for each of the {count} rows, got {len(values)}")
    try:
        converted = [convert(one) for one in ([value] if values is None else values)]
    except (TypeError, ValueError, OverflowError):
        raise wrong_type from None
    for b, one in enumerate(converted):
        for rule, holds in rules:
            if not holds(one):
                raise ValueError(f"{name} must be {rule}, got {one!r}{'' if values is None else f' (row {b})'}")
    return converted * count if values is None else converted


class Filters(NamedTuple):
    """The filters' parameters of one row."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float


def filters(temperature: object, top_k: object, top_p: object, min_p: object, rows: Rows) -> list[Filters]:
    """Give the filters' parameters of each row, each in its range."""
    columns = (
        numbers("temperature", temperature, rows),
        integers("top_k", top_k, rows),
        numbers("top_p", top_p, rows),
        numbers("min_p", min_p, rows),
    )
    return [Filters(*row) for row in zip(*columns, strict=True)]


def errors_mode(errors: object) -> None:
    """Check the parameter ``errors``."""
    if not isinstance(errors, str) or errors not in ("raise", "mark"):
        raise ValueError(f"errors must be 'raise' or 'mark', got {errors!r}")


def write_out(result: npt.NDArray[Any], out: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    """Copy a result to ``out``, if there is one; the kernels' checks of it are theirs alone."""
    if out is None:
        return result
    out[...] = result
    return out
