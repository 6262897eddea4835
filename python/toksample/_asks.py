"""What a draw may be asked for instead of one token of each row: its log-probability too, a receipt, or several tokens."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from toksample._parameters import count
from toksample._text import show

MOST_DRAWS = 2**16
"""The most tokens that a call draws from a row."""


class Asks(NamedTuple):
    """The keywords that ask for it, as in :func:`toksample.sample`."""

    logprobs: Any = None
    logprobs_mode: Any = "raw_logprobs"
    logprob_token_ids: Any = None
    receipt: Any = False
    n: Any = None
    replacement: Any = True

    def kind(self, out: object = None) -> str | None:
        """Return the name of the keyword that says what is returned; None for tokens alone.

        Raises
        ------
        TypeError
            If two of them are given, which do not go together, or one of the first two together with ``out``.
        """
        if self.receipt is not None and not isinstance(self.receipt, (bool, np.bool_)):
            raise TypeError(f"receipt must be True or False, got {show(self.receipt)}")
        if not isinstance(self.replacement, (bool, np.bool_)):
            raise TypeError(f"replacement must be True or False, got {show(self.replacement)}")
        if self.n is None and not self.replacement:
            raise ValueError("replacement must be True without n, got False")
        given = []
        if self.logprobs is not None or self.logprob_token_ids is not None:
            given.append("logprobs")
        if self.receipt:
            given.append("receipt")
        if self.n is not None:
            given.append("n")
        if out is not None and given and given != ["n"]:
            given.insert(0, "out")
        if len(given) > 1:
            raise TypeError(f"{given[0]} and {given[1]} must not both be given, got both")
        return given[0] if given else None

    def several(self) -> tuple[int, bool]:
        """Return how many tokens to draw from each row, and whether a token may be drawn again."""
        return count("n", self.n, MOST_DRAWS), bool(self.replacement)


ASKS: dict[str, Any] = Asks()._asdict()
"""Their defaults."""
