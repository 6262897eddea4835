"""Check in the disassembly that every loop of the kernels is vector code, compiled for the instruction set that it is for.

    vector_code.py                      # builds the library and instructions.rs, and reads the clones for AVX2 and AVX-512
    vector_code.py PROGRAM OBJDUMP      # reads instructions.rs for aarch64, where the portable clones are NEON code

The library is what people use, and the program is what `instructions.py` counts. LLVM may compile the same loop differently in
the two.

There are two kinds of clones: the recipes of `per_isa!`, and the kernels that `Vector::run` compiles apart from them. What is
not inlined into one of the two is compiled for the baseline of the target: it is right, and slow.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from instructions import build

RECIPE = re.compile(r"toksample::(recipe::\w+)::(portable|avx2|avx512)::<(.*)>")


class Cpu(NamedTuple):
    """What the clones of a kind of CPU look like."""

    wide: dict[str, re.Pattern[str]]
    """For each instruction set that is looked at, the instructions on its wide registers. Moves do not count: any copy of
    memory may use wide registers."""
    scalar: re.Pattern[str]
    kernel: re.Pattern[str]
    """The names of the kernels, with what is behind the name of the instruction set."""
    baseline: str | None
    """The instruction set of all code that is not in a clone, if it is one of them."""
    moves: re.Pattern[str]
    """The instructions that move a single number between a wide register and another place, or load one that has 16 bits."""


X86 = Cpu(
    {"avx2": re.compile(r"(?!vmov).*%ymm"), "avx512": re.compile(r"(?!vmov).*%zmm")},
    re.compile(r"v(?!mov)\w+s[sd]\b"),
    re.compile(r"<toksample::isa::vector::\w+ as [\w:]+::Vector>::run::(avx2|avx512)::<.*?(toksample::.*)>"),
    None,
    re.compile(r"vp(extr|insr)|v(extract|insert)ps\b"),
)
AARCH64 = Cpu(
    {"portable": re.compile(r"(?!mov).*\bv\d+\.(16b|8h|4s|2d)")},
    re.compile(r"(f(?!mov)\w+|[su]cvtf)\s+[sd]\d"),
    re.compile(r"<toksample::isa::vector::(Portable) as [\w:]+::Vector>::run::<.*?(toksample::.*)>"),
    "portable",
    re.compile(r"([su]mov|ldrh)\b"),
)
KERNEL = re.compile(r"<?toksample::(kernels|lanes|row|logit|isa::vector)::")
CALL = re.compile(r"(?:call|j\w+) +[0-9a-f]+ <(.+?)(?:\+0x[0-9a-f]+)?>$")
# What may be compiled for the baseline: errors, what only decides which kernel to call next, what looks at single numbers, and
# what is not vector code anywhere, such as selecting and sorting.
BASELINE = re.compile(
    r"toksample::(row|kernels::replay)::first_not_finite\b"
    r"|<?toksample::recipe::\w+::(<|body<.*closure)|<?toksample::(search|changes|methods)::"
    r"|<?toksample::kernels::(mass::Mass>?::(floor|least_logit|least_where|logit_of_surprise)|survey::Survey>?::between)"
    r"|<?toksample::kernels::(draw::Odds|series::|tail::|order::sort)"
    r"|<toksample::isa::vector::Portable as"
    r"|.*>::(select_nth_unstable|sort_unstable|retain)|core::slice::sort::"
)
# Kernels that look at single tokens.
SINGLE = re.compile(r"toksample::kernels::survey::Survey>::(take|total|turn)|.*::(moments::|reweigh_listed<)")
# The fewest wide instructions of a recipe: the smallest has about 40, one without vector code a few. Single numbers, such as
# the share of a nucleus, are scalar in any case.
FEWEST = 30
# The most single numbers that a clone moves. A sum across lanes moves up to 90. A loop that has become one over single numbers
# moves hundreds.
MOST_MOVES = 120


def functions(program: Path, objdump: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the instructions of each function."""
    command = [objdump, "--disassemble", "--demangle", "--no-show-raw-insn", program]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for function in listing.split("\n\n"):
        head, *lines = function.strip().splitlines()
        if name := re.fullmatch(r"[0-9a-f]+ <(.*)>:", head):
            yield name[1], [line.partition("\t")[2] for line in lines]


def main(arguments: list[str]) -> None:
    """Print a line for each clone; exit with what is wrong."""
    if arguments:
        program, objdump = arguments
        wrong = read(Path(program), objdump, AARCH64)
    else:
        wrong = read(build("--features", "python", "--lib"), "objdump", X86)
        wrong += read(build("--example", "instructions"), "objdump", X86)
    if wrong:
        sys.exit("\n".join(wrong))


def read(program: Path, objdump: str, cpu: Cpu) -> list[str]:
    """Print a line for each clone of a program, and return what is wrong."""
    print(f"{program.name}:")
    wrong: list[str] = []
    kinds = {"recipe": 0, "kernel": 0}
    for name, instructions in sorted(functions(program, objdump)):
        recipe, kernel = RECIPE.fullmatch(name), cpu.kernel.fullmatch(name)
        if recipe and recipe[2] in cpu.wide:
            kind, isa, what = "recipe", recipe[2], f"{recipe[1]}::<{recipe[3]}>"
        elif kernel:
            kind, isa, what = "kernel", kernel[1].lower(), kernel[2]
        else:
            if KERNEL.match(name) and not recipe and not cpu.baseline and not BASELINE.match(name):
                wrong.append(f"compiled for the baseline: {name}")
            continue
        kinds[kind] += 1
        wide = sum(cpu.wide[isa].match(each) is not None for each in instructions)
        scalar = sum(cpu.scalar.match(each) is not None for each in instructions)
        print(f"{isa:9}{len(instructions):6} instructions,{wide:5} wide,{scalar:4} scalar  {what[:120]}")
        if (kind == "recipe" and wide < max(FEWEST, scalar // 2)) or (
            kind == "kernel" and wide == 0 and not SINGLE.match(what)
        ):
            wrong.append(f"not vectorized: {what} for {isa}: {wide} wide instructions, {scalar} scalar")
        if (moves := sum(cpu.moves.match(each) is not None for each in instructions)) > MOST_MOVES:
            wrong.append(f"moves single numbers: {what} for {isa}: {moves} such instructions")
    wrong += [f"{program.name} has no clone of a {kind}" for kind, count in kinds.items() if not count]
    return wrong


if __name__ == "__main__":
    main(sys.argv[1:])
