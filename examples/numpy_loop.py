"""The loop of a text, written out: a function from token ids to logits, and a sampler.

    pip install toksample
    python examples/numpy_loop.py

The function here stands for a model; put yours in its place, from any library that gives logits as an array. It need not
be one row: the second half draws for a batch of texts, each with its own parameters.
"""

import numpy as np

import toksample

VOCAB = 50_000
rng = np.random.default_rng(0)
embedding = rng.normal(size=(VOCAB, 16)).astype(np.float32)
mixing = rng.normal(size=(16, 16)).astype(np.float32)


def model(ids: list[int]) -> np.ndarray:
    """Return the logits of the next token, (V,), float32. A real model would look further back than two tokens."""
    state = np.tanh(embedding[ids[-1]] @ mixing + 0.5 * embedding[ids[-2]])
    return embedding @ state


# One text. The sampler counts the position, and so draws each token from a random number of its own.
sampler = toksample.Sampler(temperature=0.7, top_k=50, top_p=0.9, seed=1)
ids = [1, 2]
for _ in range(20):
    ids.append(sampler(model(ids)))
print(ids)

# The same, in one line.
text = toksample.generate(model, [1, 2], temperature=0.7, top_k=50, top_p=0.9, seed=1, max_new_tokens=20)
assert list(text) == ids[2:]

# Three texts at once; one value for all of them, or one for each. Row b is stream b of the seed.
texts = [[1, 2], [3, 4], [5, 6]]
for position in range(20):
    logits = np.stack([model(text) for text in texts])
    tokens = toksample.sample(logits, temperature=[0.0, 0.7, 1.5], top_p=[1.0, 0.9, 0.95], seed=1, position=position)
    for text, token in zip(texts, tokens.tolist(), strict=True):
        text.append(token)
print(*texts, sep="\n")

# What the filters leave of the second text's last row, most probable first.
ids, probs = toksample.candidates(logits[1], temperature=0.7, top_p=0.9)
print(f"{len(ids)} candidates; the first three:", dict(zip(ids[:3].tolist(), probs[:3].round(3).tolist(), strict=True)))
