"""Time edges on a model of gpt2-small's shape: one edge ablated at a time, by hooks and by the live engine; EAP-IG.

The naive way runs the whole model for every edge, with hooks that hand one receiver another input; its clean and
ablated writes are computed once. Both ways try edges of the same evenly spaced places and are extrapolated to all. The
weights are random; one run on one machine; the ratio is what carries over. What an evaluation takes beside its matrix
products is timed on a model of the same graph whose products are of width 1.
"""

import argparse
import random
import statistics
import tempfile
import time

import numpy as np
import torch

from atlas.circuit.replacement import replacement
from atlas.core.graph import LOGITS
from atlas.edges import attribution, searches
from atlas.edges.engine import EdgeAblator, engine_of, graph_of, with_embeddings
from atlas.model import activations, models
from search import ROOT, gpt2_shaped, peak_mb, random_prompts, timed

RUN = 5  # edges after one another, most of which end in one input: as path patching tries them


class Naive:
    """Hooks on TransformerLens's bridge; one full pass per edge, with all logits."""

    def __init__(self, ablator: EdgeAblator):
        self.ablator, self.model = ablator, ablator.model
        self.blocks, self.graph = ablator.engine.blocks, ablator.graph
        carried = [attribution.carried(run) for run in ablator.live]
        shape = (len(ablator.prompts), -1, ablator.prompts.tokens.shape[1], self.model.d_model)
        self.carried = torch.cat(carried).view(shape)

    def hooks(self, edge):
        """Hooks that take what the edge carries out of its receiver's input."""
        difference = self.carried[:, self.graph.senders.index(edge.sender)]
        if edge.receiver == LOGITS:
            return [("ln_final.hook_in", lambda x, hook: x - difference)]
        layer = self.graph.layer_of(edge.receiver)
        if edge.receiver[0] == "m":
            return [(f"blocks.{layer}.ln2.hook_in", lambda x, hook: x - difference)]
        _, head, part = edge.receiver.split(".")
        block, head, kept = self.blocks[layer], int(head), {}

        def keep(x, hook):
            kept["x"] = x

        def exchange(x, hook):
            x[:, :, head] = block.project(part, block.norm1(kept["x"] - difference), [head])[:, 0]
            return x

        return [(f"blocks.{layer}.hook_resid_pre", keep), (f"blocks.{layer}.attn.hook_{part}", exchange)]

    def __call__(self, edge):
        with torch.no_grad():
            logits = self.model.bridge.run_with_hooks(self.ablator.prompts.tokens, fwd_hooks=self.hooks(edge))[:, -1]
        rows = torch.arange(len(logits))
        return (logits[rows, self.ablator.prompts.answer] - logits[rows, self.ablator.prompts.incorrect]).numpy()


def tiny_ablator(graph) -> EdgeAblator:
    """Of a random GPT-2 with this graph whose products are as small as can be: all that it takes is overhead."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    size = {"n_layer": graph.n_layers, "n_head": graph.n_heads, "n_embd": graph.n_heads, "vocab_size": 50}
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0)).save_pretrained(folder)
        AutoTokenizer.from_pretrained(ROOT / "resources" / "models" / "ladder-6x8").save_pretrained(folder)
        model = models.load(folder, device="cpu")
    return ablator_of(model, random_prompts(1, 2, 50))


def ablator_of(model, prompts) -> EdgeAblator:
    _, means = activations.collect(model, prompts.corrupted_tokens)
    substitute = with_embeddings(replacement("mean", model, prompts, {"corrupted": means}), "mean", model, prompts)
    return EdgeAblator(model, graph_of(engine_of(model).weights), prompts, substitute)


def overhead(graph, removals: int = 100) -> list[tuple[str, float]]:
    """(what is evaluated, milliseconds of an evaluation): Python and PyTorch's dispatch, without matrix products."""
    ablator, rng = tiny_ablator(graph), random.Random(0)
    list(ablator.without_each(graph.edges[:1]))

    def remove(kept, edges):
        for edge in edges[:removals]:
            left = kept - {edge}
            ablator.logit_diff(left)
            kept = left if rng.random() < 0.8 else kept

    late = graph.edges[::-1]
    half = graph.circuit(rng.sample(graph.edges, len(graph.edges) // 2))
    few = graph.circuit(rng.sample(graph.edges, len(graph.edges) // 100))
    in_half, in_few = ([e for e in late if e in circuit] for circuit in (half, few))
    whole, middle = graph.all_edges, len(late) // 2
    ways = {
        "single edges": lambda: list(ablator.without_each(graph.edges[middle : middle + removals])),
        "removals from the whole model, last receivers first": lambda: remove(whole, late[1000:]),
        "the same, half way": lambda: remove(whole, late[middle:]),
        "removals from half of the edges, last receivers first": lambda: remove(half, in_half[500:]),
        "the same, half way through": lambda: remove(half, in_half[len(in_half) // 2 :]),
        "removals from one edge in a hundred": lambda: remove(few, in_few),
    }
    found = []
    for name, run in ways.items():
        run()  # as a search does it, with the circuit before at hand
        ablator._memory.clear()
        start = time.process_time()
        run()
        found.append((name, 1000 * (time.process_time() - start) / removals))
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--prompts", type=int, default=32)
    options.add_argument("--tokens", type=int, default=23)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--sample", type=int, default=60)
    options.add_argument("--edges", type=int, default=0, help="try so many edges beside, and say what memory that took")
    o = options.parse_args()
    torch.set_num_threads(o.threads)
    with tempfile.TemporaryDirectory() as folder:
        model = gpt2_shaped(folder, "cpu")
    prompts = random_prompts(o.prompts, o.tokens, model.weights.w_u.shape[0])
    loaded = peak_mb("cpu")
    ablator = ablator_of(model, prompts)
    graph, runs = ablator.graph, max(1, o.sample // RUN)
    starts = np.linspace(0, len(graph.edges) - RUN, runs).round().astype(int)
    tried = [graph.edges[i : i + RUN] for i in starts]

    full = ablator.logit_diff(ablator.everything)  # both ways have the clean run at hand
    list(ablator.without_each(graph.edges[:1]))
    said = ""
    if o.edges:
        more = graph.edges[:: len(graph.edges) // o.edges]
        seconds, _ = timed(lambda: [None for _ in ablator.without_each(more)], "cpu")
        said = f"{len(more)} edges: {seconds:.0f} s, peak memory {peak_mb('cpu') - loaded:.0f} MB above the model"
    found, seconds_live = timed(lambda: [dict(searches.path_patching(ablator, edges)) for edges in tried], "cpu")[::-1]
    ablator._memory.clear()
    first = [edges[0] for edges in tried]
    seconds_alone = timed(lambda: [list(ablator.without_each([edge])) for edge in first], "cpu")[0]
    peak = peak_mb("cpu")
    naive, worst, seconds_naive = Naive(ablator), 0.0, []
    for edges in tried[:: max(1, runs // 12)]:
        took, scores = timed(lambda edge=edges[0]: naive(edge), "cpu")
        seconds_naive.append(took)
        effect = next(effects[edges[0]] for effects in found if edges[0] in effects)
        worst = max(worst, float(np.abs(scores - full - effect).max()))
    per_naive, per_live = statistics.median(seconds_naive), seconds_live / (RUN * runs)
    points = 5
    seconds_ig = timed(lambda: attribution.scores(ablator, points), "cpu")[0]

    print(f"\ngpt2-small shape, random weights, {o.prompts} prompts x {o.tokens} tokens, cpu, {o.threads} thread(s)")
    print(f"{len(graph.edges)} edges; tried in {runs} places spread evenly, hooks in {len(seconds_naive)} of them\n")
    print(f"{'':48}{'s per edge':>11}{'hours for all':>15}{'x engine':>10}")
    for name, seconds in (
        ("naive: hooks, a full pass per edge", per_naive),
        ("live engine, each edge by itself", seconds_alone / runs),
        (f"live engine, {RUN} edges after one another", per_live),
    ):
        print(f"{name:48}{seconds:11.3f}{seconds * len(graph.edges) / 3600:15.2f}{seconds / per_live:10.1f}")
    print(f"\nEAP-IG, {points} points, all edges: {1000 * seconds_ig / o.prompts:.0f} ms per prompt")
    print(f"largest difference between effects {worst:.1e} (logits of order 1)")
    print(f"peak memory {peak:.0f} MB, of which {loaded:.0f} MB before")
    print(said)
    print(f"\nOverhead of an evaluation at {len(graph.edges)} edges, CPU milliseconds (products of width 1)")
    for name, took in overhead(graph):
        print(f"{name:60}{took:8.2f}")


if __name__ == "__main__":
    main()
