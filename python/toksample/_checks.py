"""Rows of logits and their parameters, as the numpy reference computes with them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from toksample._arrays import as_float32, as_native
from toksample._parameters import check_count, per_row

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


def for_rows(name: str, value: object, rows: Rows) -> list[Any]:
    """Give a parameter for each row."""
    read = per_row(name, value)
    if not isinstance(read, list):
        return [read] * len(rows.rows)
    check_count(name, value, len(read), len(rows.rows), rows.is_batch)
    return read


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


def write_out(result: npt.NDArray[Any], out: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    """Copy a result to ``out``, if there is one; the kernels' checks of it are theirs alone."""
    if out is None:
        return result
    out[...] = result
    return out
