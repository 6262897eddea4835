"""The command line: ``toksample generate``, ``sample``, ``verify``, ``score`` and ``bench``.

Text and tokens go to stdout, and everything else goes to stderr. The exit codes are:

- 0: success;
- 1: ``--check`` found a token that differs;
- 2: bad input or a receipt that is wrong, where stdout stays empty and one line on stderr says what is wrong; or output that
  cannot be written, because the disk is full or stdout is closed;
- 130: Ctrl-C;
- 141: the reader of a pipe has closed it.

A subcommand is an entry of `COMMANDS`. Besides its name and summary it has two functions, which may be in a file of their own:
one adds options to a parser, and the other one runs with the parsed options and returns the exit code. The latter raises
`CommandError` for bad input.

The demo and the bench are only imported by the functions that use them, so that no other command has to wait for them or
needs their dependencies.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TextIO

import numpy as np

import toksample
from toksample import GenerationConfig, PromptLookup, Receipt, Sampled, Sampler, SamplingParams, reference
from toksample._npy import add_dtype_option, read_npy
from toksample._orders import EDITS, ORDERS, STEPS
from toksample._parameters import DEFAULTS, LOGPROBS_MODES, PARAMETERS, Parameter
from toksample._progress import Progress, StatusLine
from toksample._stop_strings import StopStrings
from toksample._text import show

if TYPE_CHECKING:
    from toksample.demo.model import Gemma

__all__ = [
    "COMMANDS",
    "Command",
    "CommandError",
    "add_sampling_options",
    "generation_config",
    "main",
    "sampling_params",
]


class CommandError(Exception):
    """The user's input is wrong. The message is one line for the user."""


class Command(NamedTuple):
    """A subcommand."""

    name: str
    summary: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. Errors, ``--help`` and ``--version`` raise SystemExit."""
    if sys.stderr is None:  # stderr is closed, and print would write to stdout instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it stays open until the interpreter ends
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser(argv)
    if sys.stdout is None:
        parser.error("stdout is closed")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # do not fail if the terminal lacks a character
    try:
        try:
            args = parser.parse_args(argv)
            exit_code: int = args.run(args)
            return exit_code
        finally:
            sys.stdout.flush()  # so that a failing pipe or disk is noticed here, and not when the interpreter ends
    except CommandError as error:
        parser.error(str(error))
    except MemoryError as error:
        parser.error(str(error) or "there is not enough memory")
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _discard(sys.stdout)
        _discard(sys.stderr)
        return 141
    except OSError as error:
        _discard(sys.stdout)
        parser.error(f"{error.filename or 'the output'}: {error.strerror or error}")


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser for these arguments. Only the command that they name gets its options."""
    chosen = next(
        (argument for argument in argv if not argument.startswith("-")), None
    )  # the first argument that is not an option, because no option before the command takes a value
    parser = _Parser(prog="toksample", description="An exact and fast token sampler for language models on the CPU.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = subparsers.add_parser(command.name, help=command.summary, description=command.summary)
        if command.name == chosen:
            command.add_options(subparser)
        subparser.set_defaults(run=command.run)
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and which fails if its help cannot be written. argparse would ignore that."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(allow_abbrev=False, **keywords)

    def print_help(self, file: Any = None) -> None:
        print(self.format_help(), end="", file=file)

    def error(self, message: str) -> NoReturn:
        try:
            print(f"{self.prog}: error: {' '.join(message.split())}", file=sys.stderr, flush=True)
        except OSError:
            _discard(sys.stderr)
        sys.exit(2)


class _Version(argparse.Action):
    """Like argparse's action "version", but it fails if the text cannot be written."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(f"toksample {toksample.__version__}")
        parser.exit()


def _discard(stream: TextIO) -> None:
    """Discard what a stream still buffers. Writing it has failed, and the interpreter would try again when it ends."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, stream.fileno())
    os.close(devnull)


@contextlib.contextmanager
def _bad_input(*errors: type[Exception]) -> Iterator[None]:
    """Report errors of these types as bad input. Their messages must be meant for users."""
    try:
        yield
    except errors as error:
        raise CommandError(str(error)) from error


# ---- options of the sampler ------------------------------------------------------------------------------------------


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {show(text)}") from None


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        most = sys.get_int_max_str_digits()
        rule = f"an integer of at most {most} digits" if len(text) > most > 0 else "an integer"
        raise argparse.ArgumentTypeError(f"must be {rule}, got {show(text)}") from None


def _ids(text: str) -> list[int]:
    return [_integer(part) for part in text.split(",")]


class _IdOption(NamedTuple):
    """An option for a parameter that consists of token ids."""

    meaning: str
    needs_history: bool = False
    is_repeated: bool = False
    """Whether it may be given several times, each with a list of its own."""


_ID_OPTIONS = {
    "allowed_token_ids": _IdOption("ban all tokens but these"),
    "suppress_tokens": _IdOption("ban these tokens"),
    "begin_suppress_tokens": _IdOption("ban these tokens as the first one", needs_history=True),
    "bad_words_ids": _IdOption(
        "never let these tokens follow one another; may be given more than once", needs_history=True, is_repeated=True
    ),
    "xtc_exempt_token_ids": _IdOption("let xtc_probability drop nothing where it would drop one of these tokens"),
    "dry_sequence_breakers": _IdOption("tokens that no repeated sequence contains", needs_history=True),
}


def add_sampling_options(parser: argparse.ArgumentParser, *, has_history: bool = False) -> None:
    """Add the options that `generation_config` reads; those of penalties if there is a text for them."""
    group = parser.add_argument_group("sampling")
    config = "take what is not given from a generation_config.json of transformers, or from the one in a folder"
    group.add_argument("--generation-config", metavar="FILE", help=config)
    for name, parameter in PARAMETERS.items():
        if parameter.metavar is None or (parameter.needs_history and not has_history):
            continue
        if name == "temperature":
            either = group.add_mutually_exclusive_group()
            _add(either, name, parameter)
            greedy = "take the most probable token: temperature 0"
            either.add_argument(
                "--greedy", dest="temperature", action="store_const", const=0.0, help=greedy, default=argparse.SUPPRESS
            )
        else:
            _add(group, name, parameter)
    for name, option in _ID_OPTIONS.items():
        if option.needs_history and not has_history:
            continue
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=_ids,
            action="append" if option.is_repeated else "store",
            default=argparse.SUPPRESS,
            metavar="ID,ID,...",
            help=option.meaning,
        )
    names = f"one of {', '.join(ORDERS)}, or steps separated by commas, among {', '.join(EDITS | STEPS)}"
    group.add_argument(
        "--order",
        type=_order,
        default=argparse.SUPPRESS,
        metavar="ORDER",
        help=f"the order of the edits, the temperature and the filters: {names} (default: toksample)",
    )


def _order(text: str) -> str | tuple[str, ...]:
    """Read the name of an order, or steps that are separated by commas."""
    return tuple(text.split(",")) if "," in text or text in EDITS | STEPS else text


def _add(group: argparse._ActionsContainer, name: str, parameter: Parameter) -> None:
    default = DEFAULTS[name]
    shown = "fresh entropy" if default is None else default
    group.add_argument(
        f"--{name.replace('_', '-')}",
        type=_number if parameter.convert is float else _integer,
        default=argparse.SUPPRESS,  # so that the options that are given can be told from the others
        metavar=parameter.metavar,
        help=f"{parameter.meaning} (default: {shown})",
    )


def generation_config(args: argparse.Namespace) -> GenerationConfig:
    """Return the parameters, each in its range, and the conditions that end a text: given options, then those of the file."""
    options = [name for name, parameter in PARAMETERS.items() if parameter.metavar is not None]
    given = {name: getattr(args, name) for name in (*options, *_ID_OPTIONS, "order") if name in args}
    path = args.generation_config
    with _bad_input(ValueError, TypeError):
        try:
            config = GenerationConfig() if path is None else GenerationConfig.from_file(path)
        except OSError as error:
            raise CommandError(f"{error.filename or path}: {error.strerror or error}") from error
        return dataclasses.replace(config, params=dataclasses.replace(config.params, **given))


def sampling_params(args: argparse.Namespace) -> SamplingParams:
    """Return the sampler's parameters, each in its range."""
    return generation_config(args).params


# ---- log-probabilities -----------------------------------------------------------------------------------------------


def _add_logprobs_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("log-probabilities")
    how_many = (
        "print the log-probability and the rank of each token, and those of the N most probable ones, as lines of JSON"
    )
    group.add_argument("--logprobs", type=_integer, metavar="N", help=how_many)
    mode = "log-probabilities or logits, of the row as it is or of the distribution of the draw (default: %(default)s)"
    group.add_argument("--logprobs-mode", choices=LOGPROBS_MODES, default=LOGPROBS_MODES[0], help=mode)


def _logprobs_keywords(args: argparse.Namespace) -> dict[str, Any]:
    """Return the keywords that ask for log-probabilities, if an option does."""
    return {} if args.logprobs is None else {"logprobs": args.logprobs, "logprobs_mode": args.logprobs_mode}


def _describe(sampled: Sampled, row: int | tuple[()] = ()) -> dict[str, Any]:
    """Return what is said of a token (that of a row, in a batch) for a line of JSON, in which null stands for -inf."""
    token, logprob, rank = (np.asarray(each)[row].item() for each in (sampled.tokens, sampled.logprobs, sampled.ranks))
    top = zip(sampled.top_ids[row].tolist(), sampled.top_logprobs[row].tolist(), strict=True)
    return {
        "token": token,
        "logprob": _number_of_json(logprob),
        "rank": rank,
        "top": [{"token": other, "logprob": _number_of_json(number)} for other, number in top if other >= 0],
    }


def _number_of_json(number: float) -> float | None:
    return number if math.isfinite(number) else None


# ---- toksample generate ----------------------------------------------------------------------------------------------


def _add_generate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="the text to continue")
    add_sampling_options(parser, has_history=True)
    length = (
        "stop after so many tokens, if the text has not ended before (default: that of the generation config, or 256)"
    )
    parser.add_argument("--max-new-tokens", type=_integer, metavar="N", help=length)
    least = "do not end the text before it has so many tokens (default: that of the generation config, or 0)"
    parser.add_argument("--min-new-tokens", type=_integer, metavar="N", help=least)
    check = "draw every token a second time with the numpy reference, and fail if one differs"
    parser.add_argument("--check", action="store_true", help=check)
    draft = (
        "guess the tokens that follow by what followed the last ones before, and let the model check several at once; "
        "the text stays the same"
    )
    parser.add_argument("--draft", choices=("prompt-lookup",), help=draft)
    _add_logprobs_options(parser)


def _run_generate(args: argparse.Namespace) -> int:
    config = generation_config(args)
    _check_prompt(args.prompt)
    for name in ("max_new_tokens", "min_new_tokens", "logprobs"):
        if getattr(args, name) is not None and getattr(args, name) < 0:
            raise CommandError(f"{name} must be >= 0, got {show(getattr(args, name))}")
    with _bad_input(ValueError, TypeError):
        toksample.sample([0.0])  # reports a wrong environment variable now, and not after the model is loaded
    model = _load()
    prompt_ids = model.tokenizer.encode(args.prompt)
    room = model.context_length - len(prompt_ids) + 1  # the model can still predict a token after a full context
    if room < 1:
        limit = f"at most {model.context_length} tokens (the model's context)"
        raise CommandError(f"the prompt must be {limit}, got {len(prompt_ids)}")
    limit_of_config = config.limit(len(prompt_ids))
    most = min(room, limit_of_config if args.max_new_tokens is None else args.max_new_tokens)
    least = config.min_new_tokens if args.min_new_tokens is None else args.min_new_tokens
    stops = config.stops or model.tokenizer.eos_ids
    sampler = Sampler(config.params_of_text(most, stops), prompt_ids=prompt_ids)
    stopwatch = _Stopwatch(model, sampler, args.check)
    ends = {"max_new_tokens": most, "min_new_tokens": least, "stop_token_ids": stops}
    ends |= {"draft": None if args.draft is None else PromptLookup()}
    stop_strings, wanted = StopStrings(config.stop_strings), _logprobs_keywords(args)
    exit_code = 0
    try:
        if wanted:
            with _bad_input(ValueError):
                _stream_lines(stopwatch, prompt_ids, stop_strings, ends | wanted)
        else:
            _stream_text(stopwatch, args.prompt, prompt_ids, stop_strings, ends)
    except KeyboardInterrupt:
        exit_code = 130
    if not wanted:
        print(flush=True)  # ends the text before the figures, in case both go to one terminal
    print(stopwatch.figures(), file=sys.stderr)
    if args.check:
        print(stopwatch.verdict(), file=sys.stderr)
        if stopwatch.differences:
            exit_code = 1
    return exit_code


def _check_prompt(prompt: str) -> None:
    if not prompt:
        raise CommandError("the prompt must have at least one character, got ''")
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise CommandError(f"the prompt must be valid UTF-8, got {show(prompt)}") from None


def _load() -> Gemma:
    from toksample.demo import load_model

    # The errors: a missing package, a damaged one, and a cache folder that cannot be written to.
    with _bad_input(ModuleNotFoundError, RuntimeError, OSError), StatusLine() as status:
        return load_model(progress=_reporter(status))


def _reporter(status: StatusLine) -> Progress:
    """Return a function that shows how far a step has come, or only its name where stderr is not a terminal."""
    said = set()

    def report(label: str, fraction: float) -> None:
        status.show_bar(label, fraction)
        if not status.is_terminal and label not in said:
            said.add(label)
            print(label, file=sys.stderr, flush=True)

    return report


class _Stopwatch:
    """Times a model and a sampler. With `check`, the reference draws each token too, which is not timed."""

    def __init__(self, model: Gemma, sampler: Sampler, check: bool) -> None:
        self.tokenizer = model.tokenizer
        self._model = model
        self._sampler = sampler
        self._check = check
        self._model_ns: list[int] = []
        self._sampler_ns: list[int] = []
        self.differences: list[str] = []

    def model(self, ids: list[int], **keywords: int) -> Any:
        start = time.perf_counter_ns()
        logits = self._model(ids, **keywords)
        self._model_ns.append(time.perf_counter_ns() - start)
        return logits

    def sampler(self, logits: Any, logit_bias: dict[int, float] | None = None, **wanted: Any) -> int | Sampled:
        position, output_ids = self._sampler.position, self._sampler.output_ids
        state = {"mirostat_mu": self._sampler.mirostat_mu, "adaptive_average": self._sampler.adaptive_average}
        params = self._sampler.params.keywords() | state
        if logit_bias is not None:  # at the steps that must not end the text
            logit_bias = {**(params["logit_bias"] or {}), **logit_bias}
        start = time.perf_counter_ns()
        token: int | Sampled = self._sampler(logits, logit_bias=logit_bias, **wanted)
        self._sampler_ns.append(time.perf_counter_ns() - start)
        if self._check:
            keywords = {**params, "seed": self._sampler.seed, "output_ids": output_ids}
            keywords["prompt_ids"] = self._sampler.prompt_ids
            if logit_bias is not None:
                keywords["logit_bias"] = logit_bias
            expected = reference.sample(logits, position=position, **keywords, **wanted)
            if not _is_same(token, expected):
                self.differences.append(f"token {token} at position {position}, the numpy reference draws {expected}")
        return token

    def figures(self) -> str:
        """Return a line with the number of tokens (including the one that ends the text), the speed and the seed."""
        count = len(self._sampler_ns)
        parts = [f"{count} token{'' if count == 1 else 's'}"]
        if count:
            in_model, in_sampler = sum(self._model_ns) / 1e9, sum(self._sampler_ns) / 1e9
            parts.append(f"{count / (in_model + in_sampler):.1f} tokens/s")
            parts.append(f"model {in_model:.2f} s")
            parts.append(f"sampler {statistics.median(self._sampler_ns) / 1e3:.0f} us per token (median)")
        return " | ".join([*parts, f"seed {self._sampler.seed}"])

    def verdict(self) -> str:
        """Return a line that says whether the reference drew the same tokens."""
        count = len(self._sampler_ns)
        if not self.differences:
            return f"check: all {count} tokens equal to the numpy reference"
        return f"check: {len(self.differences)} of {count} tokens differ: {'; '.join(self.differences)}"


def _is_same(drawn: Any, expected: Any) -> bool:
    if not isinstance(drawn, Sampled):
        return bool(drawn == expected)
    fields = zip(dataclasses.astuple(drawn), dataclasses.astuple(expected), strict=True)
    return all(np.array_equal(one, other) for one, other in fields)


def _stream_text(
    stopwatch: _Stopwatch, prompt: str, prompt_ids: list[int], stops: StopStrings, ends: dict[str, Any]
) -> None:
    """Write the prompt and what follows it to stdout, each token as soon as it is drawn."""
    _write(prompt)
    text = stopwatch.tokenizer.stream()
    for token in toksample.generate(stopwatch.model, prompt_ids, stopwatch.sampler, **ends):
        _write(stops.push(text.push(token)))
        if stops.found:
            return
    _write(stops.push(text.finish()))
    _write(stops.finish())


def _stream_lines(stopwatch: _Stopwatch, prompt_ids: list[int], stops: StopStrings, keywords: dict[str, Any]) -> None:
    """Write a line of JSON for each token as soon as it is drawn. A token may have only a part of a character."""
    text = stopwatch.tokenizer.stream()
    for drawn in toksample.generate(stopwatch.model, prompt_ids, stopwatch.sampler, **keywords):
        piece = text.push(drawn.tokens)
        print(json.dumps({"text": piece} | _describe(drawn)), flush=True)
        stops.push(piece)
        if stops.found:
            return


def _write(text: str) -> None:
    print(text, end="", flush=True)


# ---- toksample sample ------------------------------------------------------------------------------------------------


def _add_sample_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.npy", help="logits of shape (V,) or (B, V)")
    add_dtype_option(parser)
    add_sampling_options(parser)
    position = "the position of the tokens in their texts (default: %(default)s)"
    parser.add_argument("--position", type=_integer, default=0, metavar="N", help=position)
    errors = "what to do if a row has no answer: fail, or give the token -1 (default: %(default)s)"
    parser.add_argument("--errors", choices=("raise", "mark"), default="raise", help=errors)
    threads = "use at most this many threads (default: as many as are worthwhile)"
    parser.add_argument("--num-threads", type=_integer, metavar="N", help=threads)
    parser.add_argument("--n", type=_integer, metavar="N", help="draw N tokens from each row, and print a list of them")
    once = "draw no token of a row twice; -1 stands for what is missing if N are too many"
    parser.add_argument("--no-replacement", dest="replacement", action="store_false", help=once)
    receipt = "print the receipt of each token, which `toksample verify` checks"
    parser.add_argument("--receipt", action="store_true", help=receipt)
    _add_logprobs_options(parser)


def _run_sample(args: argparse.Namespace) -> int:
    params = sampling_params(args)
    # numpy's warnings are off, because toksample reports such numbers as errors.
    with _bad_input(ValueError, TypeError), np.errstate(all="ignore"):
        logits = read_npy(args.file, args.dtype)
        keywords = params.keywords() | _logprobs_keywords(args)
        keywords |= {"n": args.n, "replacement": args.replacement, "receipt": args.receipt}
        drawn = toksample.sample(
            logits, position=args.position, errors=args.errors, num_threads=args.num_threads, **keywords
        )
    if args.receipt:
        for row, receipt in enumerate(drawn if isinstance(drawn, list) else [drawn]):
            print(json.dumps({"row": row} | ({"token": -1} if receipt is None else receipt.to_dict())))
    elif args.n is not None:
        for row, tokens in enumerate(np.atleast_2d(drawn).tolist()):
            print(json.dumps({"row": row, "tokens": tokens}))
    elif not isinstance(drawn, Sampled):
        for row, token in enumerate(np.atleast_1d(drawn).tolist()):
            print(json.dumps({"row": row, "token": token}))
    elif isinstance(drawn.tokens, int):
        print(json.dumps({"row": 0} | _describe(drawn)))
    else:
        for row in range(len(drawn.tokens)):
            print(json.dumps({"row": row} | _describe(drawn, row)))
    return 0


# ---- toksample verify ------------------------------------------------------------------------------------------------


def _add_verify_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.npy", help="the logits that were drawn from, of shape (V,) or (B, V)")
    receipts = "the lines of `toksample sample --receipt`, one for each row; - is stdin"
    parser.add_argument("receipts", metavar="RECEIPTS", help=receipts)
    add_dtype_option(parser)
    add_sampling_options(parser)
    position = "the position that the tokens must have (default: that of each receipt)"
    parser.add_argument("--position", type=_integer, metavar="N", help=position)


def _run_verify(args: argparse.Namespace) -> int:
    params = sampling_params(args)
    with _bad_input(ValueError, TypeError), np.errstate(all="ignore"):
        logits = read_npy(args.file, args.dtype)
        receipts = _read_receipts(args.receipts)
        position: dict[str, Any] = {} if args.position is None else {"position": args.position}
        toksample.verify(receipts, np.atleast_2d(logits), params, **position)
    print(json.dumps({"verified": len(receipts)}))
    return 0


def _read_receipts(name: str) -> list[Receipt]:
    """Read a line of JSON for each row, in the order of the rows."""
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror or error}") from error
    receipts = []
    for row, line in enumerate(data.splitlines()):
        try:
            fields = json.loads(line)
            if not isinstance(fields, dict) or fields.pop("row", None) != row:
                raise ValueError(f"it must be an object with a row of {row}")
            receipts.append(Receipt.from_dict(fields))
        except (ValueError, TypeError, RecursionError) as error:
            raise CommandError(f"line {row + 1} of {name} must be a receipt, got an error: {error}") from error
    return receipts


# ---- toksample score -------------------------------------------------------------------------------------------------


def _add_score_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", metavar="FILE|TEXT", help="a file with a text in UTF-8, or the text itself; - is stdin")
    temperature = "divide the logits by it (default: %(default)s)"
    parser.add_argument("--temperature", type=_number, default=1.0, metavar="T", help=temperature)
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "--tokens", action="store_true", help="print the log-probability and the rank of each token as well"
    )
    shown.add_argument("--json", action="store_true", help="print a line of JSON for each token, and one for the text")


def _run_score(args: argparse.Namespace) -> int:
    from toksample.demo.scoring import score_text

    text = _read_text(args.text)
    with _bad_input(ValueError, TypeError):
        toksample.score([0.0], 0, temperature=args.temperature)  # reports a wrong value before the model is loaded
    model = _load()
    with _bad_input(ValueError), StatusLine() as status:
        scored = score_text(model, text, temperature=args.temperature, progress=_reporter(status))
    for token in scored.tokens:
        if args.json:
            line = {
                "token": token.id,
                "text": token.text,
                "logprob": _number_of_json(token.logprob),
                "rank": token.rank,
            }
            print(json.dumps(line))
        elif args.tokens:
            print(f"{token.logprob:10.4f} {token.rank:7d}  {token.text!r}")
    if args.json:
        perplexity = _number_of_json(scored.perplexity)
        print(json.dumps({"tokens": len(scored.tokens), "perplexity": perplexity, "argmax": scored.argmax_share}))
    else:
        count = len(scored.tokens)
        print(
            f"perplexity {scored.perplexity:.4f} | {count} token{'' if count == 1 else 's'} | "
            f"{scored.argmax_share:.1%} are the most probable one"
        )
    return 0


def _read_text(given: str) -> str:
    """Return the text of a file, if there is one of this name, or the text that is given."""
    try:
        data = sys.stdin.buffer.read() if given == "-" else Path(given).read_bytes() if _is_file(given) else None
    except OSError as error:
        raise CommandError(f"{given}: {error.strerror or error}") from error
    try:
        text = given if data is None else data.decode()
        text.encode()
    except UnicodeError:
        raise CommandError(f"the text must be valid UTF-8, got {show(given)}") from None
    if not text:
        raise CommandError("the text must have at least one character, got ''")
    return text


def _is_file(given: str) -> bool:
    try:
        return Path(given).is_file()
    except (OSError, ValueError):  # a text that is too long for a name, or has a null character
        return False


# ---- toksample bench -------------------------------------------------------------------------------------------------


def _add_bench_options(parser: argparse.ArgumentParser) -> None:
    from toksample.bench import command

    command.add_options(parser)


def _run_bench(args: argparse.Namespace) -> int:
    from toksample.bench import command

    with _bad_input(ValueError, ModuleNotFoundError):
        return command.run(args)


COMMANDS = (
    Command("generate", "Continue a text with Gemma 3 270M.", _add_generate_options, _run_generate),
    Command("sample", "Draw a token from each row of logits in a file.", _add_sample_options, _run_sample),
    Command("verify", "Check receipts against the logits in a file.", _add_verify_options, _run_verify),
    Command(
        "score", "Score a text with Gemma 3 270M: how likely it is, token by token.", _add_score_options, _run_score
    ),
    Command("bench", "Compare toksample with what is installed.", _add_bench_options, _run_bench),
)
