"""A real model to sample from: Gemma 3 270M, run in numpy.

It is written to be read, and nothing outside of this package depends on it but ``toksample generate``. `files` makes the
model's file, `gguf_file` reads it, `tokenizer` turns text into token ids and back, and `model` is the forward pass.

    model = load_model()
    ids = model.tokenizer.encode("Once upon a time")
    for _ in range(32):
        ids.append(int(model(ids).argmax()))        # or toksample.sample(model(ids), ...)
    print(model.tokenizer.decode(ids))

What it needs beside numpy is the extra ``demo``, whose packages are imported when a model is loaded, not before.
"""

from __future__ import annotations

from toksample._progress import Progress
from toksample.demo.files import model_path
from toksample.demo.model import Gemma

__all__ = ["load_model", "model_path"]


def load_model(progress: Progress | None = None) -> Gemma:
    """Load Gemma 3 270M. `progress` is called with what is being done (str) and the fraction done (0.0 to 1.0)."""
    return Gemma.load(model_path(progress), progress)
