"""Time edges on a model of gpt2-small's shape: one edge ablated at a time, by hooks and by the live engine; EAP-IG.

The naive way runs the whole model for every edge, with hooks that hand one receiver another input; its clean and
ablated writes are computed once. Both ways try the same evenly spaced edges and are extrapolated to all. The weights
are random; one run on one machine; the ratio is what carries over.
"""

import argparse
import statistics
import tempfile

import numpy as np
import torch

from atlas.circuit.ablation import replacement
from atlas.core.graph import LOGITS
from atlas.edges import attribution, searches
from atlas.edges.engine import EdgeAblator, engine_of, graph_of, with_embeddings
from atlas.model import activations
from search import gpt2_shaped, peak_mb, random_prompts, timed


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


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--prompts", type=int, default=32)
    options.add_argument("--tokens", type=int, default=23)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--sample", type=int, default=60)
    o = options.parse_args()
    torch.set_num_threads(o.threads)
    with tempfile.TemporaryDirectory() as folder:
        model = gpt2_shaped(folder, "cpu")
    prompts, graph = random_prompts(o.prompts, o.tokens, model.weights.w_u.shape[0]), graph_of(engine_of(model).weights)
    _, means = activations.collect(model, prompts.corrupted_tokens)
    substitute = with_embeddings(replacement("mean", model, prompts, {"corrupted": means}), "mean", model, prompts)
    loaded = peak_mb("cpu")
    ablator = EdgeAblator(model, graph, prompts, substitute)
    tried = [graph.edges[i] for i in np.linspace(0, len(graph.edges) - 1, o.sample).round().astype(int)]

    full = ablator.logit_diff(ablator.everything)  # both ways have the clean run at hand
    found, seconds_live = timed(lambda: dict(searches.path_patching(ablator, tried)), "cpu")[::-1]
    peak = peak_mb("cpu")
    naive, worst, seconds_naive = Naive(ablator), 0.0, []
    for edge in tried[:: max(1, o.sample // 12)]:
        took, scores = timed(lambda edge=edge: naive(edge), "cpu")
        seconds_naive.append(took)
        worst = max(worst, float(np.abs(scores - full - found[edge]).max()))
    per_naive, per_live = statistics.mean(seconds_naive), seconds_live / len(tried)
    points = 5
    seconds_ig = timed(lambda: attribution.scores(ablator, points), "cpu")[0]

    print(f"\ngpt2-small shape, random weights, {o.prompts} prompts x {o.tokens} tokens, cpu, {o.threads} thread(s)")
    print(f"{len(graph.edges)} edges; live engine timed on {len(tried)}, hooks on {len(seconds_naive)} of them\n")
    print(f"{'one edge at a time':40}{'s per edge':>11}{'hours for all':>15}{'x engine':>10}")
    for name, seconds in (("naive: hooks, a full pass per edge", per_naive), ("live engine", per_live)):
        print(f"{name:40}{seconds:11.3f}{seconds * len(graph.edges) / 3600:15.2f}{seconds / per_live:10.1f}")
    print(f"\nEAP-IG, {points} points, all edges: {1000 * seconds_ig / o.prompts:.0f} ms per prompt")
    print(f"largest difference between effects {worst:.1e} (logits of order 1)")
    print(f"peak memory {peak:.0f} MB, of which {loaded:.0f} MB before")


if __name__ == "__main__":
    main()
