"""How components are scored by gradients: one record for each method (methods: attribution).

What a method does is the function of its name in `circuit.attribution`; schemas, tables and figures read the records.
Parsed by Snakemake in every job: imports nothing heavy.
"""

from dataclasses import dataclass

NO_PASSES, ONE_PASS, EACH_POINT, EACH_SENDER = "none", "one", "points", "points for each sender"
SETTLED = "as many as learning takes"  # no number of passes that is known beforehand
ASCENDING = "ascending_"  # a search order by attribution: this before the name of the method


@dataclass(frozen=True)
class NodeMethod:
    """name: in configurations and tables. title: in figures and sentences. about: in the configuration's reference.

    passes: how many forward and backward passes over all prompts it takes, as `gradient_passes` counts them.
    """

    name: str
    title: str
    about: str
    passes: str


_ALL = (
    NodeMethod("atp", "attribution patching", "by one gradient, at the component's own output", ONE_PASS),
    NodeMethod("relp", "RelP", "by one gradient of relevance patching", ONE_PASS),
    NodeMethod("ig", "integrated gradients", "by gradients averaged over embeddings between", EACH_POINT),
)
METHODS = {method.name: method for method in _ALL}


def gradient_passes(passes: str, points: int, senders: int) -> int:
    """Passes forward and back over all prompts that a method takes; raises KeyError on what is no number of them.

    ``points``: m; ``senders``: components and embeddings.
    """
    return {NO_PASSES: 0, ONE_PASS: 1, EACH_POINT: points, EACH_SENDER: points * senders}[passes]


def of_order(name: str) -> str | None:
    """The method that a search order goes by; None for another order."""
    method = name.removeprefix(ASCENDING)
    return method if method in METHODS and name.startswith(ASCENDING) else None
