"""A draft that needs no model: what followed the last tokens where they stood before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toksample._parameters import count


@dataclass(frozen=True, slots=True)
class PromptLookup:
    """Guesses that a text repeats itself: the draft is what followed the last occurrence of its last ``ngram`` tokens.

    Call it with the token ids so far, or pass it to :func:`generate` as ``draft``. It finds a draft where a text quotes its
    prompt, as a summary or a correction does, or repeats itself, as a list or a program does. Elsewhere there is no draft, and
    the model computes one token at a time (Saxena, "Prompt lookup decoding", 2023).

    Attributes
    ----------
    ngram : int
        At least 1. How many of the last tokens must have occurred before. The more, the fewer the drafts, and the better.
    tokens : int
        At least 1. The length of a draft.

    Raises
    ------
    ValueError, TypeError
        If one of them is not such a number.

    Examples
    --------
    >>> draft = toksample.PromptLookup(ngram=2, tokens=3)
    >>> draft([5, 6, 7, 8, 9, 5, 6])
    [7, 8, 9]
    >>> draft([5, 6, 7, 8])
    []

    What was repeated may go on being repeated:

    >>> draft([4, 5, 4, 5, 4])
    [5, 4, 5]
    """

    ngram: int = 3
    tokens: int = 8

    def __post_init__(self) -> None:
        count("ngram", self.ngram)
        count("tokens", self.tokens)

    def __call__(self, ids: Sequence[int]) -> list[int]:
        """Return the draft of the tokens that follow; no tokens if the last ones have not occurred before."""
        ids = list(ids)
        last = ids[-self.ngram :]
        for start in range(len(ids) - self.ngram - 1, -1, -1):
            if ids[start] == last[0] and ids[start : start + self.ngram] == last:
                followed = ids[start + self.ngram :]
                return (followed * -(-self.tokens // len(followed)))[: self.tokens]
        return []
