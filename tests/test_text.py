"""The formatting of values in error messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from toksample._text import show


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Stubborn(int):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Interrupted:
    def __repr__(self) -> str:
        raise KeyboardInterrupt


@pytest.mark.parametrize("value", [1.5, None, "text", True, -3, [1, 2], 10**199, "x" * 198, np.float32([1, 2])])
def test_show_is_repr(value: Any) -> None:
    assert show(value) == repr(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (10**5000, "an integer of about 5001 digits"),
        (-(10**5000), "a negative integer of about 5001 digits"),
        (10**300, "an integer of about 301 digits"),
        ([10**5000], "a list that cannot be shown"),
        (Broken(), "a Broken that cannot be shown"),
        (Stubborn(3), "a Stubborn that cannot be shown"),
    ],
    ids=["huge", "huge and negative", "too long to read", "huge in a list", "broken", "broken integer"],
)
def test_show_describes_what_has_no_repr(value: Any, text: str) -> None:
    assert show(value) == text


def test_show_cuts_what_is_long() -> None:
    text = show(list(range(1000)))
    assert len(text) == 200
    assert text.startswith("[0, 1, 2, ")
    assert text.endswith("...")


def test_show_survives_endless_nesting() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    assert show(nested) == "a list that cannot be shown"


def test_show_lets_an_interrupt_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        show(Interrupted())
