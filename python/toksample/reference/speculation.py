"""Speculative decoding: which tokens of a draft are kept, and which token comes after them."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Unpack

import numpy as np
import numpy.typing as npt

from toksample._parameters import History, SamplingParams, TextParameters
from toksample._rows import numbers, raise_row_errors
from toksample._sampler import read_params
from toksample._speculation import Verified, naming, read_draft, verified
from toksample.reference.drawing import accept_word, draw, race, replace_word
from toksample.reference.filters import survivors
from toksample.reference.functions import edited_rows, filters_of, sample
from toksample.reference.masses import Ids, Masses

Kept = tuple[Ids, Masses]
"""The ids and the masses of the tokens that the parameters keep, in any order."""


class KeptRow(NamedTuple):
    """What the parameters keep of a row, and the seed, the stream and the position of its random words."""

    kept: Kept
    words: tuple[int, int, int]


def is_accepted(token: int, target: Kept, draft: Kept, word: int) -> bool:
    """Decide whether the target accepts a token of the draft: with probability min(1, p / q).

    Y. Leviathan, M. Kalman, Y. Matias, "Fast inference from transformers via speculative decoding", ICML 2023. C. Chen et al.,
    "Accelerating large language model decoding with speculative sampling", arXiv:2302.01318, 2023.

    p is the token's share of the mass that the target keeps, and q that of the mass that the draft keeps. Both are multiplied
    by the two masses, which makes them integers.
    """
    p, q = (mass_of(token, kept) * total(other) for kept, other in ((target, draft), (draft, target)))
    return word * q < p << 64


def draw_instead(target: Kept, draft: Kept, word: int) -> int:
    """Draw from the residual max(p - q, 0), multiplied by both masses: in the order of the ids, as :func:`draw` does."""
    masses = dict(zip(*(array.tolist() for array in draft), strict=True))
    tokens = sorted(zip(*(array.tolist() for array in target), strict=True))
    all_p, all_q = total(target), total(draft)
    running = list(accumulate(max(p * all_q - masses.get(token, 0) * all_p, 0) for token, p in tokens))
    token: int = tokens[bisect.bisect_right(running, word * running[-1] >> 64)][0]
    return token


def mass_of(token: int, kept: Kept) -> int:
    """Return the mass of a token, which is 0 if it is not kept."""
    ids, masses = kept
    return int(masses[ids == token].sum())


def total(kept: Kept) -> int:
    """Return the mass of all tokens that are kept."""
    return int(kept[1].sum())


def tokens_by_rejection(target_rows: list[KeptRow], draft_rows: list[KeptRow], draft_tokens: Ids) -> Ids:
    """Return, for each place of a draft, the draft token if it is accepted and otherwise the token instead of it.

    The last place is the one after the draft. -1 stands for a draft token that the draft itself does not keep.
    """
    tokens = []
    for token, target, draft in zip(draft_tokens.tolist(), target_rows[:-1], draft_rows, strict=True):
        if mass_of(token, draft.kept) == 0:
            tokens.append(-1)
        elif is_accepted(token, target.kept, draft.kept, accept_word(*target.words)):
            tokens.append(token)
        else:
            tokens.append(draw_instead(target.kept, draft.kept, replace_word(*target.words)))
    last = target_rows[-1]
    return np.array([*tokens, draw(*last.kept, replace_word(*last.words))], np.int64)


def kept_rows(logits: object, parameters: dict[str, Any]) -> list[KeptRow]:
    """Return what the parameters keep of each row of a batch."""
    rows, is_batch = edited_rows(logits, parameters)
    each = numbers(parameters, len(rows), rows.shape[1], is_batch)
    raise_row_errors(rows, is_batch)
    return [
        KeptRow(survivors(row, filters_of(params)), (params["seed"], params["stream"], params["position"]))
        for row, params in zip(rows, each, strict=True)
    ]


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
    """See :func:`toksample.verify_draft`."""
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
            return verified(sample(target_logits, **target), draft.tokens)
        target_rows = kept_rows(target_logits, target)
        if mode == "race":
            tokens = [race(*row.kept, *row.words) for row in target_rows]
            return verified(np.array(tokens, np.int64), draft.tokens)
    with naming("draft_logits"):
        draft_rows = kept_rows(draft_logits, draft.draft)
    return verified(tokens_by_rejection(target_rows, draft_rows, draft.tokens), draft.tokens)
