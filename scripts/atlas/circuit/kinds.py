"""Kinds of ablation: one record for each (methods: ablation). Parsed by Snakemake in every job: imports nothing heavy.

What replaces ablated components stands in `replacement.replacement`, what replaces the embeddings in `edges.engine`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """``means_of``: the run of the search split, `clean` or `corrupted`, whose means replace what is ablated; None: no
    means do. ``aligned``: does each prompt's own corrupted run replace it? ``fitted``: constants that were
    fitted on the search split do (`circuit.optimal`), which `means.pt` has under the kind's name."""

    name: str
    title: str
    means_of: str | None = None
    aligned: bool = False
    fitted: bool = False

    @property
    def run(self) -> str:
        """What of `means.pt` the kind reads: of `zero` for its shape alone."""
        return self.name if self.fitted else self.means_of or "corrupted"

    @property
    def runs(self) -> tuple[str, ...]:
        """The runs whose means replace what is ablated, or from whose means the kind's constants are fitted."""
        return ("corrupted", "clean") if self.fitted else (self.means_of,) if self.means_of else ()


_ALL = (
    Kind("mean", "mean over corrupted prompts", means_of="corrupted"),
    Kind("zero", "zero"),
    Kind("resample", "the prompt's own corrupted run", aligned=True),
    Kind("mean_clean", "mean over clean prompts", means_of="clean"),
    Kind("optimal", "the constant that costs least in its place", fitted=True),
)
KINDS = {kind.name: kind for kind in _ALL}


def known(name: str) -> Kind:
    """The kind of this name; raises ValueError on another."""
    if name not in KINDS:
        raise ValueError(f"unknown ablation kind {name!r}; one of {', '.join(KINDS)}")
    return KINDS[name]
