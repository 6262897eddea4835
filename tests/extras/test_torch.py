"""torch tensors as logits: every function takes them, and returns its logits or probabilities as tensors."""

import numpy as np
import pytest
import torch
from rows import DTYPES, assert_same, cast, make_rows

import toksample
from toksample import reference
from toksample._arrays import as_native

BATCH = make_rows(np.random.default_rng(4), "normal", 5, 130)
PARAMS = {"temperature": 0.8, "top_k": 100, "top_p": 0.95, "seed": 11}
RULE = "logits must be a dense tensor on the CPU, got "
both = pytest.mark.parametrize("module", [toksample, reference], ids=["kernels", "reference"])
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def tensor_of(dtype):
    """Return a tensor and an array with the same values."""
    rows = cast(BATCH, dtype)
    return torch.from_numpy(rows.astype(np.float64)).to(getattr(torch, dtype)), rows


def answers(module, logits):
    """Return the answers of the functions that take a batch: first those that are always numpy arrays, then the others."""
    return (module.argmax(logits), module.sample(logits, **PARAMS)), (
        module.softmax(logits, 0.8),
        module.log_softmax(logits, 0.8),
        *module.top_k(logits, 7),
        module.mask_logits(logits, temperature=0.8, top_p=0.9),
    )


def assert_same_tensor(got, want):
    """Assert that a tensor has the dtype, the shape and the bits of an array."""
    assert type(got) is torch.Tensor
    assert str(got.dtype) == f"torch.{want.dtype}"
    if got.dtype == torch.bfloat16:
        got, want = got.view(torch.int16), want.view(np.int16)
    assert_same(got.numpy(), want)


def assert_answers(module, tensor, rows):
    (tokens, tensors), (want_tokens, arrays) = answers(module, tensor), answers(module, rows)
    for got, want in zip(tokens, want_tokens, strict=True):
        assert_same(got, want)
    for got, want in zip(tensors, arrays, strict=True):
        assert_same_tensor(got, want)


@both
@dtypes
def test_a_tensor_in_a_tensor_out(module, dtype):
    tensor, rows = tensor_of(dtype)
    for logits in (
        tensor,
        tensor.clone().requires_grad_(),
        torch.nn.Parameter(tensor),
        tensor.T.contiguous().T,
        tensor.repeat(1, 2)[:, :130],
        tensor.repeat_interleave(2, dim=1)[:, ::2],
        [*tensor],
    ):
        assert_answers(module, logits, rows)
    assert_answers(module, tensor[0], rows[0])
    assert_answers(module, tensor[:0], rows[:0])
    assert_answers(module, tensor[:1].expand(4, 130), np.broadcast_to(rows[:1], (4, 130)))
    for got, want in zip(module.candidates(tensor[0]), module.candidates(rows[0]), strict=True):
        assert_same(got, want)


@both
def test_out_is_returned_as_it_is(module):
    out = np.zeros(BATCH.shape, np.float32)
    for function in (module.softmax, module.log_softmax):
        assert function(torch.from_numpy(BATCH), out=out) is out
        assert_same(out, function(BATCH))


@dtypes
def test_a_tensor_is_not_copied(dtype):
    tensor, _ = tensor_of(dtype)
    native, (source,), _ = as_native(tensor)
    assert source.ctypes.data == tensor.data_ptr()
    assert native is source or dtype == "float64"


@both
def test_lists_of_numbers_from_torch(module):
    for dtype in (torch.bfloat16, torch.float32, torch.int32):
        masked = module.mask_logits([*torch.tensor([3, 1, 2], dtype=dtype)], top_k=2)
        assert_same(masked, np.array([3, -np.inf, 2]))


def nested(layout):
    return torch.nested.nested_tensor([torch.zeros(3), torch.zeros(2)], layout=layout)


def fake(dtype):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.zeros(3, dtype=dtype)


class Stubborn(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        raise RuntimeError("no")


UNFIT = {
    "sparse": (lambda: torch.eye(3).to_sparse(), f"{RULE}a tensor of layout torch.sparse_coo"),
    "compressed": (lambda: torch.eye(3).to_sparse_csr(), f"{RULE}a tensor of layout torch.sparse_csr"),
    "nested": (lambda: nested(torch.strided), f"{RULE}a nested tensor"),
    "jagged": (lambda: nested(torch.jagged), f"{RULE}a nested tensor"),
    "meta": (lambda: torch.zeros(3, device="meta"), f"{RULE}a tensor on meta, which has no values"),
    "fake": (lambda: fake(torch.float32), f"{RULE}a FakeTensor that numpy cannot read: "),
    "fake bfloat16": (lambda: fake(torch.bfloat16), f"{RULE}a FakeTensor that numpy cannot read: "),
    "negative": (
        lambda: torch.tensor([1 + 2j]).conj().imag,
        f"{RULE}a tensor with the negative bit set: write logits.resolve_neg()",
    ),
    "stubborn": (lambda: torch.zeros(3).as_subclass(Stubborn), f"{RULE}a Stubborn that numpy cannot read: no"),
    **{
        str(dtype): (
            lambda dtype=dtype: torch.zeros(3, dtype=dtype),
            f"logits must be float32, float16, bfloat16 or float64, got {dtype}",
        )
        for dtype in (torch.int64, torch.int16, torch.bool, torch.complex64, torch.float8_e4m3fn)
    },
    "conjugate": (
        lambda: torch.tensor([1j]).conj(),
        "logits must be float32, float16, bfloat16 or float64, got torch.complex64",
    ),
    "stubborn in a list": (
        lambda: [torch.zeros(3).as_subclass(Stubborn)],
        "logits must be an array, got a list not made of numbers: no",
    ),
    "sparse in a list": (lambda: [torch.ones(3).to_sparse()], f"{RULE}a tensor of layout torch.sparse_coo"),
    "quantized": (
        lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.quint8),
        "logits must be float32, float16, bfloat16 or float64, got torch.quint8",
    ),
}


@both
@pytest.mark.parametrize(("make", "text"), UNFIT.values(), ids=UNFIT.keys())
@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested", "ignore:torch.quantize_per_tensor")
def test_tensors_that_are_not_logits(module, make, text):
    logits = make()
    for function in (module.argmax, module.sample, module.softmax, module.mask_logits, lambda x: module.top_k(x, 1)):
        with pytest.raises(TypeError) as caught:
            function(logits)
        assert str(caught.value).startswith(text)


@both
def test_tensors_of_a_transform_are_refused(module):
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(TypeError, match=f"^{RULE}a Tensor that numpy cannot read: "):
            torch.func.vmap(lambda row: module.softmax(row))(torch.zeros(2, 3, dtype=dtype))


@both
def test_the_negative_bit_resolved(module):
    logits = torch.tensor([1 + 2j, 1 - 3j]).conj().imag
    assert module.argmax(logits.resolve_neg()) == 1


@both
def test_a_third_axis(module):
    with pytest.raises(
        ValueError, match=r"got shape \(2, 3, 5\): for the last step of each row, write logits\[:, -1\]$"
    ):
        module.sample(torch.zeros(2, 3, 5, dtype=torch.bfloat16))


def test_torch_flushes_subnormals():
    """`torch.set_flush_denormal` changes the thread's arithmetic, but the answers remain those of IEEE 754."""
    row = make_rows(np.random.default_rng(3), "denormal", 1, 500)[0]
    words = {"temperature": 1e-30, "top_p": 0.9, "position": list(range(20)), "seed": 1}
    rows = np.tile(row, (20, 1))
    wide = rows.astype(np.float64)
    want = answers(toksample, rows), toksample.sample(rows, **words), toksample.sample(wide, **words)
    assert torch.set_flush_denormal(True)
    try:
        got = answers(toksample, rows), toksample.sample(rows, **words), toksample.sample(wide, **words)
        still_flushed = float(torch.tensor(1e-40) * 1) == 0
    finally:
        torch.set_flush_denormal(False)
    assert still_flushed  # the call left the thread as it was
    for one, other in zip(got[0], want[0], strict=True):
        for answer, true_answer in zip(one, other, strict=True):
            assert_same(answer, true_answer)
    assert_same(got[1:], want[1:])


def test_generate_takes_logits_of_one_step():
    rows = BATCH[:, :32]
    want = [toksample.sample(row, seed=1, position=position) for position, row in enumerate(rows)]
    for shape in ((-1,), (1, -1), (1, 1, -1)):
        steps = iter(torch.from_numpy(rows).reshape(len(rows), *shape))
        tokens = toksample.generate(lambda ids: next(steps), [1], seed=1, max_new_tokens=len(rows))  # noqa: B023
        assert list(tokens) == want
    with pytest.raises(ValueError, match=r"got shape \(1, 5, 32\): for the last step, write logits\[:, -1\]$"):
        next(toksample.generate(lambda ids: torch.zeros(1, 5, 32), [1]))


@both
def test_bitmasks_and_token_ids_of_torch(module):
    row = torch.arange(70.0)
    batch = row.repeat(3, 1)
    mask = torch.tensor([[1, 0, 0], [-(2**31), 0, 0], [0, 2, 0]], dtype=torch.int32)
    assert module.sample(batch, bitmask=mask).tolist() == [0, 31, 33]
    assert module.sample(row, bitmask=mask[2]) == 33
    given = {"repetition_penalty": 100.0, "temperature": 0}
    assert module.sample(row, output_ids=torch.tensor([69, 68]), **given) == 67
    ids = torch.tensor([[69, 68], [69, 0], [1, 2]])
    assert module.sample(batch, prompt_ids=ids, **given).tolist() == [67, 68, 69]
    assert module.sample(batch, prompt_ids=[*ids.to(torch.int32)], **given).tolist() == [67, 68, 69]
    with pytest.raises(TypeError, match="bitmask must be an int32 array"):
        module.sample(row, bitmask=mask[2].float())
    with pytest.raises(TypeError, match="output_ids must be a sequence of token ids"):
        module.sample(row, output_ids=torch.tensor([1.0]))
