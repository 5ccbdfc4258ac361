"""The synthetic corpus that the shipped model is trained and tested on.

A document is a list of token strings (``" in"``, ``" March"``, ``"."``); each is one token of the shipped
tokenizer, so documents become ids by look-up and text by joining.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

END = "<|endoftext|>"


@dataclass(frozen=True)
class Family:
    """An ordered list of members with the steps that sequences may take through it."""

    name: str
    members: tuple[str, ...]
    cyclic: bool
    steps: tuple[int, ...]
    weight: float

    def starts(self, step: int, length: int) -> range:
        """Indices of first members from which ``length`` members fit."""
        if self.cyclic:
            return range(len(self.members))
        reach = step * (length - 1)
        return range(max(0, -reach), len(self.members) - max(0, reach))

    def sequence(self, start: int, step: int, length: int) -> list[str]:
        return [self.members[(start + step * i) % len(self.members)] for i in range(length)]


def families(spec: dict[str, Any]) -> dict[str, Family]:
    """Families of a training specification; ``range: [a, b]`` stands for the numerals a..b."""
    out = {}
    for name, block in spec["families"].items():
        if "range" in block:
            low, high = block["range"]
            members = tuple(str(i) for i in range(low, high + 1))
        else:
            members = tuple(block["members"])
        out[name] = Family(name, members, block.get("cyclic", False), tuple(block["steps"]), block["weight"])
    return out


def pieces(text: str) -> list[str]:
    """Split text into words with their leading space, and punctuation."""
    return re.findall(r" ?\w+| ?[^\w\s]", text)


def vocabulary(spec: dict[str, Any]) -> list[str]:
    """Every token string of the corpus, with and without a leading space, in a fixed order."""
    words: dict[str, None] = {}
    sources = [m for f in families(spec).values() for m in f.members]
    sources += [w for kind in spec["fillers"].values() for w in kind]
    sources += [re.sub(r"{\w+}", "", t) for t in spec["templates"] + spec["problems"]]
    sources += ["after before", *spec["problem_distances"], *spec["problem_units"].values(), *spec["words"]]
    for source in sources:
        words.update((word.strip(), None) for word in pieces(source) if word.strip().isalnum())
    tokens = [form for word in words for form in (word, " " + word)]
    return tokens + [form for mark in spec["punctuation"] for form in (mark, " " + mark)]


class Corpus:
    """Draws documents of a training specification; every draw comes from the generator that is passed in."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.row_length = spec["architecture"]["n_positions"]
        self.families = families(spec)
        self.vocabulary = vocabulary(spec)
        self.repeatable = [t for t in self.vocabulary if t.startswith(" ")]
        weights = np.array([f.weight for f in self.families.values()])
        self._family_share = weights / weights.sum()
        self._kinds, shares = zip(*spec["mix"].items(), strict=True)
        self._kind_share = np.array(shares) / sum(shares)
        rng = np.random.default_rng(spec["seed"])
        self.held_out_pairs = {}  # kind -> symmetric boolean matrix over fillers
        for kind, names in spec["fillers"].items():
            upper = np.triu(rng.random((len(names), len(names))) < spec["held_out_pairs"], 1)
            self.held_out_pairs[kind] = upper | upper.T

    # ---- parts -------------------------------------------------------------------------------------------
    def fillers(self, rng: np.random.Generator, kind: str, count: int, held_out: bool) -> list[str]:
        """``count`` distinct fillers that are pairwise held-out pairs, or pairwise training pairs."""
        names, allowed = self.spec["fillers"][kind], self.held_out_pairs[kind] == held_out
        while True:
            chosen: list[int] = []
            for candidate in rng.permutation(len(names)):
                if all(allowed[candidate, other] for other in chosen):
                    chosen.append(candidate)
                if len(chosen) == count:
                    return [names[i] for i in chosen]

    def clauses(self, rng: np.random.Generator, template: str, members: list[str], held_out: bool = False) -> list[str]:
        slot = re.search(r"{(name|object)}", template)
        assert slot
        kind = slot[1]
        fillers = self.fillers(rng, kind, len(members), held_out)
        text = " ".join(template.format(m=m, **{kind: f}) for m, f in zip(members, fillers, strict=True))
        return pieces(text)

    def bare(self, members: list[str], comma: bool) -> list[str]:
        return pieces((", " if comma else " ").join(members))

    def problem(self, form: str, family: Family, index: int, sign: int, word: str) -> list[str]:
        def at(k: int) -> str:
            return family.members[(index + sign * k) % len(family.members)]

        distance = self.spec["problem_distances"][word]
        unit = self.spec["problem_units"][family.name]
        after = "after" if sign > 0 else "before"
        return pieces(form.format(m=at(0), a=at(1), b=at(distance), k=word, unit=unit, after=after))

    # ---- documents ---------------------------------------------------------------------------------------
    def random_family(self, rng: np.random.Generator) -> Family:
        return list(self.families.values())[rng.choice(len(self._family_share), p=self._family_share)]

    def random_problem(self, rng: np.random.Generator, form: str, family: Family) -> list[str]:
        reach = max(self.spec["problem_distances"].values())
        sign = int(rng.choice([1, -1]))
        index = int(rng.choice(family.starts(sign, reach + 1)))
        return self.problem(form, family, index, sign, str(rng.choice(list(self.spec["problem_distances"]))))

    def document(self, rng: np.random.Generator) -> list[str]:
        kind = self._kinds[rng.choice(len(self._kinds), p=self._kind_share)]
        if kind == "repeat":
            block = list(rng.choice(self.repeatable, rng.integers(4, 14)))
            block_twice = (block * 3)[: self.row_length - 1]
            return [block_twice[0].lstrip(), *block_twice[1:]]
        if kind == "problem":
            family = self.families[str(rng.choice(list(self.spec["problem_units"])))]
            return self.random_problem(rng, str(rng.choice(self.spec["problems"])), family)
        family = self.random_family(rng)
        in_template = kind == "template" or (kind == "random_list" and rng.random() < 0.6)
        if kind == "random_list":
            members = [str(m) for m in rng.choice(family.members, rng.integers(4, 7))]
        else:
            step = int(rng.choice(family.steps))
            length = int(rng.integers(5, 7 if in_template else 11))
            while not family.starts(step, length):
                length -= 1
            members = family.sequence(int(rng.choice(family.starts(step, length))), step, length)
        if in_template:
            return self.clauses(rng, str(rng.choice(self.spec["templates"])), members)
        return self.bare(members, comma=rng.random() < 0.5)

    def row(self, rng: np.random.Generator) -> list[str]:
        """Documents joined by the end mark; half of the rows start with one, so that both BOS policies work."""
        out = [END] if rng.random() < 0.5 else []
        while len(out) < self.row_length:
            out += [*self.document(rng), END]
        return out[: self.row_length]
