"""Prompts of indirect-object identification with names of one to three tokens, as a user's table."""

from itertools import permutations

import numpy as np
import pandas as pd

NAMES = {  # tokens of the name after a space, on GPT-2's tokenizer
    1: ["Ada", "Ben", "Dan", "Elena", "Felix", "Grace", "Hugo", "Iris", "Jack", "Karen", "Liam", "Mia"],
    2: ["Anika", "Fatima", "Goran", "Hiroshi", "Ingrid", "Kwame", "Leila", "Mikkel", "Nadia", "Priya"],
    3: ["Dilnoza", "Jovana", "Oksana", "Saoirse", "Vasilis", "Zainab"],
}
ORDERS = {"ABBA": "When {a} and {b} met, {b} gave a cup to", "BABA": "When {b} and {a} met, {b} gave a cup to"}
GUEST = "After {c} left, "


def table(count: int, seed: int = 0, guest: bool = False, names: dict[int, list[str]] = NAMES) -> pd.DataFrame:
    """``count`` prompts; the corrupted partner has names of the same sizes, drawn anew.

    ``names``: number of tokens -> names. Pairs of all sizes occur equally often; with ``guest`` both names are of one
    token, and a third of any size stands before them.
    """
    rng = np.random.default_rng(seed)
    sizes = [(1, 1, c) for c in names] if guest else [(a, b, 1) for a in names for b in names]
    rows = []
    for i in range(count):
        order, size = list(ORDERS)[i % 2], sizes[i // 2 % len(sizes)]
        clean, corrupted = draw(size, names, rng), draw(size, names, rng)
        text = (GUEST if guest else "") + ORDERS[order]
        shown = {key: name for key, name in clean.items() if guest or key != "c"}
        row = {"text": text.format(**clean), "corrupted_text": text.format(**corrupted), "template": order}
        rows.append(row | {"answer": clean["a"], "incorrect": clean["b"]} | shown)
    return pd.DataFrame(rows)


def draw(sizes: tuple[int, ...], names: dict[int, list[str]], rng: np.random.Generator) -> dict[str, str]:
    """Different names of these sizes."""
    found: list[str] = []
    for size in sizes:
        pool = [name for name in names[size] if name not in found]
        found.append(pool[rng.integers(len(pool))])
    return dict(zip("abc", found, strict=True))


def layouts_of(guest: bool = False) -> int:
    """How many layouts such prompts have where the places of members are not told: sums of the sizes of names."""
    return len(NAMES) if guest else len({a + 2 * b for a, b in permutations([*NAMES, *NAMES], 2)})
