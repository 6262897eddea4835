"""Each Python example of README.md and docs/ runs, and returns what its comment says."""

import re
from pathlib import Path

import numpy as np
import pytest

from toksample._parameters import NAMES

ROOT = Path(__file__).parent.parent
METHODS = ROOT / "docs" / "sampling-methods.md"


def blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").glob("*.md")) if blocks(page))]


def is_expression(code):
    try:
        compile(code, "page", "eval")
    except SyntaxError:
        return False
    return True


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_examples(path):
    names = {"model": lambda ids: np.eye(8, dtype=np.float32)[(ids[-1] + 1) % 8], "prompt_ids": [2], "np": np}
    checked = 0
    for block in blocks(path):
        if "transformers" in block:  # tests/extras runs these
            continue
        for statement in re.split(r"\n(?=[^\s#])", block.strip()):
            code, _, error = statement.partition("\n# ValueError: ")
            if error:
                message = error.replace("\n# ", " ")
                with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
                    exec(code, names)
                continue
            code, _, comment = statement.partition("  # ")
            if not re.match(r"\(?(array|\[)|\d+$", comment) or not is_expression(code):
                exec(statement, names)
                continue
            got = eval(code, names)
            assert repr(got).replace(" ", "") == comment.strip().replace(" ", ""), code
            checked += 1
    assert checked >= 1


def test_every_method_has_its_section():
    sections = re.findall(r"^## (\w+)$", METHODS.read_text(encoding="utf-8"), re.MULTILINE)
    others = {
        "xtc_threshold",
        "xtc_exempt_token_ids",
        "penalty_window",
        "prompt_ids",
        "output_ids",
        "seed",
        "stream",
        "position",
        "eos_token_ids",
        "max_new_tokens",
    }
    others |= {"dynatemp_exponent", "smoothing_curve", "mirostat_tau", "mirostat_eta", "mirostat_mu"}
    others |= {"adaptive_decay", "adaptive_average"}
    of_dry = {"dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers"}
    assert sorted(sections) == sorted(set(NAMES) - others - of_dry)
