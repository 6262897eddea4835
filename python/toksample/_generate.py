"""The generation loop, which calls a model and a sampler in turn."""

from __future__ import annotations

import dataclasses
import itertools
import operator
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Unpack

import numpy as np

from toksample._generation_config import GenerationConfig
from toksample._parameters import GenerateParameters, SamplingParams, at_least_0
from toksample._sampler import Sampler, read_params
from toksample._text import show


def generate(
    model: Callable[..., object],
    prompt_ids: Sequence[int],
    params: SamplingParams | GenerationConfig | Callable[..., Any] | None = None,
    *,
    draft: Callable[[list[int]], Sequence[int]] | None = None,
    max_new_tokens: int | None = None,
    min_new_tokens: int | None = None,
    stop_token_ids: Collection[int] | None = None,
    num_threads: int | None = None,
    logprobs: int | None = None,
    logprobs_mode: str = "raw_logprobs",
    **parameters: Unpack[GenerateParameters],
) -> Iterator[Any]:
    """Yield the tokens that continue a prompt, each as soon as it is drawn.

    Parameters
    ----------
    model : callable
        Takes a list of token ids, which are the prompt and the tokens drawn so far. Returns the logits of the next token, of
        shape (V,), (1, V) or (1, 1, V). It is called once for each token. It must not keep the list, because the list grows.
        A model with a cache only has to run the ids that are new. With a draft, it is called as ``model(ids,
        logits_to_keep=n)``, and returns the logits of the tokens that follow each of the last n ids: of shape (n, V) or (1, n,
        V).
    prompt_ids : sequence of int
        At least one token id, each in [0, 2**63).
    params : SamplingParams, GenerationConfig or callable, optional
        How to draw; or a config, which also says when to stop; or a sampler, which is called with logits of shape (V,) and
        returns a token id. Parameters may be given as keywords instead. Their ``eos_token_ids`` end the text as well, and
        methods such as ``forced_eos_token_id`` know how long it may be. Unlike the sampler that is made of parameters, one
        that is given must know the prompt already, if a penalty is to count it: ``Sampler(params, prompt_ids=prompt_ids)``.
    draft : callable, optional
        Takes the same list, and returns a guess of the tokens that follow: any number of ids, or none. The model then checks
        all of them in one call, as :func:`verify_draft` does. The text is the same with any draft and without one, as far as
        the model's logits do not depend on how many it computes at once; a good draft makes it come sooner.
        :class:`PromptLookup` is one that needs no other model.
    max_new_tokens : int, optional
        >= 0. Stop after so many. Without it and without a config that has a limit, this is 256.
    min_new_tokens : int, optional
        >= 0. Ban the tokens that end the text until there are so many others. A sampler that is given is then called with
        ``logit_bias`` as well, which a :class:`Sampler` takes.
    stop_token_ids : collection of int, optional
        Stop before one of these: it ends the text and is not yielded. A config has two kinds of them, and this takes the
        place of both.
    num_threads : int, optional
        At least 1. As in :class:`Sampler`.
    logprobs, logprobs_mode : optional
        As in :func:`toksample.sample`. A sampler that is given is then called with these keywords, and must return an object
        with the attribute ``tokens``.
    **parameters
        The fields of :class:`SamplingParams`.

    Yields
    ------
    int or Sampled
        The next token id, or with ``logprobs`` a :class:`Sampled` with it.

    Raises
    ------
    ValueError, TypeError
        At the call, for a parameter out of range, and for a config with ``stop_strings``, which need a tokenizer. While the
        tokens are drawn, for logits of another shape, or of another number of steps, or without an answer; for a sampler that
        does not return an integer; and for a draft that does not return token ids.

    Examples
    --------
    >>> model = lambda ids: np.eye(8, dtype=np.float32)[(ids[-1] + 1) % 8]  # counts up
    >>> list(toksample.generate(model, [2], temperature=0, stop_token_ids=[6]))
    [3, 4, 5]
    >>> [round(drawn.logprobs, 3) for drawn in toksample.generate(model, [2], temperature=0, max_new_tokens=2, logprobs=0)]
    [-1.274, -1.274]

    With a draft, the model is called twice for five tokens:

    >>> model = lambda ids, logits_to_keep=1: np.eye(8, dtype=np.float32)[(np.array(ids[-logits_to_keep:]) + 1) % 8]
    >>> draft = lambda ids: [ids[-1] + 1, ids[-1] + 2, 0]
    >>> list(toksample.generate(model, [1], temperature=0, draft=draft, max_new_tokens=5))
    [2, 3, 4, 5, 6]
    """
    ids = _token_ids("prompt_ids", prompt_ids)
    if not ids:
        raise ValueError("prompt_ids must have at least one token id, got none")
    for token in ids:
        if not 0 <= token < 2**63:
            raise ValueError(f"prompt_ids must be in [0, 2**63), got {show(token)}")
    config = params if isinstance(params, GenerationConfig) else GenerationConfig()
    given = params.params if isinstance(params, GenerationConfig) else params
    if given is None or isinstance(given, SamplingParams):
        config = dataclasses.replace(config, params=read_params(given, dict(parameters)))
    if config.stop_strings:
        raise ValueError(f"stop_strings must be empty where there is no tokenizer, got {show(config.stop_strings)}")
    most = at_least_0("max_new_tokens", config.limit(len(ids)) if max_new_tokens is None else max_new_tokens)
    least = at_least_0("min_new_tokens", config.min_new_tokens if min_new_tokens is None else min_new_tokens)
    stops = config.stops if stop_token_ids is None else frozenset(_token_ids("stop_token_ids", stop_token_ids))
    if not isinstance(params, GenerationConfig):
        stops |= frozenset(config.eos_token_ids)  # which the parameters have
    if draft is not None and not callable(draft):
        raise TypeError(f"draft must be callable, got {show(draft)}")
    keywords = [*parameters, *([] if num_threads is None else ["num_threads"])]
    if given is None or isinstance(given, SamplingParams):
        prompt = np.array(ids, np.int64)  # a copy, for `ids` will grow
        own = config.params_of_text(most, stops)
        sampler: Callable[..., Any] = Sampler(own, prompt_ids=prompt, num_threads=num_threads)
    elif not callable(given):
        raise TypeError(f"params must be a SamplingParams or a sampler, got {show(given)}")
    elif keywords:
        raise TypeError(f"a sampler and keywords must not both be given, got {', '.join(keywords)}")
    else:
        sampler = given
    wanted = {} if logprobs is None else {"logprobs": logprobs, "logprobs_mode": logprobs_mode}
    return _tokens(model, ids, sampler, draft, most, least, stops, wanted)


def _token_ids(name: str, ids: Collection[int]) -> list[int]:
    try:
        return [operator.index(token) for token in ids]
    except TypeError:
        raise TypeError(f"{name} must be integers, got {show(ids)}") from None


def _tokens(
    model: Callable[..., object],
    ids: list[int],
    sampler: Callable[..., Any],
    draft: Callable[[list[int]], Sequence[int]] | None,
    max_new_tokens: int,
    min_new_tokens: int,
    stop_token_ids: frozenset[int],
    wanted: dict[str, Any],
) -> Iterator[Any]:
    step = 0
    while step < max_new_tokens:
        # One token more than the draft comes out of a call of the model.
        drafted = [] if draft is None else _drafted(draft, ids)[: max_new_tokens - step - 1]
        rows = [_one_row(model(ids))] if draft is None else _rows(model, ids, drafted)
        for row, guess in itertools.zip_longest(rows, drafted):
            bans = {"logit_bias": _bans(sampler, row, stop_token_ids)} if step < min_new_tokens else {}
            drawn = sampler(row, **bans, **wanted)
            try:
                token = operator.index(drawn.tokens if wanted else drawn)
            except (TypeError, AttributeError):
                what = "an object with a token id as tokens" if wanted else "an integer"
                raise TypeError(f"the sampler must return {what}, got {show(drawn)} from {show(sampler)}") from None
            if token in stop_token_ids:
                return
            yield drawn if wanted else token
            ids.append(token)
            step += 1
            if token != guess:  # the logits that follow are those of another text
                break


def _drafted(draft: Callable[[list[int]], Sequence[int]], ids: list[int]) -> list[int]:
    """Return the tokens of a draft."""
    given = draft(ids)
    try:
        drafted = [operator.index(token) for token in given]
    except TypeError:
        raise TypeError(f"draft must return a sequence of token ids, got {show(given)} from {show(draft)}") from None
    if any(token < 0 for token in drafted):
        raise ValueError(f"draft must return token ids >= 0, got {show(given)} from {show(draft)}")
    return drafted


def _rows(model: Callable[..., object], ids: list[int], drafted: list[int]) -> list[Any]:
    """Return the logits that follow the ids and each token of a draft, each of shape (V,)."""
    steps = len(drafted) + 1
    logits: Any = model(ids + drafted, logits_to_keep=steps)
    shape = _shape(logits)
    if shape is None or len(shape) not in (2, 3) or shape[:-1] not in ((steps,), (1, steps)):
        rule = f"({steps}, V) or (1, {steps}, V), for logits_to_keep={steps}"
        raise ValueError(f"logits must be of shape {rule}, got shape {show(shape or ())}")
    rows = logits if isinstance(logits, (list, tuple)) or hasattr(logits, "reshape") else np.asarray(logits)
    if len(shape) == 3:
        rows = rows[0]
    return [rows[i] for i in range(steps)]


def _bans(sampler: Callable[..., Any], row: Any, stop_token_ids: frozenset[int]) -> dict[int, float]:
    """Give the biases of a step that must not end the text: those of the sampler, and bans of these tokens."""
    tokens = (_shape(row) or (0,))[-1]
    own = sampler.params.logit_bias if isinstance(sampler, Sampler) else None
    return {**(own or {}), **{token: -np.inf for token in stop_token_ids if 0 <= token < tokens}}


def _one_row(logits: Any) -> Any:
    """Return the logits of one step, of shape (V,), (1, V) or (1, 1, V), in the shape (V,)."""
    shape = _shape(logits)
    if shape is None or len(shape) == 1:
        return logits  # if they have no shape, the sampler raises the error
    is_list = isinstance(logits, (list, tuple))
    if len(shape) not in (2, 3) or any(size != 1 for size in shape[:-1]):
        hint = _hint(shape, is_list)
        raise ValueError(f"logits must be of shape (V,), (1, V) or (1, 1, V), got shape {show(shape)}{hint}")
    # An object that cannot be reshaped may not be an array. For a table, for example, [0] is the first column.
    row = logits if is_list or hasattr(logits, "reshape") else np.asarray(logits)
    for _ in shape[:-1]:
        row = row[0]
    return row


def _shape(logits: Any) -> tuple[int, ...] | None:
    """Return the shape of an array or of nested lists, judged by their first elements; None if there is none."""
    sizes: list[int] = []
    while isinstance(logits, (list, tuple)) and len(sizes) < 4:  # a list may contain itself
        sizes.append(len(logits))
        logits = logits[0] if logits else 0.0
    try:
        return (*sizes, *(operator.index(size) for size in logits.shape))
    except Exception:  # it has no shape, or refuses to tell it
        return tuple(sizes) or None


def _hint(shape: tuple[int, ...], is_list: bool) -> str:
    """Return a hint that says how to take the last step from the logits of several steps."""
    if len(shape) not in (2, 3) or 0 in shape:
        return ""
    if len(shape) == 2:
        return ": for the last step, write logits[-1]"
    if shape[0] == 1:
        return f": for the last step, write {'logits[0][-1]' if is_list else 'logits[:, -1]'}"
    return f": for the last step of the first text, write {'logits[0][-1]' if is_list else 'logits[0, -1]'}"
