"""Formats values for error messages."""

from __future__ import annotations

import math

_MOST_CHARACTERS = 200
_MOST_BITS = 664  # an integer with at most this many bits has at most 200 digits


def show(value: object) -> str:
    """Return the ``repr`` of a value for an error message, cut to 200 characters. This never raises.

    Python refuses to format integers of more than 4,300 digits, and a ``__repr__`` may raise anything. Such values are
    described instead.
    """
    if isinstance(value, int) and int.bit_length(value) > _MOST_BITS:
        sign = "a negative integer" if int.__lt__(value, 0) else "an integer"
        return f"{sign} of about {math.ceil(int.bit_length(value) * math.log10(2))} digits"
    try:
        text = repr(value)
        return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."
    except Exception:
        return f"a {type(value).__name__} that cannot be shown"
