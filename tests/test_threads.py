"""Calls from several Python threads at once."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from rows import assert_same, make_params, make_rows, make_words

import toksample

THREADS = 8


def test_calls_at_once_give_right_answers():
    """Rows of many lengths reuse the same scratch memory, short ones after long ones and the other way round."""
    rng = np.random.default_rng(1)
    work = []
    for number in range(64):
        size = int(rng.integers(1, 3000))
        rows = make_rows(rng, ["normal", "few values", "banned", "huge"][number % 4], 4, size)
        params, word = make_params(rng, rows), make_words(rng, 4)
        work.append((rows, params, word))

    def answers(item):
        rows, params, word = item
        return (
            toksample.sample(rows, **params, **word, num_threads=1 + len(rows[0]) % 3),
            toksample.softmax(rows, params["temperature"]),
            toksample.mask_logits(rows, **params, **word),
            *toksample.top_k(rows, 1 + rows.shape[1] // 3),
        )

    want = [answers(item) for item in work]
    barrier = threading.Barrier(THREADS)

    def run(thread):
        barrier.wait()
        return [answers(work[(number * 7 + thread) % 64]) for number in range(64)]

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            results = list(pool.map(run, range(THREADS)))
    finally:
        sys.setswitchinterval(switch)
    for thread, got in enumerate(results):
        for number, answer in enumerate(got):
            assert_same(answer, want[(number * 7 + thread) % 64])


def test_errors_at_once_stay_with_their_calls():
    good = make_rows(np.random.default_rng(2), "normal", 3, 200)
    wrong = good.copy()
    wrong[1, 7] = np.nan
    want = toksample.sample(good, seed=1).tolist()

    def run(thread):
        for _ in range(200):
            if thread % 2:
                assert toksample.sample(good, seed=1).tolist() == want
            else:
                with pytest.raises(ValueError, match="got nan at row 1, id 7"):
                    toksample.sample(wrong, seed=1)
        return True

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(run, range(THREADS)))


def test_threads_fill_their_own_out():
    rows = make_rows(np.random.default_rng(2), "normal", 6, 500)
    want = toksample.softmax(rows)

    def run(_):
        out = np.empty_like(rows)
        for _ in range(100):
            out[:] = -1
            toksample.softmax(rows, out=out)
            assert_same(out, want)
        return True

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(run, range(THREADS)))


def runs_beside(work):
    """Return whether another thread ran Python code before `work(seen)` returned.

    The switch interval is an hour, so a waiting thread gets the GIL only if the thread that has it waits or releases it. That
    happens during `work` if and only if `work` does so.
    """
    begin, seen = threading.Event(), []

    def watch():
        begin.wait()
        seen.append(True)

    watcher = threading.Thread(target=watch)
    watcher.start()
    switch = sys.getswitchinterval()
    sys.setswitchinterval(3600)
    try:
        begin.set()
        work(seen)
        return bool(seen)
    finally:
        sys.setswitchinterval(switch)
        watcher.join()


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="there is no GIL to release")
@pytest.mark.parametrize(
    "function", ["argmax", "sample", "softmax", "log_softmax", "top_k", "mask_logits", "candidates", "replay"]
)
def test_the_gil_is_released(function):
    rows = np.zeros((4, 2**16), np.float32)
    keywords = {"num_threads": 1}
    if function == "top_k":
        keywords["k"] = 2**15
    if function == "replay":
        keywords |= {"ids": np.tile(np.arange(2**16), 4), "offsets": np.arange(5) * 2**16, "tokens": np.zeros(4, int)}

    def work(seen):
        for _ in range(2_000):  # a single call may end before the system has woken the other thread
            getattr(toksample, function)(rows, **keywords)
            if seen:
                break

    assert runs_beside(work)
    assert not runs_beside(lambda seen: [np.lib.stride_tricks.as_strided(rows) for _ in range(20_000)])


# ---- how many threads ----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_limit():
    yield
    toksample.set_num_threads(None)


@pytest.mark.usefixtures("no_limit")
def test_set_num_threads():
    assert toksample.get_num_threads() is None
    toksample.set_num_threads(3)
    assert toksample.get_num_threads() == 3
    for wrong, text in ((0, ">= 1, got 0"), (-(10**5000), ">= 1, got a negative integer of about 5001 digits")):
        with pytest.raises(ValueError, match=rf"^num_threads must be {text}$"):
            toksample.set_num_threads(wrong)
    for wrong in (1.5, "2", [1]):
        with pytest.raises(TypeError, match=r"^num_threads must be an integer, got "):
            toksample.set_num_threads(wrong)
    assert toksample.get_num_threads() == 3
    toksample.set_num_threads(None)
    assert toksample.get_num_threads() is None


def run_python(code, **environment):
    command = [sys.executable, "-c", f"import numpy as np, toksample\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=60)


def test_the_environment_variable():
    code = "print(toksample.get_num_threads()); toksample.set_num_threads(5); print(toksample.get_num_threads())"
    assert run_python(code, TOKSAMPLE_NUM_THREADS="2").stdout.split() == ["2", "5"]
    for wrong in ("0", "-1", "two", "", "1.5"):
        code = "toksample.sample(np.zeros((2, 3), np.float32), num_threads=1); toksample.argmax(np.zeros((2, 3), np.float32))"
        process = run_python(code, TOKSAMPLE_NUM_THREADS=wrong)
        last = process.stderr.strip().splitlines()[-1]
        assert last == f'ValueError: TOKSAMPLE_NUM_THREADS must be an integer >= 1, got "{wrong}"'
        assert "argmax" in process.stderr  # a call that says how many threads it wants does not need the variable


@pytest.mark.skipif(
    not os.path.isdir("/proc/self/task"), reason="counts the threads of the process as Linux shows them"
)
@pytest.mark.usefixtures("no_limit")
def test_the_limit_is_kept():
    rows = np.broadcast_to(np.zeros(2**16, np.float32), (4_000, 2**16))

    def most_threads(**keywords):
        # A thread that was joined may stay in the list for a moment, so new threads are recognized by their numbers.
        before, most, done = set(os.listdir("/proc/self/task")), 0, threading.Event()

        def call():
            toksample.sample(rows, seed=1, **keywords)
            done.set()

        thread = threading.Thread(target=call)
        thread.start()
        while not done.is_set():
            most = max(most, len(set(os.listdir("/proc/self/task")) - before))
        thread.join()
        return most

    assert most_threads(num_threads=3) == 3  # the caller's thread, and two that it starts
    toksample.set_num_threads(1)
    assert most_threads() == 1
    assert most_threads(num_threads=3) == 3
