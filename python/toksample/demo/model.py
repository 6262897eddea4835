"""The forward pass of the Gemma 3 text models in numpy, with a key-value cache.

It follows Gemma Team, "Gemma 3 Technical Report", 2025. Weights and hyperparameters come from a GGUF file.

The quantised weights are expanded to float32 once, when the model is loaded (1.1 GB for the 270M model). A token then costs
one read of those bytes, so decoding runs at the speed of memory. In the shapes below, n is the number of tokens of one pass, t
the number of positions they attend to, and d the size of one head. Arrays are float32 unless a docstring says otherwise.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toksample._parameters import count
from toksample._progress import Progress
from toksample.demo.gguf_file import Floats, GGUFFile
from toksample.demo.tokenizer import Tokenizer

__all__ = ["Gemma"]

# BLAS copies the weights of a product into another order first, unless the product is small. For the few tokens of a draft,
# the copy takes longer than the product, so the weights are multiplied in parts. A pass of 9 tokens then takes 2.0 times as
# long as one of a single token, and not 3.6 times.
FEW_TOKENS, FEW_OUTPUTS = 16, 64
PROMPT_BLOCK = 512  # tokens per pass over a prompt, which limits the attention scores to heads * 512 * t floats
EACH_BLOCK = 64  # tokens whose logits are held at once, which take 1 MiB each


@dataclass(frozen=True)
class _Config:
    """The hyperparameters, with their names in the GGUF file."""

    context_length: int
    embedding_length: int
    block_count: int
    head_count: int
    head_count_kv: int
    key_length: int
    layer_norm_rms_epsilon: float
    sliding_window: int
    sliding_window_pattern: int  # with 6, every sixth layer attends to the whole context, and the others to the window
    freq_base: float  # the base of the rotations in global layers
    freq_base_swa: float  # the base of the rotations in sliding-window layers
    scaling_factor: float  # global layers stretch positions by this factor

    @classmethod
    def read(cls, metadata: Mapping[str, Any]) -> _Config:
        architecture = metadata.get("general.architecture")
        if architecture != "gemma3":
            raise ValueError(f"the model's architecture must be 'gemma3', got {architecture!r}")
        # A file may leave these three out if they have the values of the report.
        values: dict[str, Any] = {"sliding_window_pattern": 6, "freq_base_swa": 10_000.0, "scaling_factor": 1.0}
        for key, value in metadata.items():
            name = key.removeprefix("gemma3.").removeprefix("attention.").removeprefix("rope.")
            values[name.replace(".", "_")] = value
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class _Layer:
    """The weights of one layer. A matrix is (outputs, inputs), as in the file. A norm is one scale for each channel."""

    attn_norm: Floats
    attn_qkv: Floats  # the queries of all heads, then keys, then values, so that one product does for all three
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
    """A Gemma 3 model. Call it with token ids, and it returns the logits of the token that follows them.

    `Gemma.load` creates it. `tokenizer` is the model's tokenizer, `vocab_size` the number of logits, and `context_length` the
    largest number of ids. Several threads may call it, and the calls run one after another. All sizes of the model work except
    27B, which scales its attention by a number that GGUF does not record.
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
            Called with the name of the current step (str) and the fraction of it that is done (0.0 to 1.0).
        """
        report = progress or (lambda label, fraction: None)
        report("reading vocabulary", 0.0)
        file = GGUFFile(path)
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
        """Forget the tokens of earlier calls and free their memory. The answers do not depend on this."""
        config = self._config
        with self._lock:
            # The cache holds keys and values of the tokens in _cached_ids, for each layer. _reserve extends the fourth axis.
            self._cached_ids = np.empty(0, np.int64)
            self._cache = np.empty((config.block_count, 2, config.head_count_kv, 0, config.key_length), np.float32)

    def __call__(
        self, token_ids: Sequence[int] | NDArray[np.integer[Any]], logits_to_keep: int | None = None
    ) -> Floats:
        """Return the logits of the token that follows `token_ids`, or of those that follow each of the last ids.

        The answer depends only on the ids, but its cost also depends on the last call: the ids that both calls begin with are
        not computed again, so a text that grows by one token costs one token. (The last bits of the answer may depend on how
        many tokens are computed at once, because BLAS then adds in another order.)

        Parameters
        ----------
        token_ids : sequence of int
            At least 1 and at most `context_length` ids, each in [0, vocab_size).
        logits_to_keep : int, optional
            In [1, len(token_ids)]. Return the logits that follow each of so many last ids, in the order of the ids.

        Returns
        -------
        ndarray of float32, shape (vocab_size,) or (logits_to_keep, vocab_size)
            A new array of unnormalized logits.

        Raises
        ------
        ValueError, TypeError
            If the ids are not such a sequence, or `logits_to_keep` not such a number.
        """
        ids = self._checked(token_ids)
        steps = 1 if logits_to_keep is None else count("logits_to_keep", logits_to_keep, ids.size)
        with self._lock:
            known = min(_common_prefix(ids, self._cached_ids), ids.size - steps)  # those ids are always computed
            self._cached_ids = self._cached_ids[:known]
            self._reserve(ids.size)
            last = np.empty((0, self._config.embedding_length), np.float32)
            for first in range(known, ids.size, PROMPT_BLOCK):
                block = ids[first : first + PROMPT_BLOCK]
                last = np.concatenate([last, self._forward(block, first)])[-steps:]
                self._cached_ids = ids[: first + block.size]
            final = _rms_norm(last, self._output_norm, self._config.layer_norm_rms_epsilon)
            logits = np.ascontiguousarray(_linear(final, self._embedding))
            return logits[0] if logits_to_keep is None else logits

    def each(self, token_ids: Sequence[int] | NDArray[np.integer[Any]]) -> Iterator[Floats]:
        """Yield the logits of the tokens that follow each of `token_ids`, in arrays of up to 64 rows.

        The argument is that of a call, and so are the errors. A row may differ from that of a call in its last bits.
        """
        ids = self._checked(token_ids)
        for first in range(0, ids.size, EACH_BLOCK):
            with self._lock:  # not held while the caller works; another call may then use the cache for other ids
                known = min(_common_prefix(ids, self._cached_ids), first)
                self._cached_ids = self._cached_ids[:known]
                self._reserve(ids.size)
                for start in range(known, first, PROMPT_BLOCK):
                    self._forward(ids[start : min(start + PROMPT_BLOCK, first)], start)
                state = self._forward(ids[first : first + EACH_BLOCK], first)
                self._cached_ids = ids[: first + len(state)]
            final = _rms_norm(state, self._output_norm, self._config.layer_norm_rms_epsilon)
            yield _linear(final, self._embedding)

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
        """Make room in the cache. Its size at least doubles, so that growing costs little per token."""
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
        # Query heads that share a key head are stacked into the rows of one product.
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
    """Return the number of ids that both begin with."""
    length = min(a.size, b.size)
    different = np.flatnonzero(a[:length] != b[:length])
    return int(different[0]) if different.size else length


def _linear(x: Floats, weight: Floats) -> Floats:
    """Multiply (n, inputs) by a weight of (outputs, inputs): (n, outputs)."""
    product: Floats
    if 1 < len(x) <= FEW_TOKENS and len(weight) % FEW_OUTPUTS == 0:
        parts = weight.reshape(-1, FEW_OUTPUTS, weight.shape[1]) @ x.T
        product = parts.reshape(-1, len(x)).T
    else:
        product = x @ weight.T
    return product


def _rms_norm(x: Floats, scale: Floats, epsilon: float) -> Floats:
    """Divide by the root mean square over the last axis, then scale. GGUF stores the scale itself, which is 1 + the weight."""
    mean_square: Floats = np.square(x).mean(axis=-1, keepdims=True)
    normed: Floats = x / np.sqrt(mean_square + epsilon) * scale
    return normed


def _rotate(x: Floats, angles: NDArray[np.float64]) -> Floats:
    """Embed positions in (n, heads, d): rotate channel pairs (i, i + d / 2) by angles (n, 1, d / 2), in radians."""
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
