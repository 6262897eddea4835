"""Runs each fuzz target of `fuzz/` for the given time, under AddressSanitizer.

    python .ci/fuzz.py --seconds 3600                          # an hour each; needs a nightly toolchain and cargo-fuzz
    python .ci/fuzz.py --seconds 600 --targets sample softmax
    python .ci/fuzz.py --minimise                              # rewrites the seeds, from the old ones and what runs found

Inputs are lines of hexadecimal digits. A run begins with those in `fuzz/seeds/TARGET.txt`, and with those that once failed, in
`fuzz/findings/TARGET.txt`. It keeps new inputs that reach more code in $TOKSAMPLE_CI_DIR/fuzz, for the next run.
"""

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
WORK = Path(os.environ.get("TOKSAMPLE_CI_DIR", CACHE / "toksample-ci")) / "fuzz"
TARGETS = sorted(file.stem for file in CHECKOUT.glob("fuzz/fuzz_targets/*.rs"))
BUILD = WORK / "target" / f"{platform.machine()}-unknown-linux-gnu" / "release"
LONGEST_INPUT = 256
LONGEST_SEED = 96
ASAN = {"ASAN_OPTIONS": "detect_odr_violation=0"}  # as cargo-fuzz sets it; otherwise Rust's own symbols are reported


def build() -> None:
    """Compile all targets."""
    # The operands of comparisons are not traced, because no input needs a magic number, and tracing takes half of the time.
    options = ["--sanitizer", "address", "--no-trace-compares", "--target-dir", str(WORK / "target")]
    subprocess.run(["cargo", "+nightly", "fuzz", "build", *options], check=True, cwd=CHECKOUT)


def unpack(target: str) -> Path:
    """Write the seeds and findings of a target to files, as libFuzzer needs them, and return their folder."""
    folder = WORK / "seeds" / target
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for kind in ("seeds", "findings"):
        for line in (CHECKOUT / "fuzz" / kind / f"{target}.txt").read_text(encoding="ascii").splitlines():
            if not line.startswith("#"):
                data = bytes.fromhex(line)
                (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)
    return folder


def folder_of(kind: str, target: str) -> Path:
    """Return a folder of the target that is kept after the run."""
    folder = WORK / kind / target
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fuzz(target: str, seconds: int) -> bool:
    """Run a target, print a line with what it did, and return True if it found nothing."""
    artifacts = WORK / "artifacts" / target
    shutil.rmtree(artifacts, ignore_errors=True)
    artifacts.mkdir(parents=True)
    log = WORK / f"{target}.log"
    command = [
        str(BUILD / target),
        str(folder_of("corpus", target)),  # libFuzzer adds new inputs to this folder
        str(unpack(target)),
        f"-artifact_prefix={artifacts}/",
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST_INPUT}",
        "-len_control=0",
        "-timeout=10",
        "-print_final_stats=1",
    ]
    start = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | ASAN)
        _, status, usage = os.wait4(process.pid, 0)
    wall, text = time.monotonic() - start, log.read_text(errors="replace")
    done = re.search(r"number_of_executed_units: (\d+)", text)
    count = int(done[1]) if done else 0
    processor = usage.ru_utime + usage.ru_stime
    rates = f"{count / wall:,.0f} a second, {count / processor:,.0f} a second of processor time"
    print(f"{target}: {count:,} executions, {rates}", flush=True)
    findings = list(artifacts.iterdir())
    if status == 0 and count > 0 and not findings:
        return True
    print("\n".join(text.splitlines()[-60:]))
    for finding in findings:
        print(f"{target} fails on this input, a line for fuzz/findings/{target}.txt:\n{finding.read_bytes().hex()}")
    return False


def minimise(target: str) -> None:
    """Write new seeds: as few inputs as together reach all the code that the corpus reaches."""
    inputs, least = [folder_of("corpus", target), unpack(target)], WORK / "least" / target
    shutil.rmtree(least, ignore_errors=True)
    least.mkdir(parents=True)
    options = ["-set_cover_merge=1", "-use_counters=0", f"-max_len={LONGEST_SEED}"]
    subprocess.run([str(BUILD / target), *options, str(least), *map(str, inputs)], check=True, env=os.environ | ASAN)
    seeds = sorted(file.read_bytes() for file in least.iterdir())
    text = "".join(f"{seed.hex()}\n" for seed in seeds)
    file = CHECKOUT / "fuzz" / "seeds" / f"{target}.txt"
    file.write_text(f"# Made by .ci/fuzz.py --minimise.\n{text}", encoding="ascii")
    print(f"{target}: {len(seeds)} seeds, {file.stat().st_size:,} bytes")


def main() -> int:
    """Run what the command line asks for. Return 1 if something was found."""
    parser = argparse.ArgumentParser(description="Run the fuzz targets.")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--minimise", action="store_true", help="write the seeds anew instead")
    options = parser.parse_args()
    build()
    if options.minimise:
        for target in options.targets:
            minimise(target)
        return 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        passed = list(pool.map(lambda target: fuzz(target, options.seconds), options.targets))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
