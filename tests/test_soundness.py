"""No Python code may crash the process, hang it, or make it read or write out of bounds, even after a fork.

Code that would crash or hang without its fix runs in a new process (`survives`). A process that takes longer than two minutes
counts as hanging. Errors must be a ValueError, TypeError or MemoryError.
"""

import gc
import itertools
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

import toksample
from toksample import Sampler, reference

V = 5_000  # more than the 1,024 logits that are worked on under the GIL
ROW = np.random.default_rng(0).normal(scale=4, size=V).astype(np.float32)
BATCH = np.tile(ROW, (4, 1))

ANYTHING = Path(__file__).with_name("anything.py")

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
needs_signals = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")

PRELUDE = """
import ctypes, faulthandler, gc, os, signal, sys, threading, time
import numpy as np
import toksample
faulthandler.enable()
V = 5_000
ROW = np.random.default_rng(0).normal(scale=4, size=V).astype(np.float32)
"""


def survives(code, prelude=PRELUDE):
    """Run code in a new process, which must finish, and return what it printed."""
    process = subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, f"exit code {process.returncode}\n{process.stdout}\n{process.stderr[-3000:]}"
    return process.stdout


# ---- Python code that runs during a call -------------------------------------------------------------------------------

CALLS = """
class Once:
    # A number that does something the first time it is asked for its value.
    def __init__(self, value, action):
        self.value, self.action = value, action
    def _do(self):
        if self.action is not None:
            action, self.action = self.action, None
            try:
                action()
            except ValueError:  # numpy may refuse
                pass
        return self.value
    def __float__(self): return float(self._do())
    def __index__(self): return int(self._do())

def calls(make):
    # Every function, with every parameter in turn being one that acts on the logits or on out.
    def number(value, action):
        return Once(value, action)
    filters = dict(temperature=0.7, top_k=50, top_p=0.9, min_p=0.1)
    for name, value in dict(filters, seed=1, position=2, stream=3, num_threads=2).items():
        for one in (True, False):
            logits, out, action = make(one, np.int64)
            argument = number(value, action) if one or name == "num_threads" else [number(value, action), value]
            yield toksample.sample, (logits,), {name: argument, "out": out}
            if name in filters:
                logits, out, action = make(True, np.int64)
                yield toksample.candidates, (logits,), {name: number(value, action)}
                logits, out, action = make(one, np.int64)
                yield toksample.mask_logits, (logits,), {name: number(value, action)}
    for function in (toksample.softmax, toksample.log_softmax):
        for name in ("temperature", "num_threads"):
            logits, out, action = make(True, np.float32)
            yield function, (logits,), {name: number(1, action), "out": out}
    logits, out, action = make(True, np.int64)
    yield toksample.top_k, (logits, number(5, action)), {}
    logits, out, action = make(True, np.int64)
    yield toksample.argmax, (logits,), {"num_threads": number(1, action)}

def run(make):
    for function, arguments, keywords in calls(make):
        try:
            function(*arguments, **keywords)
        except (ValueError, TypeError) as error:
            assert str(error).startswith(("out ", "logits ", "k ")) or "value for each" in str(error), error

def arrays(one, dtype):
    logits = (ROW if one else np.tile(ROW, (2, 1))).copy()  # which has its own memory: a view cannot be resized
    out = np.zeros(() if one and dtype == np.int64 else logits.shape if dtype == np.float32 else 2, dtype)
    return logits, out
"""

ACTIONS = {
    "the logits shrink": "logits.resize(1 if one else (1, 1), refcheck=False)",
    "the logits grow": "logits.resize(10**7 if one else (2, 10**6), refcheck=False)",
    "the logits get another type": "logits.dtype = np.int8",
    "the logits get wider elements": "logits.dtype = np.float64",
    "the logits get another shape": "logits.shape = (1, *logits.shape)",
    "the logits get no axis": "logits.resize((), refcheck=False)",
    "the logits are written to": "logits.fill(np.nan)",
    "out shrinks": "out.resize(0, refcheck=False)",
    "out gets another type": "out.dtype = np.int8",
    "out gets another shape": "out.shape = (1, *out.shape)",
    "out becomes read-only": "out.flags.writeable = False",
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS.keys())
def test_a_parameter_that_changes_the_arrays(action):
    survives(
        f"""
        import warnings
        warnings.simplefilter("ignore")
        def make(one, dtype):
            logits, out = arrays(one, dtype)
            def action():
                {action}
            return logits, out, action
        run(make)
        """,
        PRELUDE + CALLS,
    )


def test_a_finalizer_that_changes_the_logits():
    """When a call allocates memory, the garbage collector may start and run finalizers."""
    survives(
        """
        class Trap:
            def __init__(self, logits):
                self.me, self.logits = self, logits
            def __del__(self):
                self.logits.resize(1, refcheck=False)
        gc.set_threshold(1)
        for _ in range(300):
            logits = np.tile(ROW, 20).copy()
            Trap(logits)
            for function in (toksample.softmax, toksample.mask_logits, toksample.argmax, lambda x: toksample.top_k(x, 1)):
                try:
                    function(logits)
                except ValueError as error:
                    assert "logits must" in str(error)
        """
    )


def test_an_out_that_lies_about_itself():
    class Liar(np.ndarray):
        def __array_function__(self, function, types, args, kwargs):
            self.dtype = np.int8
            return False

        def __getattribute__(self, name):
            return {"dtype": np.dtype(np.int64), "shape": (4,), "nbytes": 32}.get(name) or super().__getattribute__(
                name
            )

    out = np.zeros(4, np.int64).view(Liar)
    assert toksample.sample(BATCH, seed=1, out=out) is out
    assert np.array_equal(np.asarray(out), toksample.sample(BATCH, seed=1))
    out = np.zeros(4, np.int8).view(Liar)
    with pytest.raises(TypeError, match="out must be a writable C-contiguous int64 array"):
        toksample.sample(BATCH, seed=1, out=out)


def test_logits_of_a_subclass_are_read_as_what_they_are():
    class Liar(np.ndarray):
        def __array_finalize__(self, of):
            if of is not None:
                raise RuntimeError("made a copy")

        def __getattribute__(self, name):
            return {"shape": (10**9,), "ndim": 1, "strides": (1,)}.get(name) or super().__getattribute__(name)

    for logits in (ROW, BATCH):
        lying = np.ndarray.__new__(Liar, logits.shape, logits.dtype, buffer=logits)
        try:
            tokens = toksample.argmax(lying)
        except (TypeError, ValueError):
            continue
        assert np.array_equal(tokens, toksample.argmax(logits))


@pytest.mark.parametrize("module", [toksample, reference], ids=["kernels", "reference"])
def test_values_for_rows_are_counted_as_they_come(module):
    class Values(list):
        """A list that claims to have 4 values, but yields another number of them."""

        def __len__(self):
            return 4

        def __iter__(self):
            return iter([0.5] * self.count)

    for count in (0, 3, 5):
        values = Values([0.5] * 4)
        values.count = count
        with pytest.raises(ValueError, match=f"temperature must have one value for each of the 4 rows, got {count}"):
            module.sample(BATCH, temperature=values)
    for values in ({0.1, 0.2, 0.3, 0.4}, dict.fromkeys(range(4), 0.5), b"1234", bytearray(4), iter([0.5] * 4)):
        with pytest.raises(TypeError, match="temperature must be a number, or one for each row of a batch, got "):
            module.sample(BATCH, temperature=values)


@pytest.mark.parametrize("module", [toksample, reference], ids=["kernels", "reference"])
def test_a_bias_beyond_its_range_though_float32_can_hold_it(module):
    assert module.sample(ROW, temperature=0, logit_bias={0: 3.4e38}) == 0
    for bias in (3.4025e38, -3.4025e38):
        with pytest.raises(ValueError, match=r"logit_bias must be in \[-3.4e38, 3.4e38\] or -inf, got "):
            module.sample(ROW, logit_bias={0: bias})


@pytest.mark.parametrize("module", [toksample, reference], ids=["kernels", "reference"])
def test_a_bitmask_that_is_not_aligned(module):
    words = np.frombuffer(bytes(1) + b"\xff" * (4 * -(-V // 32)), np.uint8)[1:].view(np.int32)
    assert not words.flags.aligned
    assert module.sample(ROW, seed=1, bitmask=words) == module.sample(ROW, seed=1)


@pytest.mark.parametrize("module", [toksample, reference], ids=["kernels", "reference"])
def test_mappings_for_rows_are_counted_as_they_come(module):
    class Mappings(list):
        """A list that claims to have 4 mappings."""

        def __len__(self):
            return 4

    for count in (0, 3, 6):
        with pytest.raises(ValueError, match=f"logit_bias must have one mapping for each of the 4 rows, got {count}"):
            module.sample(BATCH, logit_bias=Mappings([{1: 1.0}] * count))


def test_a_list_of_values_that_shrinks_while_it_is_read():
    class Shrinking:
        def __float__(self):
            values.clear()
            return 0.5

    values = [Shrinking() for _ in range(4)]
    assert toksample.sample(BATCH, temperature=values, seed=1).shape == (4,)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, ZeroDivisionError])
def test_an_exception_of_the_callers_code_passes_through(error):
    class Raises:
        def _raise(self, *_, **__):
            raise error("on purpose")

        __float__ = __index__ = __array__ = _raise

    for name in ("temperature", "top_p", "min_p", "top_k", "seed", "stream", "position", "num_threads"):
        with pytest.raises(error, match="on purpose"):
            toksample.sample(ROW, **{name: Raises() if name not in ("temperature",) else Number(error)})
    with pytest.raises(error, match="on purpose"):
        toksample.top_k(ROW, Number(error))
    if not issubclass(error, Exception) or error is MemoryError:
        with pytest.raises(error, match="on purpose"):
            toksample.sample(Raises())


class Number:
    """A number that raises an error when it is converted."""

    def __init__(self, error):
        self.error = error

    def __float__(self):
        raise self.error("on purpose")

    __index__ = __float__


def test_an_error_shows_what_cannot_be_shown():
    class Unshowable:
        def __repr__(self):
            raise ValueError("no")

    with pytest.raises(TypeError, match=r"temperature must be a number, .* got a Unshowable that cannot be shown"):
        toksample.sample(ROW, temperature=Unshowable())


def test_logits_that_draw_from_the_same_sampler():
    """Before it was fixed, the sampler's lock was held while logits were converted, so this call waited for itself."""
    sampler = Sampler(seed=1)
    tokens = []

    class Logits:
        def __array__(self, dtype=None, copy=None):
            tokens.append(sampler(ROW))
            return ROW

    outer = sampler(Logits())
    assert sampler.position == 2
    assert outer == toksample.sample(ROW, seed=1, position=0)
    assert tokens == [toksample.sample(ROW, seed=1, position=1)]


# ---- other threads -----------------------------------------------------------------------------------------------------

RACES = {
    "finite logits": "rng.normal(scale=8, size=V)",
    "NaN": "np.where(rng.random(V) < 0.3, np.nan, ROW)",
    "infinities": "np.where(rng.random(V) < 0.3, rng.choice([np.inf, -np.inf], V), ROW)",
    "only -inf": "np.full(V, -np.inf)",
    "large logits": "rng.normal(scale=1e38, size=V)",
}


@pytest.mark.parametrize("values", RACES.values(), ids=RACES.keys())
def test_another_thread_writes_to_the_logits(values):
    """The call may return a wrong token or raise an error, but may not panic or loop forever. See src/kernels/mod.rs."""
    survives(
        f"""
        rng = np.random.default_rng(0)
        V = 20_000
        ROW = rng.normal(scale=4, size=V).astype(np.float32)
        with np.errstate(all="ignore"):
            others = [({values}).astype(np.float32) for _ in range(8)] + [ROW]
        logits = np.tile(ROW, (2, 1))
        stop = False
        def write():
            while not stop:
                for other in others:
                    np.copyto(logits, other)
        threads = [threading.Thread(target=write) for _ in range(2)]
        for thread in threads:
            thread.start()
        sys.setswitchinterval(1e-5)
        calls = 0
        end = time.monotonic() + 4
        parameters = [
            dict(temperature=0.7), dict(temperature=0.7, top_p=0.9), dict(temperature=3.0, top_p=0.9), dict(top_k=V // 2),
            dict(temperature=0), dict(temperature=2.0, top_k=V // 2, top_p=0.99), dict(min_p=1e-9), dict(top_k=50, top_p=0.9),
        ]
        while time.monotonic() < end:
            for keywords in parameters:
                for function in (toksample.sample, toksample.mask_logits, toksample.candidates):
                    for x in (logits[0], logits):
                        calls += 1
                        try:
                            function(x, **keywords)
                        except ValueError as error:
                            assert str(error).startswith("logits must "), error
            for function in (toksample.softmax, toksample.log_softmax, toksample.argmax, lambda x: toksample.top_k(x, V // 2)):
                calls += 1
                try:
                    function(logits)
                except ValueError as error:
                    assert str(error).startswith("logits must "), error
        stop = True
        print(calls)
        """
    )


def test_another_thread_resizes_the_logits():
    """numpy does not resize an array that has a weak reference, and each call that releases the GIL holds one."""
    survives(
        """
        logits = np.tile(ROW, 200).copy()  # a view could not be resized at all
        assert logits.base is None
        resized = 0
        stop = False
        def resize():
            global resized
            n = 0
            while not stop:
                n += 1
                try:
                    logits.resize(V * (100 + n % 100), refcheck=False)
                    logits[:V] = ROW
                    resized += 1
                except ValueError:
                    pass
        thread = threading.Thread(target=resize)
        thread.start()
        sys.setswitchinterval(1e-5)
        end = time.monotonic() + 4
        while time.monotonic() < end:
            for function in (toksample.argmax, toksample.sample, toksample.softmax, lambda x: toksample.top_k(x, 99)):
                try:
                    function(logits)
                except ValueError as error:
                    assert str(error).startswith("logits must "), error
        stop = True
        thread.join()
        assert resized > 0  # between two calls it may
        """
    )


def test_two_threads_share_one_out():
    rows = np.tile(ROW, (200, 1))
    out = np.zeros_like(rows)
    errors, barrier = [], threading.Barrier(3)

    def run():
        barrier.wait()
        for _ in range(40):
            try:
                toksample.softmax(rows, out=out)
            except ValueError as error:
                errors.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(errors) == {"out must not be in use by another call, got one that is"}
    assert np.array_equal(toksample.softmax(rows, out=out), toksample.softmax(rows))


def test_threads_that_share_a_sampler_do_not_wait_for_each_other():
    sampler = Sampler(seed=1)
    inside, outside = threading.Event(), threading.Event()

    class Slow:
        def __array__(self, dtype=None, copy=None):
            inside.set()
            assert outside.wait(60), "the other thread waits for this call"
            return ROW

    tokens = []
    thread = threading.Thread(target=lambda: tokens.append(sampler(Slow())))
    thread.start()
    assert inside.wait(60)
    tokens.append(sampler(ROW))
    outside.set()
    thread.join()
    assert sorted(tokens) == sorted(toksample.sample(ROW, seed=1, position=position) for position in range(2))


def test_threads_that_share_a_sampler_take_each_position_once():
    sampler = Sampler(seed=1, temperature=2.0)
    results = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda r=r: r.extend(sampler(ROW) for _ in range(500))) for r in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sampler.position == 2000
    want = [toksample.sample(ROW, seed=1, temperature=2.0, position=position) for position in range(2000)]
    assert sorted(itertools.chain(*results)) == sorted(want)


# ---- memory and signals ------------------------------------------------------------------------------------------------


def test_memory_that_cannot_be_had():
    row = np.float32([1, 2])
    rows = np.broadcast_to(row[:1], (2**42, 1))  # one number in memory, and 32 TiB of tokens
    for function in (toksample.argmax, toksample.sample, toksample.softmax, toksample.mask_logits):
        with pytest.raises(MemoryError):
            function(rows)
    with pytest.raises(MemoryError):
        toksample.top_k(rows, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are not kept elsewhere")
def test_scratch_memory_that_cannot_be_had():
    survives(
        """
        import resource
        V = 2**22
        row = np.zeros(V, np.float32)
        toksample.sample(row[:10])
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        seen = 0
        for room in (0, 2**20, 2**24, 2**26, 2**27):
            resource.setrlimit(resource.RLIMIT_AS, (size + room, resource.RLIM_INFINITY))
            for function in (
                lambda: toksample.sample(row, top_p=0.5),
                lambda: toksample.sample(row, top_k=V // 2),
                lambda: toksample.candidates(row),
                lambda: toksample.candidates(row[None]),
                lambda: toksample.sample(row, n=5, replacement=False),
                lambda: toksample.softmax(row),
                lambda: toksample.top_k(row, V - 1),
            ):
                try:
                    function()
                except MemoryError:
                    seen += 1
        assert seen >= 5, seen
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        toksample.sample(row, top_p=0.5)
        """
    )


@needs_signals
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_ends_a_batch(threads):
    """Without Ctrl-C, the batch would take half an hour."""
    survives(
        f"""
        rows = np.broadcast_to(np.tile(ROW, 10), (30_000_000, 10 * V))
        for function in (
            lambda: toksample.sample(rows, num_threads={threads}),
            lambda: toksample.argmax(rows, num_threads={threads}),
        ):
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            start = time.monotonic()
            try:
                function()
            except KeyboardInterrupt:
                print(f"after {{time.monotonic() - start:.2f}} s")
            else:
                raise AssertionError("not interrupted")
        """
    )


@needs_signals
def test_a_signal_handler_that_tries_everything():
    """A signal handler runs between two parts of a batch, when no kernel is running, and may even fork."""
    survives(
        """
        def handler(number, frame):
            for array in (base, out):
                try:
                    array.resize((1,), refcheck=False)
                    seen.add("resized")
                except ValueError:
                    seen.add("refused")
            if "resized" in seen:
                return
            toksample.sample(logits[:10], seed=1)
            try:
                toksample.softmax(logits[:1], out=out[:1])
                seen.add("written")
            except ValueError as error:
                assert "out must not be in use" in str(error)
            if hasattr(os, "fork"):
                pid = os.fork()
                if pid == 0:
                    signal.setitimer(signal.ITIMER_REAL, 0)  # the child goes on with the call, and ends after it
                    seen.add("child")
                else:
                    assert os.waitpid(pid, 0)[1] == 0
        signal.signal(signal.SIGALRM, handler)
        seen = set()
        for attempt in range(4):  # the batch may be done before Python looks for signals
            base, rows, seen = ROW.copy(), 20_000 * (1 + attempt), set()
            logits, out = np.broadcast_to(base, (rows, V)), np.zeros((rows, V), np.float32)
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            try:
                toksample.softmax(logits, out=out, num_threads=2)
            except ValueError:
                assert "resized" in seen
            signal.setitimer(signal.ITIMER_REAL, 0)
            if seen and "resized" not in seen:
                break
        assert seen - {"child"} == {"refused"}, seen
        assert (out == toksample.softmax(ROW)).all()
        """
    )


# ---- fork --------------------------------------------------------------------------------------------------------------

# Forks while `busy` runs in other threads. Each child does `work` and must end.
FORKS = """
import warnings
warnings.simplefilter("ignore")  # of forking with threads, which is the point

def fork_often(busy, work, forks):
    stop = False
    def run():
        while not stop:
            busy()
    threads = [threading.Thread(target=run, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    sys.setswitchinterval(1e-5)
    for number in range(forks):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        end = time.monotonic() + 20
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
                raise AssertionError(f"child {number} hangs")
            time.sleep(0.0005)
        assert status == 0, f"child {number} ended with status {status}"
    stop = True
    for thread in threads:
        thread.join()
"""


@needs_fork
@pytest.mark.parametrize(
    ("busy", "work"),
    [
        ("toksample.sample(ROW)", "toksample.sample(ROW)"),
        ("toksample.softmax(rows, num_threads=2)", "toksample.softmax(rows, num_threads=2)"),
        ("sampler(rows)", "(sampler(rows), sampler.reset(), sampler(ROW))"),
        ("toksample.sample([1.0, 2.0])", "toksample.sample([1.0, 2.0])"),
        (
            "toksample.softmax(rows, out=out[threading.get_ident()])",
            "[toksample.softmax(rows, out=o) for o in out.values()]",
        ),
    ],
    ids=["one row", "batches", "a sampler", "conversions", "out"],
)
def test_forks_while_other_threads_sample(busy, work):
    survives(
        f"""
        import collections
        rows = np.tile(ROW, (8, 1))
        out = collections.defaultdict(lambda: np.zeros_like(rows))
        sampler = toksample.Sampler(seed=1)
        fork_often(lambda: {busy}, lambda: {work}, 400)
        """,
        PRELUDE + FORKS,
    )


@needs_fork
def test_a_fork_during_the_first_call():
    """Before it was fixed, the first call looked up numpy's interface under a lock, which a child could inherit."""
    for _ in range(10):
        survives(
            """
            def call():
                toksample.sample([1.0, 2.0])
                toksample.softmax(np.tile(ROW, (8, 1)), num_threads=2)
            fork_often(call, call, 1)
            """,
            PRELUDE + FORKS,
        )


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_samplers_without_a_seed_draw_different_texts():
    def texts(sampler):
        sampler(ROW)
        found = []
        for _ in range(3):
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.write(writing, pickle.dumps(([sampler(ROW) for _ in range(20)], sampler.position)))
                os._exit(0)
            os.close(writing)
            with open(reading, "rb") as file:
                found.append(pickle.loads(file.read()))
            os.waitpid(pid, 0)
        found.append(([sampler(ROW) for _ in range(20)], sampler.position))
        return found

    found = texts(Sampler(temperature=3.0))
    assert len({tuple(tokens) for tokens, _ in found}) == 4
    assert {position for _, position in found} == {21}
    seed = 5
    assert len({tuple(tokens) for tokens, _ in texts(Sampler(temperature=3.0, seed=seed))}) == 1


def test_a_pickled_sampler_goes_on_where_it_was():
    for sampler in (Sampler(temperature=3.0), Sampler(temperature=3.0, seed=1, num_threads=2)):
        sampler(ROW)
        copied = pickle.loads(pickle.dumps(sampler))
        assert [copied(ROW) for _ in range(20)] == [sampler(ROW) for _ in range(20)]
        assert copied.num_threads == sampler.num_threads


# ---- anything at all ---------------------------------------------------------------------------------------------------


def test_anything_at_all():
    """`python tests/anything.py CALLS SEED` makes more of these calls."""
    assert "12000 calls" in survives(f"sys.argv = ['anything', '12000']\n{ANYTHING.read_text()}")


def test_calls_leave_no_garbage_behind():
    """The traceback of an error, or a `Pin` or `Writing` that is not dropped, would keep arrays alive."""
    import weakref

    rows = BATCH.copy()
    alive = weakref.ref(rows)
    out = np.zeros_like(rows)
    toksample.softmax(rows, out=out)
    with pytest.raises(ValueError, match="top_p"):
        toksample.sample(rows, top_p=5)
    del rows
    gc.collect()
    assert alive() is None
    out.resize((1, 1), refcheck=False)
