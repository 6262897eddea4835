"""The tokenizer of Gemma 3, created from the metadata of a GGUF file."""

from __future__ import annotations

import codecs
import heapq
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

__all__ = ["StreamDecoder", "Tokenizer"]


class Tokenizer:
    """SentencePiece byte-pair encoding, which turns text into token ids and back.

    - Special tokens (such as ``<start_of_turn>``) and user-defined ones (HTML tags, runs of newlines, tabs or spaces) that
      occur in a text become their ids, the longest first. So you can write a chat turn as text, but should search text from
      strangers for these tokens first.
    - The rest starts as single characters. The adjacent pair that forms the token with the best score is merged, the leftmost
      one among equals, until no pair forms a token. Characters without a token become their UTF-8 bytes.
    - Decoding returns the original text, with two exceptions: control tokens have no text, and U+2581 becomes a space, because
      tokens store spaces as U+2581.

    `bos_id` is the token before every text, or None. Generation ends at any of `eos_ids`. `pieces` holds the stored text of
    each token.
    """

    SPACE = "\u2581"
    UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6  # token types of GGUF, where 1 is a normal token

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        """Read the vocabulary from the ``tokenizer.ggml`` keys of a GGUF file's metadata."""
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
        for index, part in enumerate(self._special.split(text)):  # ordinary text and special tokens alternate
            if index % 2:
                ids.append(self._ids[part])
            else:
                ids.extend(self._merge(part.replace(" ", self.SPACE)))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids. Control tokens have no text, and bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.piece_bytes, ids)).decode(errors="replace")

    def stream(self) -> StreamDecoder:
        """Return a new decoder for tokens that come one at a time."""
        return StreamDecoder(self)

    def piece_bytes(self, token_id: int) -> bytes:
        """Return the UTF-8 bytes that a token adds to the text. They may be only a part of a character."""
        kind, piece = self._kinds[token_id], self.pieces[token_id]
        if kind in (self.CONTROL, self.UNKNOWN):
            return b""
        if kind == self.BYTE:
            return bytes([int(piece[3:5], 16)])
        return piece.replace(self.SPACE, " ").encode()

    def _merge(self, text: str) -> list[int]:
        """Encode a text without special tokens, in O(len log len)."""
        # A symbol is identified by its start. Symbol i ends at ends[i], which becomes 0 when the symbol is merged into another
        # one. The symbol to its left starts at before[i], which is -1 if there is none.
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
                continue  # one of the two symbols has been merged meanwhile
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
    """Return a pattern whose only group finds any of the texts, preferring the longest."""
    # The texts are grouped by their first character. A space, for example, then only has to be compared with 30 of Gemma's
    # 6,414 special tokens.
    tails: dict[str, list[str]] = {}
    for text in sorted(texts, key=len, reverse=True):
        tails.setdefault(text[0], []).append(re.escape(text[1:]))
    return re.compile("(" + "|".join(f"{re.escape(first)}(?:{'|'.join(rest)})" for first, rest in tails.items()) + ")")


class StreamDecoder:
    """Decodes tokens one at a time. The texts that `push` and `finish` return add up to that of `Tokenizer.decode`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Return the text that this token completes, or "" if a character still lacks bytes."""
        return self._utf8.decode(self._tokenizer.piece_bytes(token_id))

    def finish(self) -> str:
        """Return the rest of the text: U+FFFD if the last character was never completed, and "" otherwise."""
        return self._utf8.decode(b"", final=True)
