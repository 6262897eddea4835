"""Gemma 3 in numpy: a real model to sample from, in one file.

The forward pass of the Gemma 3 text models (Gemma Team, "Gemma 3 Technical Report", 2025) with a key-value cache, and
the tokenizer that belongs to it. Weights, hyperparameters and vocabulary all come from one GGUF file, the format of
llama.cpp. It is written to be read; nothing in the samplers depends on it.

    model = Gemma.load("gemma-3-270m-q4_k_m.gguf")
    ids = model.tokenizer.encode("Once upon a time")
    for _ in range(32):
        ids.append(int(model(ids).argmax()))        # or toksample.sample(model(ids), ...)
    print(model.tokenizer.decode(ids))

The quantised weights are expanded to float32 once, at load (1.1 GB for the 270M model), so a token costs one read of
those bytes: decoding runs at the speed of memory. Shapes below use n for the tokens of one pass, t for the positions
they attend to, and d for the size of one head. Arrays are float32 unless a docstring says otherwise.

The ``gguf`` package, which knows the quantised formats, is imported when a model is loaded, not before.
"""

from __future__ import annotations

import codecs
import heapq
import math
import mmap
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Gemma", "StreamDecoder", "Tokenizer"]

Floats = NDArray[np.float32]
Progress = Callable[[str, float], None]

PROMPT_BLOCK = 512  # tokens per pass over a prompt: bounds the attention scores to heads * 512 * t floats
DEQUANTIZE_ROWS = 8192  # rows expanded at a time: bounds the temporary memory, and gives progress something to report


# The file


class _GGUF:
    """A GGUF file: `metadata` by key, and tensors by name.

    `gguf.GGUFReader` reads these files too, but makes array objects for each of the 262,144 tokens, scores and types of
    Gemma's vocabulary: 12 seconds where this takes 0.3 and the weights take 2.
    """

    # The types of values numbered 0 to 12: numpy's names, and two of GGUF's own.
    VALUE_TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "?", "string", "array", "u8", "i8", "f8")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            import gguf
        except ModuleNotFoundError as error:
            message = f"reading a GGUF file needs {error.name}: pip install 'toksample[demo]'"
            raise ModuleNotFoundError(message, name=error.name) from error
        self._formats: Any = gguf.GGMLQuantizationType
        self._quants: Any = gguf.quants
        with open(path, "rb") as file:
            self._bytes = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self._position = 0
        if bytes(self._take(4)) != b"GGUF" or self._integer(4) not in (2, 3):
            raise ValueError(f"the model must be a GGUF file of version 2 or 3, got {os.fspath(path)!r}")
        tensor_count, value_count = self._integer(8), self._integer(8)
        self.metadata = {self._string(): self._value(self._integer(4)) for _ in range(value_count)}
        tensors = []
        for _ in range(tensor_count):
            name = self._string()
            sizes = [self._integer(8) for _ in range(self._integer(4))]  # the length of a row comes first
            tensors.append((name, sizes, self._formats(self._integer(4)), self._integer(8)))
        alignment = self.metadata.get("general.alignment", 32)
        start = -(-self._position // alignment) * alignment
        self._tensors = {name: (sizes, kind, start + offset) for name, sizes, kind, offset in tensors}
        self.size = sum(math.prod(sizes) for sizes, _, _ in self._tensors.values())  # floats in all tensors

    def floats(self, name: str, progress: Callable[[int], None]) -> Floats:
        """Expand one tensor: (columns,) or (rows, columns). `progress` gets the number of floats done each time."""
        (columns, *rest), kind, first = self._tensors[name]
        rows = math.prod(rest)
        row_bytes = self._quants.quant_shape_to_byte_shape((columns,), kind)[0]
        raw = np.frombuffer(self._bytes, np.uint8, rows * row_bytes, first).reshape(rows, row_bytes)
        out = np.empty((rows, columns), np.float32)
        for row in range(0, rows, DEQUANTIZE_ROWS):
            block = slice(row, row + DEQUANTIZE_ROWS)
            out[block] = self._quants.dequantize(raw[block], kind)
            progress(out[block].size)
        return out if rest else out[0]

    def _take(self, size: int) -> memoryview:
        self._position += size
        if self._position > len(self._bytes):
            raise ValueError("the model file is cut short in its header")
        return self._bytes[self._position - size : self._position]

    def _integer(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def _numbers(self, dtype: str, count: int) -> NDArray[Any]:
        little = np.dtype(dtype).newbyteorder("<")
        return np.frombuffer(self._take(count * little.itemsize), little).copy()  # a view would keep the file open

    def _string(self) -> str:
        return str(self._take(self._integer(8)), "utf-8")

    def _value(self, kind: int) -> Any:
        name = self.VALUE_TYPES[kind]
        if name == "string":
            return self._string()
        if name != "array":
            return self._numbers(name, 1)[0].item()
        item, count = self.VALUE_TYPES[self._integer(4)], self._integer(8)
        return [self._string() for _ in range(count)] if item == "string" else self._numbers(item, count)


# The tokenizer


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


# The model


@dataclass(frozen=True)
class _Config:
    """Hyperparameters, by their names in the GGUF file."""

    context_length: int
    embedding_length: int
    block_count: int
    head_count: int
    head_count_kv: int
    key_length: int
    layer_norm_rms_epsilon: float
    sliding_window: int
    sliding_window_pattern: int  # every so-many-th layer attends to the whole context, the others to the window
    freq_base: float  # of the rotations in global layers
    freq_base_swa: float  # and in sliding-window layers
    scaling_factor: float  # global layers stretch positions by this factor

    @classmethod
    def read(cls, metadata: Mapping[str, Any]) -> _Config:
        architecture = metadata.get("general.architecture")
        if architecture != "gemma3":
            raise ValueError(f"the model's architecture must be 'gemma3', got {architecture!r}")
        # Files leave out these three when they have the values of the report.
        values: dict[str, Any] = {"sliding_window_pattern": 6, "freq_base_swa": 10_000.0, "scaling_factor": 1.0}
        for key, value in metadata.items():
            name = key.removeprefix("gemma3.").removeprefix("attention.").removeprefix("rope.")
            values[name.replace(".", "_")] = value
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class _Layer:
    """Weights of one block. A matrix is (outputs, inputs), as in the file; a norm is one scale for each channel."""

    attn_norm: Floats
    attn_qkv: Floats  # queries of all heads, then keys, then values: one product instead of three
    attn_q_norm: Floats
    attn_k_norm: Floats
    attn_output: Floats
    post_attention_norm: Floats
    ffn_norm: Floats
    ffn_gate_up: Floats
    ffn_down: Floats
    post_ffw_norm: Floats
    window: int  # a token attends to itself and the window - 1 tokens before it
    frequencies: NDArray[np.float64]  # (d / 2,), radians per position


class Gemma:
    """A Gemma 3 model: called with token ids, it returns the logits of the token that follows them.

    Made by `Gemma.load`. `tokenizer` belongs to it; `vocab_size` is the number of logits; `context_length` the largest
    number of ids. Calls from several threads are safe and run one after another. All sizes work but 27B, which scales
    its attention by a number that GGUF does not record.
    """

    def __init__(
        self, config: _Config, tokenizer: Tokenizer, layers: list[_Layer], embedding: Floats, norm: Floats
    ) -> None:
        self.tokenizer = tokenizer
        self.vocab_size: int = embedding.shape[0]
        self.context_length = config.context_length
        self._config = config
        self._layers = layers
        self._embedding = embedding
        self._output_norm = norm
        self._lock = threading.Lock()
        self.reset()

    @classmethod
    def load(cls, path: str | os.PathLike[str], progress: Progress | None = None) -> Gemma:
        """Read a model from a GGUF file.

        Parameters
        ----------
        path : path
            A Gemma 3 text model, in any format that ``gguf`` can expand.
        progress : callable, optional
            Called with what is being done (str) and the fraction of it that is done (0.0 to 1.0).
        """
        report = progress or (lambda label, fraction: None)
        report("reading vocabulary", 0.0)
        file = _GGUF(path)
        config = _Config.read(file.metadata)
        tokenizer = Tokenizer(file.metadata)
        done = 0

        def count(floats: int) -> None:
            nonlocal done
            done += floats
            report("loading weights", done / file.size)

        def stacked(*names: str) -> Floats:
            tensors = [file.floats(f"{name}.weight", count) for name in names]
            return np.concatenate(tensors) if len(tensors) > 1 else tensors[0]

        layers = [_read_layer(config, index, stacked) for index in range(config.block_count)]
        return cls(config, tokenizer, layers, stacked("token_embd"), stacked("output_norm"))

    def reset(self) -> None:
        """Forget the tokens of earlier calls and free their memory. Never needed for right answers."""
        config = self._config
        with self._lock:
            # Keys and values of the tokens in _cached_ids, for each layer; _reserve makes room in the fourth axis.
            self._cached_ids = np.empty(0, np.int64)
            self._cache = np.empty((config.block_count, 2, config.head_count_kv, 0, config.key_length), np.float32)

    def __call__(self, token_ids: Sequence[int] | NDArray[np.integer[Any]]) -> Floats:
        """Return the logits of the token that follows `token_ids`.

        The answer depends on the ids alone; its cost does not. What these ids have in common with the start of the last
        call's is not computed again, so a text that grows by one token costs one token. (The last bits may differ with
        how many tokens are computed at once, because BLAS then adds in another order.)

        Parameters
        ----------
        token_ids : sequence of int
            At least 1, at most `context_length`, each in [0, vocab_size).

        Returns
        -------
        float32 (vocab_size,)
            A new array. Not probabilities: any constant may be added.
        """
        ids = self._checked(token_ids)
        with self._lock:
            known = min(_common_prefix(ids, self._cached_ids), ids.size - 1)  # the last token always runs
            self._cached_ids = self._cached_ids[:known]
            self._reserve(ids.size)
            for first in range(known, ids.size, PROMPT_BLOCK):
                block = ids[first : first + PROMPT_BLOCK]
                state = self._forward(block, first)
                self._cached_ids = ids[: first + block.size]
            final = _rms_norm(state[-1], self._output_norm, self._config.layer_norm_rms_epsilon)
            logits: Floats = self._embedding @ final
            return logits

    def _checked(self, token_ids: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        ids = np.array(token_ids)
        if ids.ndim != 1 or ids.size == 0:
            raise ValueError(f"token_ids must be one sequence of at least 1 id, got shape {ids.shape}")
        if ids.dtype.kind not in "iu":
            raise TypeError(f"token_ids must be integers, got {ids.dtype}")
        if ids.size > self.context_length:
            raise ValueError(f"token_ids must hold at most {self.context_length} ids (the context), got {ids.size}")
        bad = np.flatnonzero((ids < 0) | (ids >= self.vocab_size))
        if bad.size:
            raise ValueError(f"token_ids must be in [0, {self.vocab_size}), got {ids[bad[0]]} at index {bad[0]}")
        return ids.astype(np.int64)

    def _reserve(self, tokens: int) -> None:
        """Make room in the cache; at least double it, so that growing costs little per token."""
        capacity = self._cache.shape[3]
        if tokens <= capacity:
            return
        capacity = min(max(tokens, 2 * capacity, PROMPT_BLOCK), self.context_length)
        layers, two, heads, _, size = self._cache.shape
        grown = np.empty((layers, two, heads, capacity, size), np.float32)
        known = self._cached_ids.size
        grown[:, :, :, :known] = self._cache[:, :, :, :known]
        self._cache = grown

    def _forward(self, ids: NDArray[np.int64], first: int) -> Floats:
        """Run tokens at positions first, first + 1, ... through all layers: (n, embedding_length)."""
        epsilon = self._config.layer_norm_rms_epsilon
        state = self._embedding[ids] * math.sqrt(self._config.embedding_length)
        for layer, cache in zip(self._layers, self._cache, strict=True):
            update = self._attend(layer, cache, _rms_norm(state, layer.attn_norm, epsilon), first)
            state += _rms_norm(update, layer.post_attention_norm, epsilon)
            update = _feed_forward(layer, _rms_norm(state, layer.ffn_norm, epsilon))
            state += _rms_norm(update, layer.post_ffw_norm, epsilon)
        return state

    def _attend(self, layer: _Layer, cache: Floats, inputs: Floats, first: int) -> Floats:
        """Attend from n tokens to the cache, after adding their keys and values to it."""
        config = self._config
        count, size, kv_heads = len(inputs), config.key_length, config.head_count_kv
        heads = _linear(inputs, layer.attn_qkv).reshape(count, -1, size)
        queries, keys, values = np.split(heads, [config.head_count, config.head_count + kv_heads], axis=1)
        positions = np.arange(first, first + count)
        angles = positions[:, None, None] * layer.frequencies
        queries = _rotate(_rms_norm(queries, layer.attn_q_norm, config.layer_norm_rms_epsilon), angles)
        keys = _rotate(_rms_norm(keys, layer.attn_k_norm, config.layer_norm_rms_epsilon), angles)
        cache[0, :, first : first + count] = keys.swapaxes(0, 1)
        cache[1, :, first : first + count] = values.swapaxes(0, 1)

        oldest = max(0, first - layer.window + 1)  # the first position that any of these tokens sees
        seen = cache[:, :, oldest : first + count]  # (keys and values, kv_heads, t, d)
        # The query heads that share a key head are stacked into the rows of one product.
        queries = queries.reshape(count, kv_heads, -1, size).transpose(1, 2, 0, 3)  # (kv_heads, group, n, d)
        scores = queries.reshape(kv_heads, -1, size) @ seen[0].swapaxes(1, 2) / math.sqrt(size)
        by_token = scores.reshape(kv_heads, -1, count, seen.shape[2])  # a view: (kv_heads, group, n, t)
        if count > 1:  # a single token may see all of `seen`
            distance = positions[:, None] - np.arange(oldest, first + count)
            np.copyto(by_token, -np.inf, where=(distance < 0) | (distance >= layer.window))
        outputs = _softmax(scores) @ seen[1]
        outputs = outputs.reshape(kv_heads, -1, count, size).transpose(2, 0, 1, 3).reshape(count, -1)
        return _linear(outputs, layer.attn_output)


def _read_layer(config: _Config, index: int, stacked: Callable[..., Floats]) -> _Layer:

    def weights(*names: str) -> Floats:
        return stacked(*(f"blk.{index}.{name}" for name in names))

    is_global = (index + 1) % config.sliding_window_pattern == 0
    base, scale = (config.freq_base, config.scaling_factor) if is_global else (config.freq_base_swa, 1.0)
    return _Layer(
        attn_norm=weights("attn_norm"),
        attn_qkv=weights("attn_q", "attn_k", "attn_v"),
        attn_q_norm=weights("attn_q_norm"),
        attn_k_norm=weights("attn_k_norm"),
        attn_output=weights("attn_output"),
        post_attention_norm=weights("post_attention_norm"),
        ffn_norm=weights("ffn_norm"),
        ffn_gate_up=weights("ffn_gate", "ffn_up"),
        ffn_down=weights("ffn_down"),
        post_ffw_norm=weights("post_ffw_norm"),
        window=config.context_length if is_global else config.sliding_window,
        frequencies=base ** (-np.arange(0, config.key_length, 2) / config.key_length) / scale,
    )


def _common_prefix(a: NDArray[np.int64], b: NDArray[np.int64]) -> int:
    """Count the ids at the start of both that are the same."""
    length = min(a.size, b.size)
    different = np.flatnonzero(a[:length] != b[:length])
    return int(different[0]) if different.size else length


def _linear(x: Floats, weight: Floats) -> Floats:
    """Multiply (n, inputs) by a weight of (outputs, inputs): (n, outputs)."""
    product: Floats = x @ weight.T
    return product


def _rms_norm(x: Floats, scale: Floats, epsilon: float) -> Floats:
    """Divide by the root mean square over the last axis, and scale. GGUF stores the scale, which is 1 + the weight."""
    mean_square: Floats = np.square(x).mean(axis=-1, keepdims=True)
    normed: Floats = x / np.sqrt(mean_square + epsilon) * scale
    return normed


def _rotate(x: Floats, angles: NDArray[np.float64]) -> Floats:
    """Embed positions in (n, heads, d): turn channel pairs (i, i + d / 2) by angles (n, 1, d / 2), in radians."""
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    low, high = np.split(x, 2, axis=-1)
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)


def _softmax(scores: Floats) -> Floats:
    """Turn scores into weights that sum to 1 over the last axis, in place."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def _feed_forward(layer: _Layer, inputs: Floats) -> Floats:
    """Apply the gated layer: down(gelu(gate) * up), with the tanh approximation of gelu."""
    gate, up = np.split(_linear(inputs, layer.ffn_gate_up), 2, axis=-1)
    gelu = 0.5 * gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
    return _linear(gelu * up, layer.ffn_down)
