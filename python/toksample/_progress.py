"""Shows how far a long command has come, in one line on stderr that is redrawn in place."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType

Progress = Callable[[str, float], None]
"""Is called with the name of a step, and the fraction of it that is done (0.0 to 1.0)."""

_BAR_WIDTH = 30


class StatusLine:
    """A line of text on stderr that can be replaced, and that is removed in the end. It is only shown on a terminal.

    It is written by hand because `toksample bench` must run where only numpy is installed. That is the only reason: the import
    of tqdm was measured to take 6 ms, where that of the command line takes 160 ms.
    """

    def __init__(self) -> None:
        self.is_terminal = sys.stderr.isatty()
        self._text = ""

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.show("")

    def show(self, text: str) -> None:
        """Replace the line."""
        if self.is_terminal and text != self._text:
            blank = " " * len(self._text)
            print(f"\r{blank}\r{text}", end="", file=sys.stderr, flush=True)
            self._text = text

    def show_bar(self, label: str, fraction: float) -> None:
        """Replace the line by a label and a bar of which a fraction (0.0 to 1.0) is filled."""
        done = round(fraction * _BAR_WIDTH)
        self.show(f"{label:24} {'#' * done}{'.' * (_BAR_WIDTH - done)} {fraction:4.0%}")
