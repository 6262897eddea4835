"""Reads the parameters of each row for the numpy reference, and raises the errors of rows without an answer."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from toksample._orders import edits as edits_of
from toksample._orders import steps
from toksample._parameters import (
    DEFAULTS,
    NAMES,
    PARAMETERS,
    RULES,
    Ids,
    biases,
    bitmask,
    check_count,
    check_order,
    per_row,
    rule,
    token_ids,
    unexpected,
)

MAX_TOKENS = 2**22


def check_names(parameters: Mapping[str, object]) -> None:
    """Raise an error if a keyword is not a parameter of a draw."""
    for name in parameters:
        if name not in NAMES:
            unexpected(name)


def check_tokens(native: npt.NDArray[Any]) -> None:
    """Raise an error if the rows have too few or too many tokens."""
    if not 1 <= native.shape[-1] <= MAX_TOKENS:
        raise ValueError(f"logits must have 1 to {MAX_TOKENS} tokens a row, got shape {native.shape}")


# ---- parameters ------------------------------------------------------------------------------------------------------


def numbers(parameters: Mapping[str, object], rows: int, tokens: int, is_batch: bool) -> list[dict[str, Any]]:
    """Give, for each row, the parameters that are numbers, and what else the filters need. What is not given is off."""
    random = int.from_bytes(os.urandom(8))
    columns: dict[str, list[Any]] = {}
    for name in PARAMETERS:
        value = parameters.get(name, DEFAULTS[name])
        if value is None and name == "seed":
            columns[name] = [random] * rows
        elif value is None and name == "stream":
            columns[name] = list(range(rows))
        elif value is None and name == "mirostat_mu":
            columns[name] = [2 * tau for tau in columns["mirostat_tau"]]
        elif value is None and name == "adaptive_average":
            columns[name] = columns["adaptive_target"]
        else:
            columns[name] = _column(name, value, rows, is_batch)
    order = steps(parameters.get("order"))
    check_order(order, parameters)
    columns["order"] = [order] * rows
    columns["xtc_exempt_token_ids"] = _rule("xtc_exempt_token_ids", parameters, rows, tokens, is_batch)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _column(name: str, value: object, rows: int, is_batch: bool) -> list[Any]:
    read = per_row(name, value)
    if not isinstance(read, list):
        return [read] * rows
    check_count(name, value, len(read), rows, is_batch)
    return read


class Edits(NamedTuple):
    """Everything that changes the logits of one row before the filters see them."""

    allowed: npt.NDArray[np.int32] | None
    """The words of the row's bitmask."""
    bias_ids: Ids
    biases: npt.NDArray[np.float64]
    history: Ids
    """The tokens of the prompt and the output that are in the window of the penalties."""
    output: Ids
    """The part of `history` that belongs to the output."""
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    prompt: Ids
    whole_output: Ids
    """The tokens of the prompt and of the output, whatever the window."""
    allowed_token_ids: list[int] | None
    suppress_tokens: list[int]
    begin_suppress_tokens: list[int]
    eos_token_ids: list[int]
    min_new_tokens: int
    forced_bos_token_id: int | None
    forced_eos_token_id: int | None
    max_new_tokens: int
    sequence_bias: list[tuple[list[int], float]]
    bad_words_ids: list[list[int]]
    encoder_repetition_penalty: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int
    dry_sequence_breakers: list[int]
    no_repeat_ngram_size: int
    exponential_decay_length_penalty: tuple[int, float] | None
    order: tuple[str, ...]
    """All edits, in the order in which they are applied. The bans come before them."""


_FORCED = ("allowed_token_ids", "forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty")
"""The rules that differ from an empty list where they are not given."""


def edits(parameters: Mapping[str, object], rows: int, tokens: int, is_batch: bool) -> list[Edits]:
    """Return the edits of each row."""
    value = parameters.get("bitmask")
    allowed = [None] * rows if value is None else list(bitmask(value, rows, is_batch, tokens))
    value = parameters.get("logit_bias")
    bias_ids, bias_values, bounds = biases({} if value is None else value, rows, is_batch, tokens)
    prompts = ids_of_rows("prompt_ids", parameters, rows, tokens, is_batch)
    outputs = ids_of_rows("output_ids", parameters, rows, tokens, is_batch)
    rules = {name: _rule(name, parameters, rows, tokens, is_batch) for name in RULES if name in Edits._fields}
    result = []
    for b, row in enumerate(numbers(parameters, rows, tokens, is_batch)):
        bias = slice(*bounds[:2] if len(bounds) == 2 else bounds[b : b + 2])
        history = np.concatenate([prompts[b], outputs[b]])
        start = max(0, len(history) - row["penalty_window"]) if row["penalty_window"] else 0
        result.append(
            Edits(
                allowed=allowed[b],
                bias_ids=bias_ids[bias],
                biases=bias_values[bias],
                history=history[start:],
                output=history[max(start, len(prompts[b])) :],
                prompt=prompts[b],
                whole_output=outputs[b],
                **{name: each[b] for name, each in rules.items()},
                **{name: row[name] for name in row.keys() & set(Edits._fields) - {"order"}},
                order=edits_of(row["order"]),
            )
        )
    return result


def ids_of_rows(name: str, parameters: Mapping[str, object], rows: int, tokens: int, is_batch: bool) -> list[Ids]:
    """Give the token ids of each row."""
    value = parameters.get(name)
    if value is None:
        return [np.empty(0, np.int64)] * rows
    ids, offsets = token_ids(name, value, rows, is_batch, tokens)
    return [ids[start:stop] for start, stop in itertools.pairwise(offsets)]


def _rule(name: str, parameters: Mapping[str, object], rows: int, tokens: int, is_batch: bool) -> list[Any]:
    value = parameters.get(name)
    read = [None] if value is None else rule(name, value, rows, is_batch, tokens)
    each = read * rows if len(read) == 1 else read
    return each if name in _FORCED else [[] if one is None else one for one in each]


# ---- rows without an answer ------------------------------------------------------------------------------------------


def row_error(row: npt.NDArray[Any], ids: Ids | None = None) -> tuple[str, str] | None:
    """Return what is wrong with a row, and at which id; None if nothing is wrong. ``ids`` are those of a part of a row."""
    wrong = np.flatnonzero(np.isnan(row) | (row == np.inf))
    if len(wrong):
        return ("nan" if np.isnan(row[wrong[0]]) else "inf"), f"id {wrong[0] if ids is None else ids[wrong[0]]}"
    if np.all(row == -np.inf):
        return "only -inf", ""
    return None


def raise_row_errors(
    rows: npt.NDArray[Any] | list[npt.NDArray[Any]], is_batch: bool, ids: list[Ids] | None = None
) -> None:
    """If there are rows without an answer, raise an error that names them."""
    each = enumerate(zip(rows, [None] * len(rows) if ids is None else ids, strict=True))
    found = [(b, error) for b, (row, of_row) in each if (error := row_error(row, of_row)) is not None]
    if not found:
        return
    rule = "have a finite value" if all(what == "only -inf" for _, (what, _) in found) else "be finite or -inf"
    texts = [_row_text(b, what, where, is_batch) for b, (what, where) in found[:8]]
    if len(found) > 8:
        texts.append(f"and {len(found) - 8} more rows")
    raise ValueError(f"logits must {rule}, got {'; '.join(texts)}")


def _row_text(b: int, what: str, where: str, is_batch: bool) -> str:
    if not is_batch:
        return f"{what} at {where}" if where else what
    return f"{what} at row {b}, {where}" if where else f"{what} in row {b}"
