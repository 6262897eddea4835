"""A real model to sample from: Gemma 3 270M, run in numpy.

It is written to be read, and only ``toksample generate`` depends on it. `files` puts the model file together, `gguf_file`
reads it, `tokenizer` turns text into token ids and back, and `model` is the forward pass.

    model = load_model()
    ids = model.tokenizer.encode("Once upon a time")
    for _ in range(32):
        ids.append(int(model(ids).argmax()))        # or toksample.sample(model(ids), ...)
    print(model.tokenizer.decode(ids))

Besides numpy it needs the packages of the extra ``demo``. They are not imported before a model is loaded.
"""

from __future__ import annotations

from toksample._progress import Progress
from toksample.demo.files import model_path
from toksample.demo.model import Gemma

__all__ = ["load_model", "model_path"]


def load_model(progress: Progress | None = None) -> Gemma:
    """Load Gemma 3 270M. `progress` is called with the name of the current step and the fraction of it done (0.0 to 1.0)."""
    return Gemma.load(model_path(progress), progress)
