"""The loop from a model to a text."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from toksample._sampler import Sampler, SamplingParams


def generate(
    model: Callable[[list[int]], object],
    prompt_ids: Sequence[int],
    params: SamplingParams | Callable[[Any], int] | None = None,
    *,
    max_new_tokens: int = 256,
    stop_token_ids: Collection[int] = (),
    **keywords: Any,
) -> Iterator[int]:
    """Yield the tokens that continue a prompt, each as soon as it is drawn.

    Parameters
    ----------
    model : callable
        From a list of token ids, the prompt and what was drawn so far, to the logits of the next token, of shape (V,). It is
        called once a token and must not keep the list, which grows. A model with a cache runs only the ids that are new.
    prompt_ids : sequence of int
        At least one token id.
    params : SamplingParams or callable, optional
        How to draw; or a sampler, from logits to a token id. Parameters may be given as keywords instead.
    max_new_tokens : int
        >= 0. Stop after so many.
    stop_token_ids : collection of int
        Stop before one of these: it ends the text and is not yielded.
    **keywords
        The fields of :class:`SamplingParams`.

    Yields
    ------
    int
        The next token id.

    Examples
    --------
    >>> model = lambda ids: np.eye(8, dtype=np.float32)[(ids[-1] + 1) % 8]  # counts up
    >>> list(toksample.generate(model, [2], temperature=0, stop_token_ids=[6]))
    [3, 4, 5]
    """
    ids = _token_ids("prompt_ids", prompt_ids)
    if not ids:
        raise ValueError("prompt_ids must have at least one token id, got none")
    try:
        most = operator.index(max_new_tokens)
    except TypeError:
        raise TypeError(f"max_new_tokens must be an integer, got {max_new_tokens!r}") from None
    if most < 0:
        raise ValueError(f"max_new_tokens must be >= 0, got {most}")
    if params is not None and not isinstance(params, SamplingParams) and not callable(params):
        raise TypeError(f"params must be a SamplingParams or a sampler, got {params!r}")
    if params is not None and not isinstance(params, SamplingParams):
        if keywords:
            raise TypeError(f"a sampler and keywords must not both be given, got {', '.join(keywords)}")
        sampler = params
    else:
        sampler = Sampler(params, **keywords)
    return _tokens(model, ids, sampler, most, frozenset(_token_ids("stop_token_ids", stop_token_ids)))


def _token_ids(name: str, ids: Collection[int]) -> list[int]:
    try:
        return [operator.index(token) for token in ids]
    except TypeError:
        raise TypeError(f"{name} must be integers, got {ids!r}") from None


def _tokens(
    model: Callable[[list[int]], object],
    ids: list[int],
    sampler: Callable[[Any], int],
    max_new_tokens: int,
    stop_token_ids: frozenset[int],
) -> Iterator[int]:
    for _ in range(max_new_tokens):
        token = sampler(model(ids))
        if token in stop_token_ids:
            return
        yield token
        ids.append(token)
