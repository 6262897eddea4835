"""How error messages show a value."""

from __future__ import annotations

import math

_MOST_CHARACTERS = 200
_MOST_BITS = 664  # of an integer with at most 200 digits


def show(value: object) -> str:
    """Return the ``repr`` of a value for an error message: at most 200 characters, and never an exception.

    Python refuses to write integers of more than 4,300 digits, and any ``__repr__`` may raise. Such a value is described
    instead.
    """
    if isinstance(value, int) and int.bit_length(value) > _MOST_BITS:
        sign = "a negative integer" if int.__lt__(value, 0) else "an integer"
        return f"{sign} of about {math.ceil(int.bit_length(value) * math.log10(2))} digits"
    try:
        text = repr(value)
        return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."
    except Exception:
        return f"a {type(value).__name__} that cannot be shown"
