"""Where a text ends that comes in pieces."""

from __future__ import annotations

from collections.abc import Collection


class StopStrings:
    """Looks for strings that end a text, and holds back the characters that may be the start of one.

    What `push` and `finish` return, joined, is the text before the string that is complete first. If several are complete at
    the same character, it is the longest of them. How the text is cut into pieces makes no difference.

    Examples
    --------
    >>> from toksample._stop_strings import StopStrings
    >>> stops = StopStrings(["END"])
    >>> [stops.push(piece) for piece in ("one E", "N two E", "ND three")], stops.found
    (['one ', 'EN two ', ''], True)
    """

    def __init__(self, strings: Collection[str]) -> None:
        self._strings = tuple(strings)
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """Add a piece of the text, and return what cannot be a part of a stop string any more."""
        text = self._held + piece
        starts = [(text.index(string) + len(string), text.index(string)) for string in self._strings if string in text]
        if starts:
            self.found, self._held = True, ""
            return text[: min(starts)[1]]
        longest = max(map(len, self._strings), default=1) - 1
        sizes = range(min(longest, len(text)), 0, -1)
        held = next((size for size in sizes if any(string.startswith(text[-size:]) for string in self._strings)), 0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """Return what was held back when the text ends without a stop string."""
        held, self._held = self._held, ""
        return held
