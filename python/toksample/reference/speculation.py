"""Speculative decoding: which tokens of a draft are kept, and which token comes after them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from toksample._parameters import History, SamplingParams, TextParameters
from toksample._speculation import Verified, naming, read_draft, verified
from toksample.reference.functions import sample


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
    """See :func:`toksample.verify_draft`."""
    draft = read_draft(target_logits, draft_tokens, params, dict(parameters), position, prompt_ids, output_ids, bitmask)
    with naming("target_logits"):
        tokens = sample(target_logits, **draft.target)
    return verified(tokens, draft.tokens)
