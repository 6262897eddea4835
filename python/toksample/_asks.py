"""What a draw may be asked for instead of one token of each row: log-probabilities with it, or a receipt."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from toksample._text import show


class Asks(NamedTuple):
    """The keywords that ask for it, as in :func:`toksample.sample`."""

    logprobs: Any = None
    logprobs_mode: Any = "raw_logprobs"
    logprob_token_ids: Any = None
    receipt: Any = False

    def kind(self, out: object = None) -> str | None:
        """Return the name of the keyword that says what is returned; None for tokens alone.

        Raises
        ------
        TypeError
            If two of them are given, which do not go together, or one together with ``out``.
        """
        if self.receipt is not None and not isinstance(self.receipt, (bool, np.bool_)):
            raise TypeError(f"receipt must be True or False, got {show(self.receipt)}")
        has_logprobs = self.logprobs is not None or self.logprob_token_ids is not None
        asked = {"out": out is not None, "logprobs": has_logprobs, "receipt": bool(self.receipt)}
        given = [name for name, is_given in asked.items() if is_given]
        if len(given) > 1:
            raise TypeError(f"{given[0]} and {given[1]} must not both be given, got both")
        return given[0] if given and given[0] != "out" else None


ASKS: dict[str, Any] = Asks()._asdict()
"""Their defaults."""
