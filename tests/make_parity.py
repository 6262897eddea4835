"""Makes parity-NAME.npz: runs another sampler on a few thousand rows, and writes what it keeps.

    pip install . transformers torch
    python tests/make_parity.py transformers
    pip install . llama-cpp-python
    python tests/make_parity.py llama.cpp

The rows and the parameters are the same in each run, so a fixture changes only with the other sampler's version. After that,
look at what `pytest tests/test_parity.py` says, and change its counts and docs/parity.md if it is right to do so.

To add a method, add values of its parameter to VALUES or OTHERS, and a line to the TABLE of each peer that has it.
`Transformers.keep` or `LlamaCpp.samplers` hand the parameter over. A filter also needs its rule in `parity_rules.py`.
"""

import ctypes
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from parity import SHOWN, Case, Recipe, write

Row = NDArray[np.float32]
Answer = tuple[NDArray[np.bool_], NDArray[np.float32]]

# The kinds of rows. Each row gets a seed of its own.
KINDS = [
    Recipe(1, 0, 100, 200, 0),
    Recipe(2, 0, 16, 30, 4),
    Recipe(3, 0, 64, 128, 5),
    # All equal: powers of two, whose probabilities are exact, and others.
    Recipe(4, 0, 1, 3, 1),
    Recipe(16, 0, 1, 0, 0),
    Recipe(64, 0, 1, 100, 2),
    Recipe(10, 0, 1, 0, 0),
    Recipe(100, 0, 1, 7, 0),
    # Ties everywhere: a few values, bfloat16 near 10, and with bans.
    Recipe(64, 0, 2, 2, 0),
    Recipe(150, 0, 3, 4, 1),
    Recipe(200, 0, 60, 120, 3),
    Recipe(120, 0, 12, 24, 2, 5),
    # Many different logits: normal ones, flat ones, banned ones, and a difference of one ulp.
    Recipe(17, 0, 2000, 4000, 8),
    Recipe(100, 0, 2_000_000, 4_000_000, 18),
    Recipe(300, 0, 2_000_000, 4_000_000, 18),
    Recipe(200, 0, 2_000_000, 9_000_000, 17),
    Recipe(257, 0, 1000, 2000, 13),
    Recipe(200, 0, 500_000, 1_000_000, 15, 8),
    Recipe(150, 0, 1_000_000, 2_000_000, 16, 15),
    Recipe(40, 0, 4, -(2**23), 22),
    # Peaks, and huge spans, up to the limits of float32.
    Recipe(200, 0, 1_000_000, 2_000_000, 18, 0, 1, 2_500_000),
    Recipe(250, 0, 1_000_000, 2_000_000, 18, 0, 5, 3_000_000),
    Recipe(80, 0, 1000, 2000, 8, 0, 3, 10_000),
    Recipe(100, 0, 100_000, 200_000, 8),
    Recipe(100, 0, 4_000_000, 8_000_000, 0),
    Recipe(60, 0, 2_000_000, 4_000_000, -100),
    Recipe(50, 0, 3, 4, 149),
]

SHARES = [0.05, 0.1, 0.2, 0.25, 0.3, 0.5, 0.6, 0.75, 0.8, 0.9, 0.95, 0.99, 0.999]
VALUES: dict[str, list[Any]] = {
    "temperature": [0.05, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.1, 1.3, 1.5, 2.0, 3.0, 10.0, 100.0],
    "top_k": [1, 2, 3, 4, 5, 8, 10, 16, 20, 40, 50, 64, 100, 1000],
    "top_p": [*SHARES, 0.0, 0.9999],
    "min_p": [*SHARES, 1.0, 0.01, 0.02, 0.03, 0.001, 1e-4, 1e-6],
    "typical_p": SHARES,
    "epsilon_cutoff": [*SHARES, 0.0625, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-5],
    "eta_cutoff": [0.9, 0.5, 0.25, 0.1, 0.05, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-5],
    "top_h": [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 0.95],
    "top_n_sigma": [0.1, 0.5, 0.8, 1.0, 1.3, 1.5, 2.0, 2.5, 3.0],
    "dynatemp_range": [0.1, 0.3, 0.5, 1.0],
    "dynatemp_exponent": [0.5, 1.0, 1.7, 2.0],
    "mirostat_v1": [1.0, 2.0, 3.0, 5.0, 8.0, 10.0],
    "mirostat_v2": [0.1, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0],
    "adaptive_target": [0.0, 0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0],
    "adaptive_decay": [0.0, 0.5, 0.9, 0.99],
    "min_tokens_to_keep": [2, 3, 5, 10, 50],
    "xtc_threshold": [0.0, 0.001, 0.01, 0.0625, 0.05, 0.1, 0.2, 0.3, 0.5],
    "repetition_penalty": [0.5, 0.9, 1.05, 1.1, 1.2, 1.3, 2.0],
    "frequency_penalty": [-0.5, 0.1, 0.3, 0.5, 1.0, 2.0],
    "presence_penalty": [-0.5, 0.1, 0.3, 0.5, 1.0, 2.0],
    "penalty_window": [1, 2, 5, 64],
    "encoder_repetition_penalty": [0.5, 0.9, 1.1, 1.5, 2.0],
    "no_repeat_ngram_size": [1, 2, 3, 4, 6],
    "min_new_tokens": [1, 2, 3, 6, 31],
    "dry_multiplier": [0.1, 0.8, 2.0],
    "dry_base": [1.0, 1.2, 1.75, 3.0],
    "dry_allowed_length": [1, 2, 3, 5],
    "dry_penalty_last_n": [3, 8, 64],
}
"""What is drawn for a parameter that is a number."""

HISTORY = {"prompt_ids": [0, 1, 3, 10], "output_ids": [0, 1, 2, 5, 30]}
"""How many token ids are drawn. A case whose line of the table has them always has them."""


def draw_ids(size: int, rng: random.Random, most: int = 4) -> list[int]:
    """Draw a few token ids."""
    return [rng.randrange(size) for _ in range(rng.randint(1, most))]


def draw_sequences(size: int, history: list[int], rng: random.Random) -> list[list[int]]:
    """Draw some sequences of token ids. Often the last token of one would complete it now."""
    ends = [history[-rng.randint(1, 4) :] if rng.random() < 0.6 else [] for _ in range(4)]
    others = [end or (draw_ids(size, rng) if rng.random() < 0.5 else []) for end in ends]
    return [list(one) for one in dict.fromkeys((*other, rng.randrange(size)) for other in others)]


# What is drawn for the other parameters, by functions of the size of the row, the prompt and the output.
OTHERS: dict[str, Callable[[int, list[int], list[int], random.Random], Any]] = {
    "sequence_bias": lambda size, prompt, output, rng: [
        [ids, rng.choice([-np.inf, -5.0, -1.3, 0.7, 2.0, 10.0])] for ids in draw_sequences(size, prompt + output, rng)
    ],
    "bad_words_ids": lambda size, prompt, output, rng: draw_sequences(size, prompt + output, rng),
    "logit_bias": lambda size, prompt, output, rng: [
        [token, rng.choice([-np.inf, -3.0, -0.4, 1.5, 6.0])] for token in dict.fromkeys(draw_ids(size, rng, 8))
    ],
    "suppress_tokens": lambda size, prompt, output, rng: draw_ids(size, rng),
    "begin_suppress_tokens": lambda size, prompt, output, rng: draw_ids(size, rng),
    "eos_token_ids": lambda size, prompt, output, rng: draw_ids(size, rng, 3),
    "forced_bos_token_id": lambda size, prompt, output, rng: rng.randrange(size),
    "forced_eos_token_id": lambda size, prompt, output, rng: rng.randrange(size),
    "max_new_tokens": lambda size, prompt, output, rng: len(output) + rng.choice([1, 1, 2, 5]),
    "exponential_decay_length_penalty": lambda size, prompt, output, rng: [
        rng.choice([0, 1, 3, 10]),
        rng.choice([1.01, 1.5, 2.0]),
    ],
    # Tokens that were drawn before, each from so many equal logits: so its probability does not depend on the draw.
    "adaptive_past": lambda size, prompt, output, rng: [
        rng.choice([1, 2, 3, 5, 10, 100]) for _ in range(rng.choice([0, 1, 2, 5, 20]))
    ],
}

CLOSE = ("top_p", "min_p", "epsilon_cutoff")
"""The parameters that are compared with a share of the row, which some cases are a little above or below."""
ALWAYS = ("eos_token_ids",)
"""The parameters that others need, which a case therefore always has."""
DISTANCES = [0.0, 1e-7, -1e-7, 3e-5, -3e-5, 1e-3, -1e-3]


def close_value(name: str, row: Row, rng: random.Random) -> float:
    """Return a value of a parameter that is close to a share of the row where it keeps one more token."""
    p = np.sort(np.exp(row.astype(np.float64) - float(row.max())))[::-1]
    p = p[p > 0]
    at = rng.randrange(min(len(p), 30))
    share = {"top_p": np.cumsum(p)[at] / p.sum(), "min_p": p[at], "epsilon_cutoff": p[at] / p.sum()}[name]
    low, high = (1e-6, 1.0) if name == "min_p" else (1e-6, 0.999999)
    return min(max(float(share) * (1 + rng.choice(DISTANCES)), low), high)


def draw_params(names: tuple[str, ...], row: Row, rng: random.Random, every: bool) -> dict[str, Any]:
    """Draw the parameters of a case: all that are named, or some of them."""
    params: dict[str, Any] = {}
    for name, counts in HISTORY.items():
        if name in names:  # of a few ids or of all, so that some sequences of them are there twice
            ids = rng.choice([range(len(row)), range(min(len(row), 3))])
            params[name] = [rng.choice(ids) for _ in range(rng.choice(counts))]
    history = params.get("prompt_ids", []), params.get("output_ids", [])
    for name in names:
        if name in HISTORY or (not every and name not in ALWAYS and rng.random() < 0.4):
            continue
        if name in OTHERS:
            params[name] = OTHERS[name](len(row), *history, rng)
        elif name in CLOSE and len(names) < 3 and rng.random() < 0.25:
            params[name] = close_value(name, row, rng)
        else:
            params[name] = rng.choice(VALUES[name])
    return params


class Transformers:
    """The logits processors of transformers, as `generate` makes them from a generation config."""

    FILTERS = ("temperature", "top_h", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
    EDITS = (
        "sequence_bias",
        "encoder_repetition_penalty",
        "repetition_penalty",
        "no_repeat_ngram_size",
        "bad_words_ids",
        "min_new_tokens",
        "eos_token_ids",
        "exponential_decay_length_penalty",
        "suppress_tokens",
        "begin_suppress_tokens",
    )
    TABLE: ClassVar = [
        (("temperature",), 60),
        (("top_k",), 200),
        (("top_p",), 400),
        (("min_p",), 300),
        (("typical_p",), 400),
        (("epsilon_cutoff",), 300),
        (("eta_cutoff",), 300),
        (("top_h",), 300),
        (("top_k", "min_tokens_to_keep"), 60),
        (("top_p", "min_tokens_to_keep"), 100),
        (("min_p", "min_tokens_to_keep"), 100),
        (("typical_p", "min_tokens_to_keep"), 100),
        (("epsilon_cutoff", "min_tokens_to_keep"), 100),
        (("eta_cutoff", "min_tokens_to_keep"), 100),
        (("temperature", "top_k"), 100),
        (("temperature", "top_p"), 150),
        (("temperature", "top_k", "top_p"), 150),
        (FILTERS, 600),
        (("repetition_penalty", *HISTORY), 200),
        (("encoder_repetition_penalty", *HISTORY), 100),
        (("no_repeat_ngram_size", *HISTORY), 200),
        (("sequence_bias", *HISTORY), 200),
        (("bad_words_ids", *HISTORY), 200),
        (("suppress_tokens",), 40),
        (("begin_suppress_tokens", *HISTORY), 60),
        (("min_new_tokens", "eos_token_ids", *HISTORY), 100),
        (("forced_bos_token_id", *HISTORY), 60),
        (("forced_eos_token_id", "max_new_tokens", *HISTORY), 60),
        (("exponential_decay_length_penalty", "eos_token_ids", *HISTORY), 100),
        ((*EDITS, *HISTORY), 300),
        ((*EDITS, *HISTORY, *FILTERS), 400),
    ]
    """Which parameters the cases have, and how many cases there are. Of more than three parameters, each is there or not."""

    def __init__(self) -> None:
        import torch
        import transformers

        self.torch, self.version = torch, f"transformers {transformers.__version__}, torch {torch.__version__}"
        self.config_class = transformers.GenerationConfig

        class Model(transformers.GenerationMixin):
            """The part of a model that makes the processors."""

            config = transformers.GPT2Config()

        self.model = Model()

    def keep(self, row: Row, params: dict[str, Any]) -> Answer | None:
        """Return of each token whether it is kept, and its probability; None if this row has no answer."""
        torch = self.torch
        params = dict(params)
        prompt, output = params.pop("prompt_ids", []), params.pop("output_ids", [])
        fewest, eos = params.pop("min_tokens_to_keep", 1), params.pop("eos_token_ids", None)
        if has_another_rule(row, prompt, eos, params):
            return None
        longest = params.pop("max_new_tokens", None)
        config = self.config_class(do_sample=True, **({"top_k": 0} | params))
        config._eos_token_tensor = None if eos is None else torch.tensor(eos)
        if longest is not None:
            config.max_length = len(prompt) + longest
        if fewest > 1:  # as many as there are tokens that end a text, and one more, in a search by beams
            config.num_beams, config._eos_token_tensor = 2, torch.arange(fewest - 1)
        processors = self.model._get_logits_processor(
            config,
            input_ids_seq_length=len(prompt),
            encoder_input_ids=torch.tensor([prompt], dtype=torch.int64),
            device="cpu",
        )
        try:
            scores = processors(torch.tensor([prompt + output], dtype=torch.int64), torch.tensor(row)[None])[0]
        except ValueError:  # top_h of a row without a finite logit
            return None
        if not torch.isfinite(scores.max()):
            return None
        return (scores > -torch.inf).numpy(), scores.softmax(dim=-1).numpy()


def has_another_rule(row: Row, prompt: list[int], eos: list[int] | None, params: dict[str, Any]) -> bool:
    """Say whether transformers has a rule that toksample does not have; docs/parity.md lists these."""
    forced = params.get("forced_bos_token_id", params.get("forced_eos_token_id"))
    return (
        (forced is not None and row[forced] == -np.inf)
        or ("forced_bos_token_id" in params and len(prompt) != 1)
        or any([token] in params.get("bad_words_ids", []) for token in eos or [])
    )


class LlamaCpp:
    """The samplers of llama.cpp, through the low-level functions of llama-cpp-python."""

    FILTERS = ("top_n_sigma", "top_k", "typical_p", "top_p", "min_p", "xtc_threshold", "temperature")
    EDITS = ("repetition_penalty", "frequency_penalty", "presence_penalty", "penalty_window")
    DRY = ("dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n")
    TABLE: ClassVar = [
        (("temperature",), 60),
        (("top_k",), 200),
        (("top_p",), 400),
        (("min_p",), 300),
        (("typical_p",), 400),
        (("xtc_threshold",), 300),
        (("top_n_sigma",), 300),
        (("top_p", "min_tokens_to_keep"), 100),
        (("min_p", "min_tokens_to_keep"), 100),
        (("typical_p", "min_tokens_to_keep"), 100),
        (("xtc_threshold", "min_tokens_to_keep"), 100),
        (("top_k", "top_p"), 100),
        (("top_k", "top_p", "temperature"), 150),
        (FILTERS, 600),
        ((*EDITS, "output_ids"), 300),
        (("logit_bias",), 100),
        ((*DRY, "output_ids"), 200),
        ((*EDITS, *DRY, "logit_bias", "output_ids", *FILTERS), 300),
        (("mirostat_v1",), 200),
        (("mirostat_v2",), 200),
        (("temperature", "mirostat_v1"), 100),
        (("temperature", "mirostat_v2"), 100),
        (("temperature", "dynatemp_range", "dynatemp_exponent"), 200),
        (("adaptive_target", "adaptive_decay", "adaptive_past"), 200),
        (("temperature", "adaptive_target", "adaptive_past"), 100),
        (("min_p", "temperature", "adaptive_target"), 100),
    ]

    def __init__(self) -> None:
        import llama_cpp

        self.llama, self.version = llama_cpp, f"llama-cpp-python {llama_cpp.__version__}"

    def keep(self, row: Row, params: dict[str, Any]) -> Answer | None:
        """Return of each token whether it is kept, and its probability; None if this row has no answer."""
        if has_no_answer(row, params):
            return None
        llama, data = self.llama, np.zeros(len(row), TOKEN_DATA)
        data["id"], data["logit"] = np.arange(len(row)), row
        chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        for sampler in self.samplers(len(row), params):
            llama.llama_sampler_chain_add(chain, sampler)
        for token in params.get("output_ids", []):
            llama.llama_sampler_accept(chain, token)
        array = self.apply(chain, data)
        llama.llama_sampler_free(chain)
        kept, probs = np.zeros(len(row), bool), np.zeros(len(row), np.float32)
        for token in array.data[: array.size]:
            kept[token.id], probs[token.id] = token.logit > -np.inf, token.p
        return (kept, probs) if kept.any() else None

    def apply(self, sampler: Any, data: NDArray[np.void]) -> Any:
        """Apply a sampler to token data, and return the array that llama.cpp makes of it, with the token it chose."""
        pointer = ctypes.cast(data.ctypes.data, self.llama.llama_token_data_p)
        array = self.llama.llama_token_data_array(pointer, len(data), -1, False)
        self.llama.llama_sampler_apply(sampler, ctypes.byref(array))
        return array

    def samplers(self, size: int, params: dict[str, Any]) -> Iterator[Any]:
        """Yield the samplers, in llama.cpp's order. The last one computes the probabilities."""
        llama, fewest = self.llama, params.get("min_tokens_to_keep", 1)
        if "logit_bias" in params:
            biases = (llama.llama_logit_bias * len(params["logit_bias"]))(*map(tuple, params["logit_bias"]))
            yield llama.llama_sampler_init_logit_bias(size, len(biases), biases)
        if "output_ids" in params:
            window = params.get("penalty_window", len(params["output_ids"]))
            penalties = [
                params.get(f"{name}_penalty", off) for name, off in zip(PENALTIES, (1.0, 0.0, 0.0), strict=True)
            ]
            yield llama.llama_sampler_init_penalties(size, window, *penalties)
        if "dry_multiplier" in params:
            window = params.get("dry_penalty_last_n", len(params["output_ids"]))
            base, allowed = params.get("dry_base", 1.75), params.get("dry_allowed_length", 2)
            yield llama.llama_sampler_init_dry(None, params["dry_multiplier"], base, allowed, window, None, 0)
        if "top_n_sigma" in params:
            yield llama.llama_sampler_init_top_n_sigma(params["top_n_sigma"])
        if "top_k" in params:
            yield llama.llama_sampler_init_top_k(params["top_k"])
        if "typical_p" in params:
            yield llama.llama_sampler_init_typical(params["typical_p"], fewest)
        if "top_p" in params:
            yield llama.llama_sampler_init_top_p(params["top_p"], fewest)
        if "min_p" in params:
            yield llama.llama_sampler_init_min_p(params["min_p"], fewest)
        if "xtc_threshold" in params:
            yield llama.llama_sampler_init_xtc(1.0, params["xtc_threshold"], fewest, 1)
        if "dynatemp_range" in params:
            temperatures = params["temperature"], params["dynatemp_range"], params["dynatemp_exponent"]
            yield llama.llama_sampler_init_temp_ext(*temperatures)
        elif "temperature" in params:
            yield llama.llama_sampler_init_temp(params["temperature"])
        if "mirostat_v1" in params:  # mu is twice the target at first
            yield llama.llama_sampler_init_mirostat(size, 1, params["mirostat_v1"] / 2, 0.1, 100)
        if "mirostat_v2" in params:
            yield llama.llama_sampler_init_mirostat_v2(1, params["mirostat_v2"] / 2, 0.1)
        if "adaptive_target" in params:
            sampler = llama.llama_sampler_init_adaptive_p(
                params["adaptive_target"], params.get("adaptive_decay", 0.9), 1
            )
            for count in params.get("adaptive_past", []):
                array = self.apply(sampler, np.zeros(count, TOKEN_DATA))
                llama.llama_sampler_accept(sampler, array.data[array.selected].id)
            yield sampler
        yield llama.llama_sampler_init_dist(1)


TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
PENALTIES = ("repetition", "frequency", "presence")


def has_no_answer(row: Row, params: dict[str, Any]) -> bool:
    """Say whether llama.cpp has no answer for a row, or computes it from nan or infinity; docs/parity.md says when."""
    logits = row.astype(np.float64)
    for token, bias in params.get("logit_bias", []):
        logits[token] += bias
    logits = np.sort(logits)[::-1]
    if logits[0] == -np.inf:
        return True
    is_banned, span = bool(logits[-1] == -np.inf), float(logits[0] - logits[logits > -np.inf][-1])
    if "typical_p" in params:  # which takes the logarithms of the probabilities
        part = logits[: params.get("top_k")]
        return "top_n_sigma" in params or bool(part[0] - part[-1] > 70)
    if "xtc_threshold" in params and "min_tokens_to_keep" in params:
        return is_banned
    # The squares of llama.cpp may overflow, and toksample takes no logit for lower than 1024 below the largest.
    if "top_n_sigma" in params:
        return span > 1000
    temperature = params.get("temperature", 1.0)
    if "dynatemp_range" in params:
        return is_banned or (span / temperature > 70 and temperature <= params["dynatemp_range"])
    if "mirostat_v1" in params:
        return (
            is_banned or span / temperature > 70 or log_of_zipf_count(logits / temperature, params["mirostat_v1"]) > 20
        )
    return False


def log_of_zipf_count(logits: NDArray[np.float64], mu: float) -> float:
    """Return the logarithm of how many tokens the first version of mirostat keeps of a sorted row."""
    if len(logits) == 1:
        return np.inf
    places = np.arange(1, min(len(logits), 100))
    ratios = np.log((places + 1) / places)
    s = float(ratios @ -np.diff(logits[:100]) / (ratios @ ratios))
    if s < 0.01 or abs(s - 1) < 1e-4:
        return np.inf
    return float((mu * np.log(2) + np.log((s - 1) / (1 - len(logits) ** (1 - s)))) / s)


PEERS: dict[str, Callable[[], Transformers | LlamaCpp]] = {"transformers": Transformers, "llama.cpp": LlamaCpp}


def make_cases(peer: Transformers | LlamaCpp) -> list[Case]:
    """Run the peer on the rows and parameters of its table."""
    cases, seed = [], 0
    for names, count in peer.TABLE:
        made = 0
        while made < count:
            seed += 1
            recipe = KINDS[seed % len(KINDS)]._replace(seed=seed)
            row, rng = recipe.row(), random.Random(seed)
            if not (row > -np.inf).any():
                continue
            params = draw_params(names, row, rng, every=len({*names} - {*HISTORY}) <= 3)
            answer = peer.keep(row, params)
            if answer is not None:
                kept, probs = answer
                cases.append(Case(recipe, params, kept, probs[kept][:SHOWN]))
                made += 1
    return cases


def main() -> None:
    (name,) = sys.argv[1:]
    peer = PEERS[name]()
    cases = make_cases(peer)
    write(name, peer.version, cases)
    print(f"{len(cases)} cases of {peer.version}")


if __name__ == "__main__":
    main()
