"""Time a published search's evaluations on a model of gpt2-small's shape: naive, cached means, resumed, live engine.

The weights are random, so the decisions are forced to those of the published numerals search (239 evaluations). The
engine runs all of them; the slower ways run 12 evenly spaced ones and are extrapolated. One run on one machine; the
ratios are what carries over. `PYTHONPATH=scripts python bench/search.py --prompts 1536 --device cuda` is the full size.
"""

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from atlas.circuit.ablation import Ablator
from atlas.circuit.hooks import edits
from atlas.circuit.replacement import Replacement, replacement
from atlas.circuit.search import Rule, by_layers, node_search
from atlas.core.components import MLP, Component, all_components
from atlas.model import activations, engine, models
from atlas.model.live import LiveRun
from atlas.prompts.batch import Prompts

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = 12


def gpt2_shaped(folder, device: str) -> models.Model:
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(ROOT / "resources" / "models" / "ladder-6x8").save_pretrained(folder)
    model = models.load(folder, device=device, batch_size=512)
    _ = model.bridge  # of the naive ways; built now, since the folder may be gone when they run
    return model


def random_prompts(n: int, s: int, vocabulary: int) -> Prompts:
    rng = torch.Generator().manual_seed(0)
    tokens, corrupted = (torch.randint(vocabulary, (n, s), generator=rng) for _ in range(2))
    ids = torch.randint(vocabulary, (2, n), generator=rng)
    return Prompts(tokens, corrupted, ids[0], ids[1], list(range(n)), torch.zeros(n, dtype=torch.long))


def forced_circuits(n_layers: int, n_heads: int) -> list[tuple[Component, frozenset]]:
    """(candidate, circuit without it) of every evaluation of the published search, in its order."""
    trace = pd.read_csv(ROOT / "resources" / "published" / "gpt2_numerals_trace.csv", comment="#")
    percents, asked = iter(trace.percent), []

    def replay(circuits):
        asked.extend(circuits)
        return [next(percents) for _ in circuits]

    rule = Rule(threshold=20)
    steps = node_search(frozenset(all_components(n_layers, n_heads)), rule, by_layers(rule), replay)
    candidates = [step.components[0] for step in steps]
    assert [str(c) for c in candidates] == trace.component.tolist()
    return list(zip(candidates, asked, strict=True))


# ---- the slower ways -----------------------------------------------------------------------------------------
def hooked(model, prompts, substitute, circuit):
    """One full pass with hooks and all logits, as a notebook does it."""
    with torch.no_grad():
        hooks = list(edits(model, circuit, substitute))
        logits = model.bridge.run_with_hooks(prompts.tokens.to(model.device), fwd_hooks=hooks)[:, -1]
    rows = torch.arange(len(logits), device=logits.device)
    return logits[rows, prompts.answer.to(logits.device)] - logits[rows, prompts.incorrect.to(logits.device)]


def hooked_means(model, prompts, hook_name) -> torch.Tensor:
    """[L, 1, S, ...]: means over the corrupted prompts, from one full pass with all logits."""
    means = {}

    def save(layer):
        def hook(x, hook):
            means[layer] = x.mean(0, keepdim=True)

        return hook_name(layer), hook

    with torch.no_grad():
        hooks = [save(layer) for layer in range(model.n_layers)]
        model.bridge.run_with_hooks(prompts.corrupted_tokens.to(model.device), fwd_hooks=hooks)
    return torch.stack([means[layer] for layer in range(model.n_layers)])


def naive(model, prompts, circuit):
    """Three full passes: head means, MLP means, the ablated run (the published code's cost)."""
    z, mlp_out = (hooked_means(model, prompts, name) for name in (models.z_hook, models.mlp_hook))
    substitute = Replacement(z, mlp_out, prompts.group.to(model.device))
    return hooked(model, prompts, substitute, circuit)


def resumed(run: LiveRun, prompts, substitute, circuit, start: int, x):
    """From the residual x entering layer ``start``, computing every head, MLP and position from there on."""
    heads = list(range(run.engine.weights.n_heads))
    with torch.no_grad():
        for layer in range(start, run.n_layers):
            block = run.engine.blocks[layer]
            z = run.engine.mix(layer, x, heads, None).clone()
            ablated = [h for h in heads if Component(layer, h) not in circuit]
            z[:, :, ablated] = substitute("z", layer)[:, :, ablated].expand(len(z), -1, -1, -1)
            x = block.after_attention(x, block.head_writes(z))
            mlp = block.mlp_out(x)
            x = x + (mlp if Component(layer, MLP) in circuit else substitute("mlp_out", layer))
        logits = run.engine.weights.unembed(x[:, -1])
    rows = torch.arange(len(logits), device=logits.device)
    return logits[rows, prompts.answer.to(logits.device)] - logits[rows, prompts.incorrect.to(logits.device)]


# ---- accounting ----------------------------------------------------------------------------------------------
class Counter:
    """Counts the floating-point operations (2 per multiply-add) of an engine's matrix products."""

    def __init__(self, counted: engine.Engine):
        self.flops, self.weights = 0, counted.weights
        mix, finish, constant = counted.mix, counted.finish, counted.constant

        def counted_mix(index, x, heads, out):
            z, block = mix(index, x, heads, out), counted.blocks[index]
            n, s, d = x.shape
            p, d_head = z.shape[1], z.shape[3]
            keys = len({block.owners[h] for h in heads})
            self.flops += 2 * n * d_head * (d * (p * len(heads) + 2 * s * keys) + 2 * len(heads) * p * s)
            return z

        def counted_finish(index, x, circuit, kept, z, *rest):
            after = finish(index, x, circuit, kept, z, *rest)
            n, p, d = after.shape
            self.flops += 2 * n * p * d * len(kept) * self.weights.blocks[index].w_o.shape[1]
            self.flops += 2 * n * p * self.weights.mlp_flops * (Component(index, MLP) in circuit)
            return after

        def counted_constant(index, heads, z):
            self.flops += 2 * z.shape[0] * z.shape[1] * len(heads) * self.weights.blocks[index].w_o[0].numel()
            return constant(index, heads, z)

        counted.mix, counted.finish, counted.constant = counted_mix, counted_finish, counted_constant

    def plain(self, n: int, s: int) -> int:
        """Operations of the layers of one plain pass over n prompts of s tokens."""
        block = self.weights.blocks[0]
        weights = sum(w.numel() for w in (block.w_q, block.w_k, block.w_v, block.w_o)) + self.weights.mlp_flops
        return 2 * n * s * len(self.weights.blocks) * (weights + 2 * s * block.n_heads * block.w_q.shape[2])


def product(rows: int, d: int, device: str):
    """The model's largest product, [rows, d] x [d, 4 d], as a function, and its operations."""
    a, b, out = (torch.randn(*size, device=device) for size in ((rows, d), (d, 4 * d), (rows, 4 * d)))
    return lambda: torch.mm(a, b, out=out), 2 * rows * d * 4 * d


def timed(run, device):
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    out = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, out


def peak_mb(device) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--prompts", type=int, default=48)
    options.add_argument("--tokens", type=int, default=23)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--device", default="cpu")
    o = options.parse_args()
    torch.set_num_threads(o.threads)
    with tempfile.TemporaryDirectory() as folder:
        model = gpt2_shaped(folder, o.device)
    prompts = random_prompts(o.prompts, o.tokens, model.weights.w_u.shape[0])
    asked = forced_circuits(model.n_layers, model.n_heads)
    circuits = [circuit for _, circuit in asked]
    _, means = activations.collect(model, prompts.corrupted_tokens)
    substitute = replacement("mean", model, prompts, {"corrupted": means}).to(model.device)
    picked = np.linspace(0, len(circuits) - 1, SAMPLE).round().astype(int)
    loaded = peak_mb(o.device)

    # (d) everything, as a search does: circuits in order, residuals remembered from one to the next
    Ablator(model, prompts, substitute).logit_diff(circuits[0])  # warm up
    ablator = Ablator(model, prompts, substitute)
    counter = Counter(ablator.engine)
    matmul, matmul_flops = product(o.prompts * o.tokens, model.d_model, o.device)
    seconds_d, scores, of_matmul = 0.0, [], []
    for circuit in circuits:  # the machine may do other work beside: its matmul speed is that of the same moments
        took, found = timed(lambda circuit=circuit: ablator.logit_diff(circuit), o.device)
        seconds_d, scores = seconds_d + took, [*scores, found]
        of_matmul.append(timed(matmul, o.device)[0])
    flops, peak_d = counter.flops, peak_mb(o.device)

    # (c) resume only; the residual that enters the candidate's layer is at hand, as in a sweep
    weights, read = model.weights, substitute.reader(slice(None))
    run = LiveRun(engine.Engine(weights), prompts.tokens.to(model.device))

    def resume(i):
        candidate, circuit = asked[i]
        with torch.no_grad():
            x = weights.embed(run.tokens)
            for layer in range(candidate.layer):
                x = run.engine.layer(layer, x, circuit, read, None, None)
        return lambda: resumed(run, prompts, read, circuit, candidate.layer, x)

    ways = {
        "a  naive: means anew for each candidate, full passes": lambda i: lambda: naive(model, prompts, circuits[i]),
        "b  naive with cached means": lambda i: lambda: hooked(model, prompts, substitute, circuits[i]),
        "c  resume only": resume,
    }
    table, worst = [], 0.0
    for name, prepare in ways.items():
        seconds, beside = [], []
        for i in picked:
            took, found = timed(prepare(i), o.device)
            seconds.append(took)
            beside.append(timed(matmul, o.device)[0])
            worst = max(worst, float(np.abs(found.double().cpu().numpy() - scores[i]).max()))
        pace = statistics.median(of_matmul) / statistics.median(beside)
        table.append((name, statistics.mean(seconds) * len(circuits), pace, f"extrapolated from {SAMPLE}"))
    table.append(("d  live engine", seconds_d, 1.0, f"all {len(circuits)}"))

    speed, whole = matmul_flops / statistics.median(of_matmul), counter.plain(o.prompts, o.tokens) * len(circuits)
    reached = flops / seconds_d / speed
    print(f"\ngpt2-small shape, random weights, {o.prompts} prompts x {o.tokens} tokens, {o.device}")
    print(f"{o.threads} thread(s), {len(circuits)} evaluations of the published numerals search\n")
    print(f"{'':55}{'seconds':>9}  {'x engine':>9}  {'at the same matmul speed':>25}")
    for name, seconds, pace, how in table:
        print(f"{name:55}{seconds:9.1f}  {seconds / seconds_d:9.1f}  {pace * seconds / seconds_d:25.1f}   {how}")
    rate = flops / seconds_d / 1e9
    print(f"\nFLOPs executed {flops / 1e9:.0f} G (a plain pass each: {whole / 1e9:.0f} G), at {rate:.1f} GFLOP/s")
    print(f"matmul speed of this machine {speed / 1e9:.1f} GFLOP/s, of which the engine reaches {100 * reached:.0f} %")
    print(f"largest difference between scores {worst:.1e} (logits of order 1)")
    print(f"peak memory {peak_d:.0f} MB, of which {loaded:.0f} MB before the search")


if __name__ == "__main__":
    main()
