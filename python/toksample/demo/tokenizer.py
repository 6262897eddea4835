"""The tokenizer of Gemma 3, made from the metadata of a GGUF file."""

from __future__ import annotations

import codecs
import heapq
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

__all__ = ["StreamDecoder", "Tokenizer"]


class Tokenizer:
    """SentencePiece byte-pair encoding: text to token ids and back.

    - Special tokens (such as ``<start_of_turn>``) and user-defined ones (HTML tags, runs of newlines, tabs or spaces)
      found in a text become their ids, longest first. So a chat turn can be written as text; text from a stranger
      should be searched for them first.
    - The rest starts as single characters, and the adjacent pair that forms the token with the best score is merged,
      leftmost first among equals, until none is left. Characters without a token become their UTF-8 bytes.
    - Decoding gives the text back, but for the control tokens, which become nothing, and U+2581, which becomes a space:
      that is how tokens store one.

    `bos_id` is put before every text unless None; generation ends at any of `eos_ids`; `pieces` holds each token's text
    as stored.
    """

    SPACE = "\u2581"
    UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6  # of GGUF's token types; 1 is a normal token

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        """Take the vocabulary from the ``tokenizer.ggml`` keys of a GGUF file's metadata."""
        keys = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
        kind = (keys["model"], keys.get("add_space_prefix", True))
        if kind != ("llama", False):
            raise ValueError(f"the tokenizer's model and add_space_prefix must be ('llama', False), got {kind}")
        self.pieces: list[str] = keys["tokens"]
        self._scores: list[float] = keys["scores"].tolist()
        self._kinds: list[int] = keys["token_type"].tolist()
        self._ids = {piece: token_id for token_id, piece in enumerate(self.pieces)}
        self._byte_ids = [self._ids[f"<0x{byte:02X}>"] for byte in range(256)]
        self.bos_id: int | None = keys["bos_token_id"] if keys.get("add_bos_token", True) else None
        ends = [keys["eos_token_id"], self._ids.get("<end_of_turn>")]
        self.eos_ids: frozenset[int] = frozenset(token_id for token_id in ends if token_id is not None)
        is_special = np.isin(keys["token_type"], (self.CONTROL, self.USER_DEFINED))
        self._special = _any_of(self.pieces[token_id] for token_id in np.flatnonzero(is_special))

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, after `bos_id`."""
        ids = [] if self.bos_id is None else [self.bos_id]
        for index, part in enumerate(self._special.split(text)):  # ordinary text and special tokens take turns
            if index % 2:
                ids.append(self._ids[part])
            else:
                ids.extend(self._merge(part.replace(" ", self.SPACE)))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids. Control tokens have none; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.piece_bytes, ids)).decode(errors="replace")

    def stream(self) -> StreamDecoder:
        """Return a new decoder for tokens that come one at a time."""
        return StreamDecoder(self)

    def piece_bytes(self, token_id: int) -> bytes:
        """Return the UTF-8 bytes that one token adds to the text; perhaps only a part of a character."""
        kind, piece = self._kinds[token_id], self.pieces[token_id]
        if kind in (self.CONTROL, self.UNKNOWN):
            return b""
        if kind == self.BYTE:
            return bytes([int(piece[3:5], 16)])
        return piece.replace(self.SPACE, " ").encode()

    def _merge(self, text: str) -> list[int]:
        """Encode a text without special tokens, in O(len log len)."""
        # A symbol is named by where it starts. ends[i] is where symbol i ends, 0 once it is merged into another;
        # before[i] is the start of the symbol left of it, -1 for none.
        ends = list(range(1, len(text) + 1))
        before = list(range(-1, len(text)))
        heap: list[tuple[float, int, int]] = []  # (-score, start, end) of each pair that forms a token

        def propose(start: int) -> None:
            middle = ends[start]
            if middle < len(text):
                end = ends[middle]
                token_id = self._ids.get(text[start:end])
                if token_id is not None:
                    heapq.heappush(heap, (-self._scores[token_id], start, end))

        for start in range(len(text)):
            propose(start)
        while heap:
            _, start, end = heapq.heappop(heap)
            middle = ends[start]
            if not 0 < middle < end or ends[middle] != end:
                continue  # one of the two has been merged since
            ends[start], ends[middle], before[end] = end, 0, start
            propose(start)
            if before[start] >= 0:
                propose(before[start])

        ids: list[int] = []
        start = 0
        while start < len(text):
            symbol = text[start : ends[start]]
            token_id = self._ids.get(symbol)
            ids.extend([token_id] if token_id is not None else (self._byte_ids[byte] for byte in symbol.encode()))
            start = ends[start]
        return ids


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Make a pattern that finds any of the texts, the longest first, in one group."""
    # Grouped by first character: of Gemma's 6,414 special tokens, a space then has 30 to be compared with.
    tails: dict[str, list[str]] = {}
    for text in sorted(texts, key=len, reverse=True):
        tails.setdefault(text[0], []).append(re.escape(text[1:]))
    return re.compile("(" + "|".join(f"{re.escape(first)}(?:{'|'.join(rest)})" for first, rest in tails.items()) + ")")


class StreamDecoder:
    """Decodes tokens one at a time; all that `push` and `finish` return, joined, equals `Tokenizer.decode`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Return the text that this token completes: "" while a character still lacks bytes."""
        return self._utf8.decode(self._tokenizer.piece_bytes(token_id))

    def finish(self) -> str:
        """Return what was held back: "" or U+FFFD for a character that was never completed."""
        return self._utf8.decode(b"", final=True)
