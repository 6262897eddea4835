"""The functions of the package, on rows and batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from toksample._arrays import as_float32, as_given, as_native, like
from toksample._asks import ASKS, Asks
from toksample._logprobs import Sampled, as_sampled
from toksample._parameters import Parameters, count, errors_mode, ids_to_score, show_parameters, wanted_logprobs
from toksample._receipts import VERSION, Receipt
from toksample._rows import check_names, check_tokens, edits, numbers, raise_row_errors, row_error
from toksample._scores import Scores, as_scores
from toksample.reference.drawing import draw, draw_interval, draw_word, filter_word
from toksample.reference.edits import edit
from toksample.reference.filters import Filters, survivors
from toksample.reference.logprobs import (
    Description,
    describe,
    distribution_of_draw,
    distribution_of_row,
    log_probabilities,
    score_of_row,
)
from toksample.reference.masses import Ids, Logits, Row, S, mass, order, weight
from toksample.reference.sets import draw_several, join, probabilities

# ---- probabilities ---------------------------------------------------------------------------------------------------


def softmax_of_row(row: Row, temperature: float) -> Row:
    """Return the probabilities of a row: each weight by the sum of the masses."""
    if temperature == 0:
        result: Row = (np.arange(len(row)) == np.argmax(row)).astype(np.float32)
        return result
    w = weight(row, temperature)
    total = int(mass(row, temperature).sum())
    result = np.where(w > np.float32(2.0 ** (S - 64)), w, np.float32(0)) * np.float32(1.0 / float(total))
    return result


def log_softmax_of_row(row: Row, temperature: float) -> Row:
    """Return the natural logarithms of the probabilities of a row, rounded to float32."""
    with np.errstate(over="ignore"):
        return log_probabilities(row, temperature).astype(np.float32)


# ---- the functions of the package --------------------------------------------------------------------------------------


def edited(array: Logits, parameters: Mapping[str, object]) -> Logits:
    """Return the logits, of shape (V,) or (B, V), with the edits that the parameters ask for."""
    rows = np.atleast_2d(array)
    check_tokens(array)
    each = edits(parameters, len(rows), rows.shape[1], array.ndim == 2)
    return np.array([edit(row, one) for row, one in zip(rows, each, strict=True)], array.dtype).reshape(array.shape)


def edited_rows(logits: object, parameters: Mapping[str, object]) -> tuple[npt.NDArray[np.float32], bool]:
    """Return the logits as edited float32 rows, and whether they came as a batch."""
    check_names(parameters)
    native, _, is_edited = as_native(logits, parameters)
    check_tokens(native)
    rows = as_float32(native)
    return np.atleast_2d(rows if is_edited else edited(rows, parameters)), rows.ndim == 2


def for_each_row(
    function: Callable[[Row, dict[str, Any]], Any],
    logits: object,
    parameters: Mapping[str, object],
    *,
    dtype: npt.DTypeLike,
    is_wide: bool = True,
    width: int | None = None,
    errors: str = "raise",
    mark: int | None = -1,
) -> Any:
    """Call a function on each row and its parameters, and return what it gives: one thing, or one for each token.

    With ``width``, it gives that many numbers.
    """
    rows, is_batch = edited_rows(logits, parameters)
    each = numbers(parameters, len(rows), rows.shape[1], is_batch)
    if errors == "raise":
        raise_row_errors(rows, is_batch)
    shape = rows.shape if is_wide else (len(rows),) if width is None else (len(rows), width)
    result = np.full(shape, mark, dtype)
    for b, row in enumerate(rows):
        if row_error(row) is None:
            result[b] = function(row, each[b])
    return result if is_batch else result[0]


def filters_of(params: Mapping[str, Any]) -> Filters:
    """Return the filters of a row, with their random word."""
    word = filter_word(params["seed"], params["stream"], params["position"])
    return Filters(word=word, **{name: params[name] for name in Filters._fields if name != "word"})


def _written(result: Any, out: npt.NDArray[Any] | None) -> Any:
    """Copy a result to ``out``, if there is one; the kernels' checks of it are theirs alone."""
    if out is None:
        return result
    out[...] = result
    return out


def argmax(logits: object, *, num_threads: int | None = None) -> Any:
    """See :func:`toksample.argmax`."""
    tokens = for_each_row(lambda row, _: np.argmax(row), logits, {}, dtype=np.int64, is_wide=False)
    return tokens if tokens.ndim else int(tokens)


def softmax(
    logits: object,
    temperature: float | npt.ArrayLike | None = 1.0,
    *,
    out: npt.NDArray[np.float32] | None = None,
    num_threads: int | None = None,
) -> Any:
    """See :func:`toksample.softmax`."""
    parameters = {"temperature": temperature}
    probs = for_each_row(
        lambda row, params: softmax_of_row(row, params["temperature"]), logits, parameters, dtype=np.float32
    )
    return like(probs, logits) if out is None else _written(probs, out)


def log_softmax(
    logits: object,
    temperature: float | npt.ArrayLike | None = 1.0,
    *,
    out: npt.NDArray[np.float32] | None = None,
    num_threads: int | None = None,
) -> Any:
    """See :func:`toksample.log_softmax`."""
    parameters = {"temperature": temperature}
    logprobs = for_each_row(
        lambda row, params: log_softmax_of_row(row, params["temperature"]), logits, parameters, dtype=np.float32
    )
    return like(logprobs, logits) if out is None else _written(logprobs, out)


def top_k(logits: object, k: int, *, num_threads: int | None = None) -> tuple[Any, Any]:
    """See :func:`toksample.top_k`."""
    rows, is_batch = edited_rows(logits, {})
    k = count("k", k, rows.shape[1])
    raise_row_errors(rows, is_batch)
    given = np.atleast_2d(as_given(logits)[0])
    sortable = given if given.dtype == np.float64 else rows  # float64 is sorted as it is, before it is rounded
    ids = np.array([order(row)[:k] for row in sortable], np.int64).reshape(-1, k)
    values = np.take_along_axis(given, ids, axis=1)
    if not is_batch:
        values, ids = values[0], ids[0]
    return like(values, logits), like(ids, logits)


def _draw_from_row(row: Row, params: dict[str, Any]) -> int:
    word = draw_word(params["seed"], params["stream"], params["position"])
    return draw(*survivors(row, filters_of(params)), word)


@show_parameters(errors="raise", num_threads=None, out=None, **ASKS)
def sample(
    logits: object,
    *,
    receipt: bool = False,
    errors: str = "raise",
    num_threads: int | None = None,
    out: npt.NDArray[np.int64] | None = None,
    logprobs: int | None = None,
    logprobs_mode: str = "raw_logprobs",
    logprob_token_ids: npt.ArrayLike | None = None,
    n: int | None = None,
    replacement: bool = True,
    **parameters: Unpack[Parameters],
) -> Any:
    """See :func:`toksample.sample`."""

    def draw_several_from_row(row: Row, params: dict[str, Any]) -> Ids:
        n, replacement = asks.several()
        if parameters.get("stream") is None:
            params["stream"] *= n  # the streams of the rows follow each other
        streams = [(params["stream"] + j) % 2**64 for j in range(n)]
        words = [draw_word(params["seed"], stream, params["position"]) for stream in streams]
        return draw_several(*survivors(row, filters_of(params)), words, replacement)

    errors_mode(errors)
    asks = Asks(logprobs, logprobs_mode, logprob_token_ids, receipt, n, replacement)
    function: Callable[[Row, dict[str, Any]], Any] = _draw_from_row
    width = None
    match asks.kind(out):
        case "logprobs":
            return _sample_with_logprobs(logits, parameters, asks, errors)
        case "receipt":
            receipts = for_each_row(
                _receipt_of_row, logits, parameters, dtype=object, is_wide=False, errors=errors, mark=None
            )
            return receipts.tolist() if isinstance(receipts, np.ndarray) else receipts
        case "n":
            function, width = draw_several_from_row, asks.several()[0]
    tokens = for_each_row(function, logits, parameters, dtype=np.int64, is_wide=False, width=width, errors=errors)
    if out is not None:
        return _written(tokens, out)
    return tokens if tokens.ndim else int(tokens)


def _sample_with_logprobs(logits: object, parameters: Mapping[str, object], asks: Asks, errors: str) -> Sampled:
    rows, is_batch = edited_rows(logits, parameters)
    each = numbers(parameters, len(rows), rows.shape[1], is_batch)
    top, is_processed, is_logits, given = wanted_logprobs(*asks[:3], len(rows), is_batch, rows.shape[1])
    given_ids = np.empty((len(rows), 0), np.int64) if given is None else given
    raw = rows if is_processed else edited_rows(logits, {})[0]
    if errors == "raise":
        both = [other if row_error(row) is None else row for row, other in zip(rows, raw, strict=True)]
        raise_row_errors(np.array(both), is_batch)
    tokens = np.full(len(rows), -1, np.int64)
    lacking = Description(-np.inf, 0, np.full(top, -1), np.full(top, -np.inf), np.full(given_ids.shape[1], -np.inf))
    found = [lacking] * len(rows)
    for b, (row, of_raw, params) in enumerate(zip(rows, raw, each, strict=True)):
        if row_error(row) is None and row_error(of_raw) is None:
            tokens[b] = _draw_from_row(row, params)
            of = distribution_of_draw(row, filters_of(params)) if is_processed else distribution_of_row(of_raw)
            found[b] = describe(of, int(tokens[b]), top, given_ids[b], is_logits=is_logits)
    columns = list(zip(*found, strict=True)) or [()] * len(Description._fields)
    logprobs, ranks, top_ids, top_logprobs, given_logprobs = columns
    fields: tuple[Any, ...] = (
        tokens,
        np.array(logprobs, np.float64),
        np.array(ranks, np.int64),
        np.array(top_ids, np.int64).reshape(len(rows), top),
        np.array(top_logprobs, np.float64).reshape(len(rows), top),
        given,
        None if given is None else np.array(given_logprobs, np.float64).reshape(given.shape),
    )
    if not is_batch:
        own, others = [field.item() for field in fields[:3]], fields[3:]
        fields = (*own, *(None if field is None else field[0] for field in others))
    return as_sampled(logits, asks.logprobs_mode, fields)


def score(
    logits: object, ids: object, *, temperature: float | npt.ArrayLike | None = 1.0, num_threads: int | None = None
) -> Scores:
    """See :func:`toksample.score`."""
    parameters = {"temperature": temperature}
    rows, is_batch = edited_rows(logits, parameters)
    each = numbers(parameters, len(rows), rows.shape[1], is_batch)
    tokens = ids_to_score(ids, len(rows), is_batch, rows.shape[1])
    raise_row_errors(rows, is_batch)
    scored = [
        score_of_row(row, token, params["temperature"])
        for row, token, params in zip(rows, tokens.tolist(), each, strict=True)
    ]
    logprobs, ranks = list(zip(*scored, strict=True)) or [(), ()]
    if not is_batch:
        return as_scores(logits, ids, temperature, logprobs[0], ranks[0])
    return as_scores(logits, ids, temperature, np.array(logprobs, np.float64), np.array(ranks, np.int64))


def _receipt_of_row(row: Row, params: dict[str, Any]) -> Receipt:
    seed, stream, position = params["seed"], params["stream"], params["position"]
    word = draw_word(seed, stream, position)
    drawn = draw_interval(*survivors(row, filters_of(params)), word)
    return Receipt(
        VERSION,
        drawn.token,
        seed,
        stream,
        position,
        word,
        total=drawn.total,
        target=drawn.target,
        start=drawn.start,
        stop=drawn.stop,
        mirostat_mu=params["mirostat_mu"] if params["mirostat"] else None,
        adaptive_average=params["adaptive_average"] if params["adaptive_target"] >= 0 else None,
    )


@show_parameters(num_threads=None)
def candidates(logits: object, *, num_threads: int | None = None, **parameters: Unpack[Parameters]) -> Any:
    """See :func:`toksample.candidates`."""
    rows, is_batch = edited_rows(logits, parameters)
    each = numbers(parameters, len(rows), rows.shape[1], is_batch)
    raise_row_errors(rows, is_batch)
    sets = [survivors(row, filters_of(params)) for row, params in zip(rows, each, strict=True)]
    return join(sets) if is_batch else (sets[0][0], probabilities(sets[0][1]))


@show_parameters(num_threads=None)
def mask_logits(logits: object, *, num_threads: int | None = None, **parameters: Unpack[Parameters]) -> Any:
    """See :func:`toksample.mask_logits`."""

    def is_kept(row: Row, params: dict[str, Any]) -> npt.NDArray[np.bool_]:
        return np.isin(np.arange(len(row)), survivors(row, filters_of(params))[0])

    kept = for_each_row(is_kept, logits, parameters, dtype=np.bool_)
    given = as_given(logits)[0]
    dropped = 0xFF80 if given.dtype == np.uint16 else -np.inf  # -inf in bfloat16
    return like(np.where(kept, given, np.array(dropped, given.dtype)), logits)
