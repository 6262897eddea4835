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
        The draft tokens that were accepted, and one more token: the one that comes instead of the first draft token that was
        not accepted, or the one that follows the draft if all were.
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
    mode: str = "same_text",
    draft_logits: object = None,
    draft_params: SamplingParams | None = None,
    position: int = 0,
    prompt_ids: History = None,
    output_ids: History = None,
    bitmask: npt.ArrayLike | None = None,
    num_threads: int | None = None,
    **parameters: Unpack[TextParameters],
) -> Verified:
    """Decide which tokens of a draft to keep, and draw the token after them.

    A draft is a guess of the next k tokens of a text. The target model computes the logits after each of them in one pass.
    This function goes through the draft, and ends at the first token that is not accepted. There are three modes.

    With "same_text", a draft token is accepted if it is the token that the target's own logits give for the seed, the stream
    and its position, as in :func:`sample`. So the text is the same with any draft and without one; a good draft only makes it
    come sooner.

    With "race", a draft token is accepted if it wins the target's race, in which each token has a random word of its own
    (Daliri et al., 2024). Again no draft changes the text, but it is not the text of :func:`sample`. A draft that was drawn in
    the same way is right more often: a call without draft tokens, with the draft's logits and the same seed, stream and
    position, draws its next token.

    With "rejection", the text is another one, but it has the same distribution, and more tokens are accepted if the draft was
    drawn at random (Leviathan et al., ICML 2023; Chen et al., 2023). If the target keeps the token with probability p and the
    draft had it with probability q, it is accepted with probability min(1, p / q). The token that comes instead is drawn from
    max(p - q, 0). All probabilities are integers, so that nothing is rounded.

    Parameters
    ----------
    target_logits : array_like, shape (k + 1, V)
        As in :func:`sample`. Row i has the logits of the token that follows the first i draft tokens.
    draft_tokens : sequence of int, shape (k,)
        Token ids in [0, V). There may be none.
    params : SamplingParams, optional
        How to draw. Parameters may be given as keywords instead. Without a seed, the seed is fresh entropy. The stream is 0
        unless it is given. Mirostat and adaptive-p must be off.
    mode : {"same_text", "race", "rejection"}
        How to decide.
    draft_logits : array_like, shape (k, V), optional
        The logits from which each draft token was drawn. "rejection" needs them, and the other modes take none.
    draft_params : SamplingParams, optional
        How the draft tokens were drawn, for "rejection". By default, as the target's are. If it has a seed or a stream, XTC
        takes its random word from those.
    position : int
        In [0, 2**64 - k). The position of the first draft token in its text; the others follow it.
    prompt_ids, output_ids : sequence of int, optional
        The tokens of the prompt, and those before the draft. Row i also sees the first i draft tokens.
    bitmask : array_like of int32, shape (k + 1, n), optional
        As in :func:`sample`, for the rows of the target. In the rows of the draft, a banned token has the logit -inf.
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
        The message names the parameter, the rule and the value. A draft token that the draft's own parameters do not keep is
        such an error.

    Examples
    --------
    >>> target_logits = 9 * np.eye(5, dtype=np.float32)[[1, 2, 3]]  # a model that counts up: 1, 2, 3
    >>> toksample.verify_draft(target_logits, [1, 4], seed=1)
    Verified(tokens=array([1, 2]), accepted=1)
    >>> draft_logits = np.zeros((2, 5), np.float32)  # a draft that knows nothing
    >>> toksample.verify_draft(target_logits, [1, 4], mode="rejection", draft_logits=draft_logits, seed=1)
    Verified(tokens=array([1, 2]), accepted=1)
    """
    draft = read_draft(
        target_logits,
        draft_tokens,
        read_params(params, dict(parameters)),
        mode,
        draft_logits,
        draft_params,
        position,
        {"prompt_ids": prompt_ids, "output_ids": output_ids},
    )
    target = {**draft.target, "bitmask": bitmask}
    with naming("target_logits"):
        if mode == "same_text":
            tokens = _native.sample(target_logits, {**target, "num_threads": num_threads})
        elif mode == "race":
            tokens = _native.draw_by_race(target_logits, target, num_threads)
        else:
            tokens = _native.verify(target_logits, target, draft.tokens, draft_logits, draft.draft, num_threads)
    return verified(tokens, draft.tokens)


class Draft(NamedTuple):
    """What a call of :func:`verify_draft` was given, read."""

    tokens: Ids
    target: dict[str, Any]
    """The keywords with which :func:`toksample.sample` draws from the rows of the target."""
    draft: dict[str, Any]
    """The same for the rows of the draft, for rejection."""


def read_draft(
    target_logits: object,
    draft_tokens: object,
    params: SamplingParams,
    mode: str,
    draft_logits: object,
    draft_params: SamplingParams | None,
    position: object,
    histories: dict[str, History],
) -> Draft:
    """Read the arguments of :func:`verify_draft`, and raise an error if any of them is wrong."""
    if not isinstance(mode, str) or mode not in ("same_text", "race", "rejection"):
        raise ValueError(f"mode must be 'same_text', 'race' or 'rejection', got {show(mode)}")
    if mode == "rejection" and draft_logits is None:
        raise ValueError("draft_logits must be given where mode is 'rejection', got None")
    for name, value in (("draft_logits", draft_logits), ("draft_params", draft_params)):
        if mode != "rejection" and value is not None:
            raise ValueError(f"{name} must be None where mode is {mode!r}, got {show(value)}")
    if draft_params is not None and not isinstance(draft_params, SamplingParams):
        raise TypeError(f"draft_params must be a SamplingParams, got {show(draft_params)}")
    for each in (params, draft_params or params):
        for name, off in (("mirostat", 0), ("adaptive_target", -1)):
            if (value := getattr(each, name)) not in (None, off):
                raise ValueError(f"{name} must be {off} where a draft is verified, got {show(value)}")
    rows, size = _shape("target_logits", target_logits, "(k + 1, V)")
    count = rows - 1
    if count < 0:
        raise ValueError(f"target_logits must be of shape (k + 1, V), got shape {(rows, size)}")
    tokens, prompt, output = (
        token_ids(name, ids, 1, False, size)[0] for name, ids in {"draft_tokens": draft_tokens, **histories}.items()
    )
    if len(tokens) != count:
        raise ValueError(
            f"draft_tokens must be {count}, one for each row of target_logits but the last, got {len(tokens)}"
        )
    if draft_logits is not None and (shape := _shape("draft_logits", draft_logits, "(k, V)")) != (count, size):
        raise ValueError(f"draft_logits must be of shape (k, V), which is {(count, size)}, got shape {shape}")
    first = one("position", position)
    if first + count >= 2**64:
        raise ValueError(f"position must be in [0, 2**64 - {count}), got {first}")
    positions = np.uint64(first) + np.arange(rows, dtype=np.uint64)

    def keywords(params: SamplingParams, rows: int, seed: int, stream: int) -> dict[str, Any]:
        found = params.keywords()
        found["seed"] = seed if params.seed is None else params.seed
        found["stream"] = stream if params.stream is None else params.stream
        found["position"] = positions[:rows]
        if params.needs_history:
            found["prompt_ids"] = [prompt] * rows
            found["output_ids"] = [np.concatenate([output, tokens[:i]]) for i in range(rows)]
        return found

    target = keywords(params, rows, secrets.randbits(64), 0)
    if mode != "rejection":
        return Draft(tokens, target, {})
    return Draft(tokens, target, keywords(draft_params or params, count, target["seed"], target["stream"]))


def _shape(name: str, logits: object, rule: str) -> tuple[int, int]:
    """Return the shape of logits that are a batch."""
    with naming(name):
        shape = as_given(logits)[0].shape
    if len(shape) != 2:
        raise ValueError(f"{name} must be of shape {rule}, got shape {shape}")
    return shape


def verified(tokens: Ids, draft_tokens: Ids) -> Verified:
    """Return the tokens that come at each place, up to the first that is not the draft's."""
    unknown = np.flatnonzero(tokens == -1)
    if unknown.size:
        i = int(unknown[0])
        raise ValueError(
            f"draft_tokens must be tokens that the draft's parameters keep, got {draft_tokens[i]} at index {i}"
        )
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
