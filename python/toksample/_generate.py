"""The loop from a model to a text."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Unpack

import numpy as np

from toksample._parameters import GenerateParameters, SamplingParams
from toksample._sampler import Sampler
from toksample._text import show


def generate(
    model: Callable[[list[int]], object],
    prompt_ids: Sequence[int],
    params: SamplingParams | Callable[[Any], int] | None = None,
    *,
    max_new_tokens: int = 256,
    stop_token_ids: Collection[int] = (),
    num_threads: int | None = None,
    **parameters: Unpack[GenerateParameters],
) -> Iterator[int]:
    """Yield the tokens that continue a prompt, each as soon as it is drawn.

    Parameters
    ----------
    model : callable
        From a list of token ids, the prompt and what was drawn so far, to the logits of the next token, of shape (V,), (1, V)
        or (1, 1, V). It is called once a token and must not keep the list, which grows. A model with a cache runs only the
        ids that are new.
    prompt_ids : sequence of int
        At least one token id, each in [0, 2**63).
    params : SamplingParams or callable, optional
        How to draw; or a sampler, which is called with logits of shape (V,) and returns a token id. Parameters may be given
        as keywords instead. Unlike the sampler that is made of parameters, one that is given must know the prompt already, if
        a penalty is to count it: ``Sampler(params, prompt_ids=prompt_ids)``.
    max_new_tokens : int
        >= 0. Stop after so many. The keyword ``forced_eos_token_id`` is the last of them.
    stop_token_ids : collection of int
        Stop before one of these: it ends the text and is not yielded.
    num_threads : int, optional
        >= 1. Draw with at most so many threads; see :class:`Sampler`.
    **parameters
        The fields of :class:`SamplingParams`.

    Yields
    ------
    int
        The next token id.

    Raises
    ------
    ValueError, TypeError
        At the call, for a parameter out of range. While the tokens are drawn, for logits of another shape, or of more than
        one step, or without an answer; and for a sampler that does not return an integer.

    Examples
    --------
    >>> model = lambda ids: np.eye(8, dtype=np.float32)[(ids[-1] + 1) % 8]  # counts up
    >>> list(toksample.generate(model, [2], temperature=0, stop_token_ids=[6]))
    [3, 4, 5]
    """
    ids = _token_ids("prompt_ids", prompt_ids)
    if not ids:
        raise ValueError("prompt_ids must have at least one token id, got none")
    for token in ids:
        if not 0 <= token < 2**63:
            raise ValueError(f"prompt_ids must be in [0, 2**63), got {show(token)}")
    try:
        most = operator.index(max_new_tokens)
    except TypeError:
        raise TypeError(f"max_new_tokens must be an integer, got {show(max_new_tokens)}") from None
    if most < 0:
        raise ValueError(f"max_new_tokens must be >= 0, got {show(most)}")
    keywords = [*parameters, *([] if num_threads is None else ["num_threads"])]
    if params is None or isinstance(params, SamplingParams):
        prompt = np.array(ids, np.int64)  # a copy, for `ids` will grow
        given: dict[str, Any] = dict(parameters)
        if "forced_eos_token_id" in given:
            given["max_new_tokens"] = min(most, 2**64 - 1)
        sampler: Callable[[Any], Any] = Sampler(params, prompt_ids=prompt, num_threads=num_threads, **given)
    elif not callable(params):
        raise TypeError(f"params must be a SamplingParams or a sampler, got {show(params)}")
    elif keywords:
        raise TypeError(f"a sampler and keywords must not both be given, got {', '.join(keywords)}")
    else:
        sampler = params
    return _tokens(model, ids, sampler, most, frozenset(_token_ids("stop_token_ids", stop_token_ids)))


def _token_ids(name: str, ids: Collection[int]) -> list[int]:
    try:
        return [operator.index(token) for token in ids]
    except TypeError:
        raise TypeError(f"{name} must be integers, got {show(ids)}") from None


def _tokens(
    model: Callable[[list[int]], object],
    ids: list[int],
    sampler: Callable[[Any], Any],
    max_new_tokens: int,
    stop_token_ids: frozenset[int],
) -> Iterator[int]:
    for _ in range(max_new_tokens):
        drawn = sampler(_one_row(model(ids)))
        try:
            token = operator.index(drawn)
        except TypeError:
            raise TypeError(f"the sampler must return an integer, got {show(drawn)} from {show(sampler)}") from None
        if token in stop_token_ids:
            return
        yield token
        ids.append(token)


def _one_row(logits: Any) -> Any:
    """Give the logits of one step, of shape (V,), (1, V) or (1, 1, V), the shape (V,)."""
    shape = _shape(logits)
    if shape is None or len(shape) == 1:
        return logits  # without a shape, the sampler says what it thinks of them
    is_list = isinstance(logits, (list, tuple))
    if len(shape) not in (2, 3) or any(size != 1 for size in shape[:-1]):
        hint = _hint(shape, is_list)
        raise ValueError(f"logits must be of shape (V,), (1, V) or (1, 1, V), got shape {show(shape)}{hint}")
    # What cannot be reshaped may not be an array: [0] of a table is its first column.
    row = logits if is_list or hasattr(logits, "reshape") else np.asarray(logits)
    for _ in shape[:-1]:
        row = row[0]
    return row


def _shape(logits: Any) -> tuple[int, ...] | None:
    """Return the shape of an array or of nested lists, whose first elements stand for the others; None if there is none."""
    sizes: list[int] = []
    while isinstance(logits, (list, tuple)) and len(sizes) < 4:  # a list may contain itself
        sizes.append(len(logits))
        logits = logits[0] if logits else 0.0
    try:
        return (*sizes, *(operator.index(size) for size in logits.shape))
    except Exception:  # no shape, or one that its array refuses to tell
        return tuple(sizes) or None


def _hint(shape: tuple[int, ...], is_list: bool) -> str:
    """Say how to take the last step from the logits of several."""
    if len(shape) not in (2, 3) or 0 in shape:
        return ""
    if len(shape) == 2:
        return ": for the last step, write logits[-1]"
    if shape[0] == 1:
        return f": for the last step, write {'logits[0][-1]' if is_list else 'logits[:, -1]'}"
    return f": for the last step of the first text, write {'logits[0][-1]' if is_list else 'logits[0, -1]'}"
