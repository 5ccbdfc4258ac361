"""How edges are scored and edge circuits found: one record for each method (methods: edges).

What a method does is the function of its name in `edges.by_method`; schemas, tables and figures read the records.
Parsed by Snakemake in every job: imports nothing heavy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from atlas.circuit.node_methods import EACH_POINT, EACH_SENDER, NO_PASSES, ONE_PASS, SETTLED


@dataclass(frozen=True)
class EdgeMethod:
    """name: in configurations and tables. title: in figures and sentences. about: in the configuration's reference.

    scores: it gives edges a score, M(without the edge) - M(full) or an estimate; the others search circuits.
    passes: how many forward and backward passes over all prompts it takes, beside the circuits that it evaluates, as
    `node_methods.gradient_passes` counts them.
    few_passes: it scores all edges of a model in so few passes that it is run again on every resample
    (`stability.edges`). preferred: among the methods that a study ran, the scores of the highest stand beside edges in
    tables and figures.
    setting: of a search, what the column of that name holds.
    """

    name: str
    title: str
    about: str
    scores: bool
    passes: str = NO_PASSES
    few_passes: bool = False
    preferred: int = 0
    setting: str = ""


_ALL = (
    EdgeMethod("path_patching", "path patching", "each edge ablated alone", scores=True, preferred=1),
    EdgeMethod("acdc", "ACDC", "edges removed that cost less than tau", scores=False, setting="tau"),
    EdgeMethod("iterative_edges", "iterative", "edges removed down to a floor", scores=False, setting="T"),
    EdgeMethod(
        "edge_gates",
        "learned gates",
        "a gate for each edge learned, and those that are most open kept down to the same floor",
        scores=False,
        passes=SETTLED,
        setting="T",
    ),
    EdgeMethod("eap", "EAP", "attribution by the gradient", scores=True, passes=ONE_PASS, few_passes=True, preferred=2),
    EdgeMethod(
        "eap_ig",
        "EAP-IG",
        "the same, averaged over embeddings between",
        scores=True,
        passes=EACH_POINT,
        few_passes=True,
        preferred=3,
    ),
    EdgeMethod(
        "eap_ig_activations",
        "EAP-IG over activations",
        "the same, averaged over writes of the sender between",
        scores=True,
        passes=EACH_SENDER,
    ),
    EdgeMethod(
        "relp",
        "RelP",
        "attribution by the gradient of relevance patching",
        scores=True,
        passes=ONE_PASS,
        few_passes=True,
    ),
)
METHODS = {method.name: method for method in _ALL}
EDGE_GATES = METHODS["edge_gates"]
BY_ROLES = ("eap", "eap_ig")  # gradients that score parts of edges by roles of positions
SCORING = {name: method for name, method in METHODS.items() if method.scores}
SEARCHING = {name: method for name, method in METHODS.items() if not method.scores}
REPORTED = METHODS["iterative_edges"]  # finds the edge circuit that a study reports, or that it is chosen from
NODE_CIRCUIT = "node_circuit"  # in place of a method: the edges among a node circuit
RANDOM = "random"  # in place of a method: edges in random order
CHANGES = ("signed", "absolute")  # which changes of the score acdc counts
CHOSEN = "reported"  # in place of a method: the circuit that a study reports
CHOICES = ("held_out", "searched")  # which that is: chosen by held-out prompts, or as REPORTED ended
BY_SCORE = ("signed", "absolute")  # `signed`: by how much an edge helps; `absolute`: by the size of its score
RANKINGS = (*BY_SCORE, "greedy")  # by that size too, but only edges that edges before them connect to the logits


@dataclass(frozen=True)
class EdgeSettings:
    """The keys of `edges` in a configuration that scores and searches read, and `statistics.seed`; see there."""

    methods: Sequence[str] = ()
    start: str = "full"
    start_threshold: float = 0.0
    threshold: float = 20.0
    taus: Sequence[float] = (1.0,)
    change: str = "signed"
    points: int = 5
    rankings: Sequence[str] = BY_SCORE
    path_patching: str = "full"
    drop_without_path: bool = True
    choice: str = CHOICES[0]
    seed: int = 0


def preferred_scores(ran: Sequence[str]) -> str | None:
    """Which of the methods that were run gives the scores that stand beside edges; None where none scores any."""
    found = [SCORING[name] for name in ran if name in SCORING]
    return max(found, key=lambda method: method.preferred).name if found else None


def title(name: str) -> str:
    """Of a method, or of what stands in place of one."""
    others = {NODE_CIRCUIT: "edges of the node circuit", RANDOM: "random edges", CHOSEN: "reported"}
    return METHODS[name].title if name in METHODS else others.get(name, name.replace("_", " "))
