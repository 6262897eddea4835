"""Speculative decoding: which tokens of a draft the target model accepts, and what comes after them."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Unpack

import numpy as np
import numpy.typing as npt

from toksample import _native
from toksample._arrays import as_given
from toksample._parameters import History, Ids, SamplingParams, TextParameters, one, token_ids
from toksample._sampler import read_params
from toksample._text import show


@dataclass(frozen=True, slots=True, eq=False)
class Verified:
    """What :func:`verify_draft` returns.

    Attributes
    ----------
    tokens : ndarray of int64, shape (accepted + 1,)
        The draft tokens that were accepted, and one more token that the target draws itself: the one that comes instead of the
        first draft token that was not accepted, or the one that follows the draft if all were.
    accepted : int
        How many draft tokens were accepted.
    """

    tokens: Ids
    accepted: int


def verify_draft(
    target_logits: object,
    draft_tokens: Sequence[int] | npt.NDArray[np.integer[Any]],
    params: SamplingParams | None = None,
    *,
    position: int = 0,
    prompt_ids: History = None,
    output_ids: History = None,
    bitmask: npt.ArrayLike | None = None,
    num_threads: int | None = None,
    **parameters: Unpack[TextParameters],
) -> Verified:
    """Decide which tokens of a draft to keep, and draw the token after them.

    A draft is a guess of the next k tokens of a text. The target model computes the logits after each of them in one pass.
    This function goes through the draft, and ends at the first token that is not accepted.

    A draft token is accepted if it is the token that the target's own logits give for the seed, the stream and its position,
    as in :func:`sample`. So the text is the same with any draft and without one, whatever its length; a good draft only makes
    it come sooner.

    Parameters
    ----------
    target_logits : array_like, shape (k + 1, V)
        As in :func:`sample`. Row i has the logits of the token that follows the first i draft tokens.
    draft_tokens : sequence of int, shape (k,)
        Token ids in [0, V). There may be none.
    params : SamplingParams, optional
        How to draw. Parameters may be given as keywords instead. Without a seed, the seed is fresh entropy. The stream is 0
        unless it is given. Mirostat must be off.
    position : int
        In [0, 2**64 - k). The position of the first draft token in its text; the others follow it.
    prompt_ids, output_ids : sequence of int, optional
        The tokens of the prompt, and those before the draft. Row i also sees the first i draft tokens.
    bitmask : array_like of int32, shape (k + 1, n), optional
        As in :func:`sample`, for the rows of the target.
    num_threads : int, optional
        As in :func:`sample`.
    **parameters
        The fields of :class:`SamplingParams`.

    Returns
    -------
    Verified
        The accepted tokens and one more, and how many were accepted.

    Raises
    ------
    ValueError, TypeError
        The message names the parameter, the rule and the value.

    Examples
    --------
    >>> target_logits = 9 * np.eye(5, dtype=np.float32)[[1, 2, 3]]  # a model that counts up: 1, 2, 3
    >>> toksample.verify_draft(target_logits, [1, 4], seed=1)
    Verified(tokens=array([1, 2]), accepted=1)
    """
    draft = read_draft(target_logits, draft_tokens, params, dict(parameters), position, prompt_ids, output_ids, bitmask)
    with naming("target_logits"):
        tokens = _native.sample(target_logits, {**draft.target, "num_threads": num_threads})
    return verified(tokens, draft.tokens)


class Draft(NamedTuple):
    """What a call of :func:`verify_draft` was given, read."""

    tokens: Ids
    target: dict[str, Any]
    """The keywords with which :func:`toksample.sample` draws from the rows of the target."""


def read_draft(
    target_logits: object,
    draft_tokens: object,
    params: SamplingParams | None,
    keywords: dict[str, Any],
    position: object,
    prompt_ids: History,
    output_ids: History,
    bitmask: npt.ArrayLike | None,
) -> Draft:
    """Read the arguments of :func:`verify_draft`, and raise an error if any of them is wrong."""
    params = read_params(params, keywords)
    if params.mirostat not in (None, 0):
        raise ValueError(f"mirostat must be 0 where a draft is verified, got {show(params.mirostat)}")
    with naming("target_logits"):
        shape = as_given(target_logits)[0].shape
    if len(shape) != 2 or shape[0] == 0:
        raise ValueError(f"target_logits must be of shape (k + 1, V), got shape {shape}")
    tokens, prompt, output = (
        token_ids(name, ids, 1, False, shape[1])[0]
        for name, ids in (("draft_tokens", draft_tokens), ("prompt_ids", prompt_ids), ("output_ids", output_ids))
    )
    count = len(tokens)
    if count != shape[0] - 1:
        rule = f"{shape[0] - 1}, one for each row of target_logits but the last"
        raise ValueError(f"draft_tokens must be {rule}, got {count}")
    first = one("position", position)
    if first + count >= 2**64:
        raise ValueError(f"position must be in [0, 2**64 - {count}), got {first}")
    target = {
        **params.keywords(),
        "seed": secrets.randbits(64) if params.seed is None else params.seed,
        "stream": 0 if params.stream is None else params.stream,
        "position": np.uint64(first) + np.arange(count + 1, dtype=np.uint64),
        "bitmask": bitmask,
    }
    if params.needs_history:
        target["prompt_ids"] = [prompt] * (count + 1)
        target["output_ids"] = [np.concatenate([output, tokens[:i]]) for i in range(count + 1)]
    return Draft(tokens, target)


def verified(tokens: Ids, draft_tokens: Ids) -> Verified:
    """Return the tokens that the rows give, up to the first that is not the draft's."""
    different = np.flatnonzero(tokens[:-1] != draft_tokens)
    accepted = int(different[0]) if different.size else draft_tokens.size
    return Verified(tokens[: accepted + 1].copy(), accepted)


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Give errors about logits the name of the argument that the logits were passed as."""
    try:
        yield
    except (ValueError, TypeError) as error:
        text = str(error)
        if not text.startswith("logits "):
            raise
        raise type(error)(text.replace("logits", name, 1)) from error
