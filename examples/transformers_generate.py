"""`model.generate` of transformers, with tokens drawn by toksample: one logits processor, and `do_sample=False`.

    pip install 'toksample[transformers]'
    python examples/transformers_generate.py                 # a small model with random weights: its text is noise
    python examples/transformers_generate.py MODEL [PROMPT]  # a folder or a name that from_pretrained takes

Run it twice: one seed gives one text. Everything else that `generate` takes stays as it is.
"""

import sys

import torch
import transformers

from toksample.transformers import SamplingLogitsProcessor

if len(sys.argv) > 1:
    model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
    tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
    inputs = tokenizer(sys.argv[2] if len(sys.argv) > 2 else "Once upon a time", return_tensors="pt")
    streamer = transformers.TextStreamer(tokenizer)
else:
    torch.manual_seed(0)
    config = transformers.Gemma3TextConfig(
        vocab_size=262_144, hidden_size=64, intermediate_size=128, num_hidden_layers=2, head_dim=32,
        num_attention_heads=2, num_key_value_heads=1, initializer_range=0.5, tie_word_embeddings=False,
        bos_token_id=2, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    model = transformers.Gemma3ForCausalLM(config).eval()
    inputs = {"input_ids": torch.tensor([[2, 100, 200]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    streamer = None

ids = model.generate(
    **inputs,
    max_new_tokens=40,
    streamer=streamer,
    do_sample=False,  # the processor draws; transformers takes what it has drawn
    logits_processor=[SamplingLogitsProcessor(temperature=0.7, top_k=50, top_p=0.9, seed=1)],
)
print(ids[0].tolist())
