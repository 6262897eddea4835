"""Scores a text with a model: how likely each of its tokens is, given those before it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from toksample._progress import Progress
from toksample._scores import Scores, score
from toksample.demo.model import Gemma

__all__ = ["ScoredText", "ScoredToken", "score_text"]


class ScoredToken(NamedTuple):
    """A token of a text."""

    id: int
    text: str
    """The text that the token completes: "" if a character still lacks bytes."""
    logprob: float
    rank: int


class ScoredText(NamedTuple):
    """A text. The token before every text, which the model begins with, is not one of its tokens."""

    tokens: list[ScoredToken]
    perplexity: float
    argmax_share: float
    """The share of the tokens that are the most probable ones at their places."""


def score_text(model: Gemma, text: str, *, temperature: float = 1.0, progress: Progress | None = None) -> ScoredText:
    """Score a text of at most ``model.context_length`` tokens. ``progress`` is called with "scoring text" and a fraction."""
    ids = model.tokenizer.encode(text)
    if len(ids) > model.context_length:
        raise ValueError(
            f"the text must be at most {model.context_length} tokens (the model's context), got {len(ids)}"
        )
    if len(ids) < 2:
        raise ValueError(f"the text must have at least 2 tokens with the one before every text, got {len(ids)}")
    parts, done = [], 0
    for logits in model.each(ids[:-1]):
        parts.append(score(logits, ids[done + 1 : done + 1 + len(logits)], temperature=temperature))
        done += len(logits)
        if progress is not None:
            progress("scoring text", done / (len(ids) - 1))
    scores = Scores(np.concatenate([part.logprobs for part in parts]), np.concatenate([part.ranks for part in parts]))
    decoder = model.tokenizer.stream()
    columns = zip(ids[1:], np.atleast_1d(scores.logprobs).tolist(), np.atleast_1d(scores.ranks).tolist(), strict=True)
    tokens = [ScoredToken(token, decoder.push(token), logprob, rank) for token, logprob, rank in columns]
    return ScoredText(tokens, scores.perplexity, float(np.mean(scores.is_argmax)))
