"""What the benchmarks compare: the calls, the engines that can do them, and what a legal answer is.

A peer is imported only when it is measured. Its code here is what its users write, with everything that can be made once made
outside of the timed function: generators, buffers, sampler chains, tensors that share the row's memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

import toksample
from toksample import reference
from toksample._bench_rows import Rows


class Call(NamedTuple):
    """What is asked of the engines."""

    name: str
    title: str
    operation: str  # argmax, softmax, top_k, sample or bitmask
    params: Mapping[str, Any] = {}
    vocab: int | None = None  # if it is always the same


def _sample(name: str, title: str, vocab: int | None = None, **params: Any) -> Call:
    return Call(name, title, "sample", params, vocab)


CALLS = (
    Call("argmax", "argmax", "argmax"),
    Call("top-k", "top-k 50, sorted", "top_k", {"k": 50}),
    Call("softmax", "softmax, into an array", "softmax"),
    _sample("k-p", "sample: T 0.7, top-k 50, top-p 0.9", temperature=0.7, top_k=50, top_p=0.9),
    _sample("min-p", "sample: T 0.7, min-p 0.05", temperature=0.7, min_p=0.05),
    _sample("p", "sample: T 0.7, top-p 0.9", temperature=0.7, top_p=0.9),
    _sample("t", "sample: T 0.7", temperature=0.7),
    _sample("p-hot", "sample: T 1.5, top-p 0.9", temperature=1.5, top_p=0.9),
    _sample("16", "sample from 16 logits: T 0.7, top-k 50, top-p 0.9", 16, temperature=0.7, top_k=50, top_p=0.9),
    Call("bitmask", "ban the tokens of a bitmask", "bitmask"),
)

KNOWN_TO_WORK = {
    "gguf": "0.19.0",
    "llama-cpp-python": "0.3.36",
    "llguidance": "1.9.1",
    "numba": "0.68.1",
    "scipy": "1.17.1",
    "torch": "2.15.0",
    "transformers": "5.23.0, 5.24.0",
    "xgrammar": "0.2.8",
}
"""The versions of the peers with which the benchmarks have been run."""


@contextlib.contextmanager
def peer(*packages: str) -> Iterator[None]:
    """Run code that uses these packages; if their interface has changed, the error says which versions are known to work."""
    try:
        yield
    except (AttributeError, ImportError, KeyError, TypeError) as error:
        tried = (
            f"{name} {importlib.metadata.version(name)} (known to work: {KNOWN_TO_WORK[name]})" for name in packages
        )
        why = f"{type(error).__name__}: {error}"
        raise RuntimeError(f"the benchmark does not work with {', '.join(tried)}: {why}") from error


Timed = Callable[[], Any]
"""Does the call once, and returns something from which `Engine.answer` makes the answer."""


class Engine:
    """One way to do the calls."""

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions matter; the first one's module must be there."""
    note: ClassVar[str] = ""
    modules: ClassVar[Mapping[str, str]] = {"llama-cpp-python": "llama_cpp"}

    def __init__(self, threads: int) -> None:
        """Use so many threads, where the engine has a way to say so."""
        self.threads = threads

    @classmethod
    def is_installed(cls) -> bool:
        """Whether it can be measured here."""
        return all(importlib.util.find_spec(cls.modules.get(name, name)) is not None for name in cls.packages)

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the versions of its packages."""
        return {name: importlib.metadata.version(name) for name in cls.packages}

    @classmethod
    def can(cls, call: Call) -> bool:
        """Whether it can do the call."""
        return hasattr(cls, call.operation)

    def prepare(self, call: Call, rows: Rows) -> Timed:
        """Return a function that does the call on these rows: one row as an array of shape (V,), a batch as (B, V).

        A peer does the call once here, untimed. If its interface has changed, the function raises the error that says so, so
        that whoever calls it can go on with other engines.
        """
        peers = [name for name in self.packages if name in KNOWN_TO_WORK]
        try:
            with peer(*peers):
                timed: Timed = getattr(self, call.operation)(rows, **call.params)
                if peers:
                    self.answer(call, timed())
        except RuntimeError as error:
            return functools.partial(_raise, error)
        return timed

    def answer(self, call: Call, result: Any) -> Any:
        """Return as numpy arrays, or numbers, what the prepared function returned."""
        if call.operation == "top_k" and isinstance(result, list):  # of pairs, one for each row
            return tuple(np.stack(part) for part in zip(*result, strict=True))
        return result


def _raise(error: Exception) -> None:
    raise error


def _each_row(one: Callable[[Rows], Any], rows: Rows) -> Timed:
    """Do a call for each row in turn, as one must where there is no call for a batch."""
    if rows.ndim == 1:
        return lambda: one(rows)
    return lambda: [one(row) for row in rows]


# ---- toksample ---------------------------------------------------------------------------------------------------------


class Toksample(Engine):
    """The package itself."""

    name = "toksample"
    packages = ("toksample",)

    def argmax(self, rows: Rows) -> Timed:
        return lambda: toksample.argmax(rows, num_threads=self.threads)

    def softmax(self, rows: Rows) -> Timed:
        out = np.empty(rows.shape, np.float32)
        return lambda: toksample.softmax(rows, out=out, num_threads=self.threads)

    def top_k(self, rows: Rows, k: int) -> Timed:
        return lambda: toksample.top_k(rows, k, num_threads=self.threads)

    def sample(self, rows: Rows, **params: Any) -> Timed:
        position = iter(range(2**62))
        if rows.ndim > 1:
            params["num_threads"] = self.threads
        return lambda: toksample.sample(rows, seed=1, position=next(position), **params)


class Reference(Engine):
    """The definition of toksample, in numpy."""

    name = "toksample.reference"
    note = "numpy code that defines every answer; not meant to be fast"

    def argmax(self, rows: Rows) -> Timed:
        return lambda: reference.argmax(rows)

    def softmax(self, rows: Rows) -> Timed:
        out = np.empty(rows.shape, np.float32)
        return lambda: reference.softmax(rows, out=out)

    def top_k(self, rows: Rows, k: int) -> Timed:
        return lambda: reference.top_k(rows, k)

    def sample(self, rows: Rows, **params: Any) -> Timed:
        position = iter(range(2**62))
        return lambda: reference.sample(rows, **params, seed=1, position=next(position))


# ---- numpy and scipy -----------------------------------------------------------------------------------------------------


class Numpy(Engine):
    """What one writes with numpy alone."""

    name = "numpy"
    packages = ("numpy",)
    note = "argpartition or argsort, exp, cumsum, Generator.choice; a batch is a loop"

    def argmax(self, rows: Rows) -> Timed:
        return lambda: np.argmax(rows, axis=-1)

    def softmax(self, rows: Rows) -> Timed:
        out = np.empty(rows.shape, np.float32)

        def softmax() -> Rows:
            np.subtract(rows, rows.max(axis=-1, keepdims=True), out=out)
            np.exp(out, out=out)
            np.divide(out, out.sum(axis=-1, keepdims=True), out=out)
            return out

        return softmax

    def top_k(self, rows: Rows, k: int) -> Timed:
        return _each_row(lambda row: _numpy_top_k(row, k), rows)

    def sample(self, rows: Rows, **params: Any) -> Timed:
        rng = np.random.default_rng(1)
        return _each_row(lambda row: _numpy_sample(row, rng, **params), rows)

    def bitmask(self, rows: Rows) -> Timed:
        mask = make_bitmask(rows)

        def ban() -> Rows:
            bits = np.unpackbits(mask.view(np.uint8), axis=-1, bitorder="little")[..., : rows.shape[-1]]
            return np.where(bits, rows, np.float32(-np.inf))

        return ban


def _numpy_top_k(row: Rows, k: int) -> tuple[Rows, npt.NDArray[np.int64]]:
    if k < len(row):
        ids = np.argpartition(row, -k)[-k:]
        ids = ids[np.argsort(-row[ids])]
    else:
        ids = np.argsort(-row)
    return row[ids], ids


def _numpy_sample(
    row: Rows, rng: np.random.Generator, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> int:
    if top_k:
        logits, ids = _numpy_top_k(row, top_k)
    elif top_p < 1:
        ids = np.argsort(-row)
        logits = row[ids]
    else:
        logits, ids = row, np.arange(len(row))
    probs = np.exp((logits - logits.max()) / temperature).astype(np.float64)
    if top_p < 1:
        running = np.cumsum(probs)
        kept = int(np.searchsorted(running, top_p * running[-1])) + 1
        probs, ids = probs[:kept], ids[:kept]
    if min_p > 0:
        probs = np.where(probs >= min_p * probs.max(), probs, 0)
    return int(rng.choice(ids, p=probs / probs.sum()))


class Scipy(Engine):
    """scipy, which has a softmax."""

    name = "scipy"
    packages = ("scipy",)

    def softmax(self, rows: Rows) -> Timed:
        softmax = importlib.import_module("scipy.special").softmax
        return lambda: softmax(rows, axis=-1)


# ---- torch and transformers ----------------------------------------------------------------------------------------------


class _TorchBased(Engine):
    """Torch, with its number of threads, which is one for the whole process."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._torch = importlib.import_module("torch")
        self._torch.set_num_threads(threads)

    def answer(self, call: Call, result: Any) -> Any:
        return tuple(part.numpy() for part in result) if call.operation == "top_k" else result.numpy()


class Torch(_TorchBased):
    """What one writes with torch on the CPU."""

    name = "torch"
    packages = ("torch",)
    note = "topk or sort, softmax, cumsum, multinomial; for a bitmask masked_fill with a mask of bools, made before"

    def argmax(self, rows: Rows) -> Timed:
        tensor = self._torch.from_numpy(rows)
        return lambda: tensor.argmax(-1)

    def softmax(self, rows: Rows) -> Timed:
        tensor, out, softmax = self._torch.from_numpy(rows), self._torch.empty(rows.shape), self._torch.softmax
        return lambda: softmax(tensor, -1, out=out)

    def top_k(self, rows: Rows, k: int) -> Timed:
        tensor = self._torch.from_numpy(rows)
        return lambda: tensor.topk(min(k, tensor.shape[-1]))

    def sample(self, rows: Rows, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Timed:
        torch, tensor = self._torch, self._torch.from_numpy(rows)

        def sample() -> Any:
            logits, ids = tensor, None
            if top_k:
                logits, ids = logits.topk(min(top_k, logits.shape[-1]))
            elif top_p < 1:
                logits, ids = logits.sort(descending=True)
            probs = torch.softmax(logits / temperature, -1)
            if top_p < 1:
                before = probs.cumsum(-1) - probs
                probs = probs.masked_fill(before >= top_p, 0.0)
            if min_p > 0:
                probs = probs.masked_fill(probs < min_p * probs.amax(-1, keepdim=True), 0.0)
            place = torch.multinomial(probs, 1)
            return (place if ids is None else ids.gather(-1, place))[..., 0]

        return sample

    def bitmask(self, rows: Rows) -> Timed:
        torch, tensor = self._torch, self._torch.from_numpy(rows)
        banned = torch.from_numpy(~unpack_bitmask(make_bitmask(rows), rows.shape[-1]))
        return lambda: tensor.masked_fill(banned, -torch.inf)


class Transformers(_TorchBased):
    """The warpers that `generate` of transformers applies, and its draw."""

    name = "transformers"
    packages = ("transformers", "torch")
    note = "TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, MinPLogitsWarper, softmax, multinomial"

    def sample(self, rows: Rows, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Timed:
        torch, tensor = self._torch, self._torch.from_numpy(np.atleast_2d(rows))
        transformers = importlib.import_module("transformers")
        warpers = transformers.LogitsProcessorList()
        warpers.append(transformers.TemperatureLogitsWarper(temperature))
        if top_k:
            warpers.append(transformers.TopKLogitsWarper(top_k))
        if top_p < 1:
            warpers.append(transformers.TopPLogitsWarper(top_p))
        if min_p > 0:
            warpers.append(transformers.MinPLogitsWarper(min_p))
        no_ids = torch.empty((len(tensor), 0), dtype=torch.int64)

        def sample() -> Any:
            probs = torch.nn.functional.softmax(warpers(no_ids, tensor), dim=-1)
            return torch.multinomial(probs, num_samples=1).squeeze(1)

        return sample


# ---- llama.cpp -----------------------------------------------------------------------------------------------------------


class LlamaCpp(Engine):
    """A sampler chain of llama.cpp, by the low-level functions of llama-cpp-python."""

    name = "llama.cpp"
    packages = ("llama-cpp-python",)
    note = (
        "llama_sampler_chain, with the llama_token_data_array filled for each token as llama.cpp does (here by numpy);"
        " temperature first, to mean the same as the others: its own default order has it last; a batch is a loop"
    )
    _TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._llama = importlib.import_module("llama_cpp")

    def argmax(self, rows: Rows) -> Timed:
        return self._chain(rows, [self._llama.llama_sampler_init_greedy()])

    def sample(self, rows: Rows, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Timed:
        llama = self._llama
        samplers = [llama.llama_sampler_init_temp(temperature)]
        if top_k:
            samplers.append(llama.llama_sampler_init_top_k(top_k))
        if top_p < 1:
            samplers.append(llama.llama_sampler_init_top_p(top_p, 1))
        if min_p > 0:
            samplers.append(llama.llama_sampler_init_min_p(min_p, 1))
        return self._chain(rows, [*samplers, llama.llama_sampler_init_dist(1)])

    def _chain(self, rows: Rows, samplers: Iterable[Any]) -> Timed:
        llama = self._llama
        chain = LlamaChain(llama, samplers)
        vocab = rows.shape[-1]
        data = np.empty(vocab, self._TOKEN_DATA)
        data_ids, data_logits, data_probs = data["id"], data["logit"], data["p"]
        ids = np.arange(vocab, dtype=np.int32)
        pointer = ctypes.cast(data.ctypes.data, llama.llama_token_data_p)

        def one(row: Rows) -> int:
            data_ids[:] = ids
            data_logits[:] = row
            data_probs[:] = 0
            array = llama.llama_token_data_array(pointer, vocab, -1, False)
            llama.llama_sampler_apply(chain.pointer, ctypes.byref(array))
            return int(array.data[array.selected].id)

        return _each_row(one, rows)


class LlamaChain:
    """Owns a sampler chain."""

    def __init__(self, llama: Any, samplers: Iterable[Any]) -> None:
        self._free = llama.llama_sampler_free
        self.pointer = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        for sampler in samplers:
            llama.llama_sampler_chain_add(self.pointer, sampler)

    def __del__(self) -> None:
        self._free(self.pointer)


# ---- numba ---------------------------------------------------------------------------------------------------------------


class Numba(Engine):
    """Loops that one writes with numba."""

    name = "numba"
    packages = ("numba",)
    note = "njit(fastmath=True) loops; argpartition and argsort where something is sorted; a batch is a loop"

    def argmax(self, rows: Rows) -> Timed:
        return _each_row(_numba_code()["argmax"], rows)

    def softmax(self, rows: Rows) -> Timed:
        softmax = _numba_code()["softmax"]
        out = np.empty(rows.shape, np.float32)
        pairs = list(zip(np.atleast_2d(rows), np.atleast_2d(out), strict=True))

        def each() -> Rows:
            for row, row_out in pairs:
                softmax(row, row_out)
            return out

        return each

    def top_k(self, rows: Rows, k: int) -> Timed:
        top_k = _numba_code()["top_k"]
        return _each_row(lambda row: top_k(row, k), rows)

    def sample(self, rows: Rows, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Timed:
        code, random = _numba_code(), np.random.default_rng(1).random
        if top_k:
            draw = code["draw_top_k"]
            return _each_row(lambda row: draw(row, temperature, top_k, top_p, random()), rows)
        if top_p < 1:
            draw = code["draw_top_p"]
            return _each_row(lambda row: draw(row, temperature, top_p, random()), rows)
        draw = code["draw"]
        return _each_row(lambda row: draw(row, temperature, min_p, random()), rows)


@functools.cache
def _numba_code() -> dict[str, Any]:
    njit = importlib.import_module("numba").njit(fastmath=True)

    @njit  # type: ignore[untyped-decorator]
    def argmax(row: Any) -> Any:
        best = 0
        for i in range(len(row)):
            if row[i] > row[best]:
                best = i
        return best

    @njit  # type: ignore[untyped-decorator]
    def maximum(row: Any) -> Any:
        most = row[0]
        for x in row:
            most = max(most, x)
        return most

    @njit  # type: ignore[untyped-decorator]
    def softmax(row: Any, out: Any) -> None:
        most = maximum(row)
        total = np.float32(0)
        for i in range(len(row)):
            out[i] = np.exp(row[i] - most)
            total += out[i]
        out *= np.float32(1) / total

    @njit  # type: ignore[untyped-decorator]
    def top_k(row: Any, k: Any) -> Any:
        ids = np.argpartition(-row, k - 1)[:k] if k < len(row) else np.arange(len(row))
        ids = ids[np.argsort(-row[ids])]
        return row[ids], ids

    @njit  # type: ignore[untyped-decorator]
    def draw_sorted(logits: Any, ids: Any, temperature: Any, top_p: Any, u: Any) -> Any:
        running = np.cumsum(np.exp((logits - logits[0]) / np.float32(temperature)).astype(np.float64))
        kept = min(np.searchsorted(running, top_p * running[-1]), len(ids) - 1)
        return ids[min(np.searchsorted(running, u * running[kept], side="right"), kept)]

    @njit  # type: ignore[untyped-decorator]
    def draw_top_k(row: Any, temperature: Any, k: Any, top_p: Any, u: Any) -> Any:
        logits, ids = top_k(row, k)
        return draw_sorted(logits, ids, temperature, top_p, u)

    @njit  # type: ignore[untyped-decorator]
    def draw_top_p(row: Any, temperature: Any, top_p: Any, u: Any) -> Any:
        ids = np.argsort(-row)
        return draw_sorted(row[ids], ids, temperature, top_p, u)

    @njit  # type: ignore[untyped-decorator]
    def draw(row: Any, temperature: Any, min_p: Any, u: Any) -> Any:
        most, scale = maximum(row), np.float32(1 / temperature)
        probs = np.empty(len(row), np.float32)
        total = 0.0
        for i in range(len(row)):
            p = np.exp((row[i] - most) * scale)
            probs[i] = p if p >= min_p else 0
            total += probs[i]
        target, running, last = u * total, 0.0, 0
        for i in range(len(row)):
            if probs[i] > 0:
                last = i
                running += probs[i]
                if running > target:
                    return i
        return last

    return {
        "argmax": argmax,
        "softmax": softmax,
        "top_k": top_k,
        "draw_top_k": draw_top_k,
        "draw_top_p": draw_top_p,
        "draw": draw,
    }


# ---- bitmasks ------------------------------------------------------------------------------------------------------------


def make_bitmask(rows: Rows) -> npt.NDArray[np.int32]:
    """Return a bitmask of the tokens that are allowed, about half of them: bit i % 32 of word i // 32."""
    words = -(-rows.shape[-1] // 32)
    return np.random.default_rng(2).integers(-(2**31), 2**31, (*rows.shape[:-1], words), dtype=np.int32)


def unpack_bitmask(mask: npt.NDArray[np.int32], vocab: int) -> npt.NDArray[np.bool_]:
    """Return for each token whether it is allowed."""
    return np.unpackbits(mask.view(np.uint8), axis=-1, bitorder="little")[..., :vocab].astype(bool)


class Llguidance(Engine):
    """llguidance, which applies bitmasks."""

    name = "llguidance"
    packages = ("llguidance",)
    note = "apply_token_bitmask_inplace of llguidance.numpy"

    def bitmask(self, rows: Rows) -> Timed:
        apply = importlib.import_module("llguidance.numpy").apply_token_bitmask_inplace
        mask, logits = np.atleast_2d(make_bitmask(rows)), np.atleast_2d(rows.copy())

        def ban() -> Rows:
            apply(logits, mask)
            return logits.reshape(rows.shape)

        return ban


class Xgrammar(_TorchBased):
    """xgrammar, which applies bitmasks."""

    name = "xgrammar"
    packages = ("xgrammar", "torch")
    note = "apply_token_bitmask_inplace"

    def bitmask(self, rows: Rows) -> Timed:
        torch, apply = self._torch, importlib.import_module("xgrammar").apply_token_bitmask_inplace
        mask, logits = torch.from_numpy(make_bitmask(rows)), torch.from_numpy(rows.copy())

        def ban() -> Any:
            apply(logits, mask)
            return logits

        return ban


ENGINES: tuple[type[Engine], ...] = (
    Toksample,
    Reference,
    Numpy,
    Scipy,
    Torch,
    Transformers,
    LlamaCpp,
    Numba,
    Llguidance,
    Xgrammar,
)


# ---- legal answers -------------------------------------------------------------------------------------------------------

WIDER = 1e-4
"""Other engines' sums are not exact: a token counts as legal if it is in the nucleus of a top_p, or a min_p, so much wider,
or if its logit equals that of a token that is."""


def check(call: Call, rows: Rows, answer: Any) -> None:
    """Raise AssertionError unless the answer is right; a drawn token must be in the exact set of survivors (see `WIDER`)."""
    rows = np.atleast_2d(rows)
    match call.operation:
        case "sample":
            tokens = np.atleast_1d(answer)
            assert tokens.shape == rows.shape[:1], f"{call.name}: {tokens.shape} tokens for {rows.shape} logits"
            for row, token in zip(rows, tokens.tolist(), strict=True):
                least = _least_legal_logit(row, call.params)
                legal = 0 <= token < len(row) and row[token] >= least
                assert legal, f"{call.name}: token {token} is not a legal draw"
        case "argmax":
            assert np.array_equal(np.atleast_1d(answer), rows.argmax(axis=1)), f"{call.name}: {answer}"
        case "top_k":
            values, ids = (np.atleast_2d(part) for part in answer)
            expected = -np.sort(-rows, axis=1)[:, : call.params["k"]]
            assert np.array_equal(values, expected), f"{call.name}: wrong values"
            assert np.array_equal(np.take_along_axis(rows, ids, axis=1), expected), f"{call.name}: wrong ids"
        case "softmax":
            exact = np.exp(rows.astype(np.float64) - rows.max(axis=1, keepdims=True))
            exact /= exact.sum(axis=1, keepdims=True)
            assert np.allclose(np.atleast_2d(answer), exact, rtol=1e-4, atol=1e-9), f"{call.name}: wrong probabilities"
        case "bitmask":
            allowed = unpack_bitmask(np.atleast_2d(make_bitmask(rows)), rows.shape[1])
            assert np.array_equal(np.atleast_2d(answer), np.where(allowed, rows, -np.inf)), f"{call.name}: wrong logits"


def _least_legal_logit(row: Rows, params: Mapping[str, Any]) -> float:
    wider = dict(params)
    if "top_p" in wider:
        wider["top_p"] = min(1.0, wider["top_p"] + WIDER)
    if "min_p" in wider:
        wider["min_p"] = wider["min_p"] * (1 - WIDER)
    ids, _ = toksample.candidates(row, **wider)
    return float(row[ids[-1]])
