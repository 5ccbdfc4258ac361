"""One table of how fast this device is, of a model of gpt2-small's shape with random weights; fits eight minutes.

`PYTHONPATH=scripts python bench/gpu.py --device cuda --out gpu.md` needs no network, and of the packages torch,
transformers, safetensors, numpy, pandas and tqdm; `--device cpu --small` tries it in less than a minute. Rows are
printed as they are measured, and the file is written after each, so that a run that is stopped leaves what it has. A
part that fails, or for which no time is left (`--seconds`), has a row that says so.

Decisions of the timed search are forced to those of the published numerals search (239 evaluations), since the weights
are random; answers are what the model itself says, so that percents of full mean something where a search decides.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from atlas.circuit.ablation import Ablator
from atlas.circuit.effects import single_ablations
from atlas.circuit.hooks import edits
from atlas.circuit.precision import Differences, searched
from atlas.circuit.replacement import replacement
from atlas.circuit.search import Rule, by_layers, node_search, tried_at_once
from atlas.edges import attribution, searches
from atlas.edges.engine import EdgeAblator, engine_of, graph_of, with_embeddings
from atlas.model import activations, models
from search import Counter, forced_circuits, product, random_prompts, resumed, timed

LAYERS, HEADS = 12, 12  # of the published search
SPREAD = 0.04  # of the weights: twice GPT-2's own at the start, so that every layer changes what is said
POINTS, THRESHOLD, THRESHOLDS = 5, 20, (10, 20)


def matmul_speed(rows: int, d: int, device: str) -> float:
    """FLOP per second of the model's largest product; median of 15."""
    run, flops = product(rows, d, device)
    return flops / statistics.median([timed(run, device)[0] for _ in range(20)][5:])


@dataclass
class Table:
    """Rows (part, what, figure, remark), printed and written as they come; a part ends where the time does."""

    file: Path
    seconds: float
    start: float = field(default_factory=time.perf_counter)
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    heading: str = ""

    @property
    def left(self) -> float:
        return self.seconds - (time.perf_counter() - self.start)

    def add(self, part: str, what: str, figure: str, remark: str = "") -> None:
        self.rows.append((part, what, figure, remark))
        print(" | ".join(self.rows[-1]), flush=True)
        lines = [f"| {' | '.join(row)} |" for row in self.rows]
        self.file.write_text(
            f"{self.heading}\n\n| part | what | figure | |\n|---|---|---|---|\n" + "\n".join(lines) + "\n"
        )

    def part(self, name: str, run: Callable[[], None]) -> None:
        """A part of the table; what goes wrong in it is a row of its own, and the next part follows."""
        if self.left <= 0:
            return self.add(name, "not run", "", "no time was left")
        try:
            run()
        except Exception as error:  # whatever a device cannot do: what the other parts measure stands all the same
            self.add(name, "failed", "", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        return None


@dataclass
class Bench:
    """The model on the device and on the CPU, and how much of it is measured."""

    folder: Path
    device: str
    small: bool
    table: Table

    def __post_init__(self) -> None:
        self.loaded: dict[tuple[str, str], models.Model] = {}
        self.asked = forced_circuits(LAYERS, HEADS)
        if self.small:
            self.asked = self.asked[:20]

    def model(self, dtype: str = "float32", device: str | None = None) -> models.Model:
        """Loaded once for each dtype and device."""
        key = dtype, device or self.device
        if key not in self.loaded:
            how = {"batch_size": 512, "memory_mb": "auto" if key[1] == "cuda" else 1024}
            self.loaded[key] = models.load(self.folder, key[1], dtype, **how)
        return self.loaded[key]

    def setting(self, n: int, s: int = 23):
        """n prompts of s tokens, with what replaces ablated components on them; the score of the full model is large.

        The answer is what the model says, the incorrect answer what it says least.
        """
        model = self.model()
        prompts = random_prompts(n, s, model.weights.w_u.shape[0])
        logits = activations.last_logits(model, prompts.tokens)
        prompts = replace(prompts, answer=logits.argmax(-1), incorrect=logits.argmin(-1))
        _, means = activations.collect(model, prompts.corrupted_tokens)
        return prompts, replacement("mean", model, prompts, {"corrupted": means})

    def ablator(self, setting, dtype: str = "float32", device: str | None = None) -> Ablator:
        return Ablator(self.model(dtype, device), *setting)

    def timed(self, run: Callable[[], object]):
        """(seconds, what ``run`` gives), the device's work included."""
        return timed(run, self.device)


def shaped(folder: Path, small: bool) -> None:
    """The checkpoint of a GPT-2 of 12 layers of 12 heads with random weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    size = {"n_embd": 48, "vocab_size": 500, "n_positions": 64} if small else {}
    size |= {"initializer_range": SPREAD * (4 if small else 1), "bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(
        0
    )  # W_U is its own: of a tied one, every prompt's last token would answer it, whatever is ablated
    config = GPT2Config(n_layer=LAYERS, n_head=HEADS, tie_word_embeddings=False, **size)
    GPT2LMHeadModel(config).save_pretrained(folder)


# ---- the parts -----------------------------------------------------------------------------------------------
def machine(b: Bench) -> None:
    """What the device is, and what it reaches on the model's largest product."""
    name = torch.cuda.get_device_name() if b.device == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    b.table.add("device", name, f"torch {torch.__version__}")
    model = b.model()
    for rows in (48, 1536) if not b.small else (8,):
        speed = matmul_speed(rows * 23, model.d_model, b.device)
        b.table.add("device", f"matrix product of {rows} prompts, float32", f"{speed / 1e12:.3f} TFLOP/s")


def full_passes(model: models.Model, prompts, substitute, circuit) -> torch.Tensor:
    """[N, d_vocab] of one whole pass with hooks, batch by batch."""
    substitute = substitute.to(model.device)
    return torch.cat(
        [
            model.run(prompts.tokens[rows], edits(model, circuit, substitute, rows))
            for rows in model.batches(len(prompts))
        ]
    )


def naive(b: Bench, prompts, substitute, circuit) -> torch.Tensor:
    """As published: means of heads and of MLPs anew, a pass each, and the ablated pass; all on the device."""
    model, sums = b.model(), {}

    def adder(name: str):
        def hook(x: torch.Tensor, hook: object) -> torch.Tensor:
            sums[name] = sums.get(name, 0) + x.sum(0)
            return x

        return hook

    for hook_of in (models.z_hook, models.mlp_hook):
        names = [hook_of(layer) for layer in range(model.n_layers)]
        for rows in model.batches(len(prompts)):
            model.run(prompts.corrupted_tokens[rows], [(name, adder(name)) for name in names])
    return full_passes(model, prompts, substitute, circuit)


def forced(b: Bench, ablator: Ablator, batch: int) -> int:
    """The published search with its own decisions, ``batch`` candidates at a time; evaluations that were run."""
    known = dict(zip((c for _, c in b.asked), published_percents(len(b.asked)), strict=True))

    def percents(circuits):
        ablator.percents_of_full(circuits)
        return [known.get(circuit, 0.0) for circuit in circuits]  # what follows a failure is thrown away

    rule = Rule(threshold=THRESHOLD)
    for steps, _ in enumerate(node_search(ablator.everything, rule, by_layers(rule), percents, batch), start=1):
        if steps == len(b.asked):
            break
    return ablator.evaluations


def published_percents(count: int) -> list[float]:
    import pandas as pd

    from search import ROOT

    return (
        pd.read_csv(ROOT / "resources" / "published" / "gpt2_numerals_trace.csv", comment="#").percent[:count].tolist()
    )


def search_of(n: int) -> Callable[[Bench], None]:
    """The part of n prompts."""

    def run(b: Bench) -> None:
        name, setting = f"search, {n} prompts", b.setting(n)
        prompts, substitute = setting
        circuits = [circuit for _, circuit in b.asked]
        b.ablator(setting).logit_diff(circuits[0])  # warm up
        ablator = b.ablator(setting)
        counter = Counter(ablator.engine)
        seconds, _ = b.timed(lambda: [ablator.logit_diff(c) for c in circuits])
        share = counter.flops / seconds / matmul_speed(n * prompts.tokens.shape[1], b.model().d_model, b.device)
        of = f"{len(circuits)} evaluations"
        b.table.add(
            name, "live engine, one at a time", f"{seconds:.2f} s", f"{of}; {100 * share:.0f} % of matrix speed"
        )
        picked = np.linspace(0, len(circuits) - 1, 3 if b.small else 6).round().astype(int)
        slower = {
            "naive: two passes for means, one ablated": lambda i: lambda: naive(b, prompts, substitute, circuits[i]),
            "cached means, full passes": lambda i: lambda: full_passes(b.model(), prompts, substitute, circuits[i]),
            "resume only": lambda i: resume(b, setting, i),
        }
        for what, prepare in slower.items():
            took = [b.timed(prepare(i))[0] for i in picked if b.table.left > 0]
            if took:
                whole = statistics.mean(took) * len(circuits)
                b.table.add(name, what, f"{whole:.2f} s", f"{whole / seconds:.1f} x engine, from {len(took)} of them")
        for what in ("none", "16", "auto"):
            one = b.ablator(setting)
            how = 1 if what == "none" else 16 if what == "16" else "auto"
            batch = tried_at_once(how, b.device, lambda one=one: one.evaluations)
            took, evaluations = b.timed(lambda one=one, batch=batch: forced(b, one, batch))
            said = f"{evaluations} evaluations, {took / seconds:.2f} x one at a time"
            b.table.add(name, f"search, batches: {what}", f"{took:.2f} s", said)
        kernels(b, name, setting)

    return run


def resume(b: Bench, setting, i: int) -> Callable[[], object]:
    """Every head, MLP and position from the candidate's layer on; the residual that enters it is at hand."""
    (prompts, _), (candidate, circuit), ablator, ways = setting, b.asked[i], b.ablator(setting), []
    for run, rows in zip(ablator.live, ablator.batches, strict=True):
        read = ablator.substitute.reader(rows)
        with torch.no_grad():
            x = run.engine.weights.embed(run.tokens)
            for layer in range(candidate.layer):
                x = run.engine.layer(layer, x, circuit, read, None, None)
        part = replace(prompts, answer=prompts.answer[rows], incorrect=prompts.incorrect[rows])
        ways.append((run, part, read, circuit, candidate.layer, x))
    return lambda: [resumed(*way) for way in ways]


def kernels(b: Bench, name: str, setting) -> None:
    """How much of the time the device computes, and in what; the rest is launches and Python."""
    from torch.profiler import ProfilerActivity, profile

    circuits = [circuit for _, circuit in b.asked][len(b.asked) // 4 : len(b.asked) // 2]  # one after another
    plain, profiled = b.ablator(setting), b.ablator(setting)
    for ablator in (plain, profiled):
        ablator.logit_diff(circuits[0])
    seconds, _ = b.timed(lambda: [plain.logit_diff(c) for c in circuits[1:]])
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if b.device == "cuda" else [])]
    with profile(activities=kinds) as found:
        b.timed(lambda: [profiled.logit_diff(c) for c in circuits[1:]])
    on_gpu, events, busy = b.device == "cuda", found.key_averages(), {}
    for event in events:
        if not on_gpu:
            busy[event.key] = event.self_cpu_time_total / 1e6
        elif str(event.device_type).endswith("CUDA"):  # operators of the CPU repeat the time of their kernels
            busy[event.key] = event.self_device_time_total / 1e6
    total = sum(busy.values())
    marks = ("gemm", "cutlass", "xmma", "sgemm", "nvjet") if on_gpu else ("mm", "bmm")
    products = sum(v for k, v in busy.items() if any(mark in k.lower() for mark in marks))
    said = f"{100 * products / total:.0f} % of it matrix products"
    if on_gpu:
        launches = sum(e.count for e in events if "LaunchKernel" in e.key)
        said += f"; {launches / (len(circuits) - 1):.0f} launches an evaluation"
    what = "kernels' share of the time" if on_gpu else "operators' share of the time"
    b.table.add(name, what, f"{100 * total / seconds:.0f} %", said)


def edges(b: Bench) -> None:
    """Single edges ablated in the full model, one at a time and in one call, and all edges by gradients."""
    for n in (32, 256) if not b.small else (4,):
        name, (prompts, substitute) = f"edges, {n} prompts", b.setting(n)
        model, graph = b.model(), graph_of(engine_of(b.model()).weights)
        whole = with_embeddings(substitute, "mean", model, prompts)
        spread = np.linspace(0, len(graph.edges) - 1, 6 if b.small else 60).round().astype(int)
        tried = [graph.edges[i] for i in spread]
        found = {}
        for what, calls in (("one at a time", [[e] for e in tried]), ("in one call", [tried])):
            ablator = EdgeAblator(model, graph, prompts, whole)
            ablator.logit_diff(ablator.everything)  # both have the clean run at hand
            list(searches.path_patching(ablator, tried[:1]))

            def run(ablator=ablator, calls=calls):
                return {e: x for call in calls for e, x in searches.path_patching(ablator, call)}

            seconds, found[what] = b.timed(run)
            b.table.add(name, f"edges {what}", f"{1000 * seconds / len(tried):.2f} ms an edge", f"{len(tried)} edges")
        worst = max(float(np.abs(found["in one call"][e] - x).max()) for e, x in found["one at a time"].items())
        b.table.add(name, "largest difference between both", f"{worst:.1e}")
        neighbours(b, name, EdgeAblator(model, graph, prompts, whole), graph)
        ablator = EdgeAblator(model, graph, prompts, whole)
        seconds, _ = b.timed(lambda ablator=ablator: attribution.scores(ablator, POINTS))
        b.table.add(name, f"EAP-IG, {POINTS} points, all {len(graph.edges)} edges", f"{seconds:.2f} s")
        if b.table.left <= 0:
            return


def neighbours(b: Bench, name: str, ablator: EdgeAblator, graph) -> None:
    """Edges that follow one another in the graph, as path patching of a whole model meets them."""
    ablator.logit_diff(ablator.everything)
    middle = len(graph.edges) // 2
    block = graph.edges[middle : middle + (20 if b.small else 400)]
    seconds, _ = b.timed(lambda: dict(searches.path_patching(ablator, block)))
    each = f"{1000 * seconds / len(block):.2f} ms an edge"
    b.table.add(name, f"{len(block)} successive edges in one call", each)


def singles(b: Bench) -> None:
    """Every component ablated alone, one at a time and as `single_ablations` does it."""
    n = 8 if b.small else 780
    name, setting = f"single ablations, {n} prompts", b.setting(n)
    b.ablator(setting).logit_diff(frozenset())
    one, together = b.ablator(setting), b.ablator(setting)
    loop, alone = b.timed(lambda: {c: one.scores(one.everything - {c}) for c in sorted(one.everything)})
    b.table.add(name, "one at a time", f"{loop:.2f} s", f"{len(alone)} components")
    seconds, found = b.timed(lambda: dict(single_ablations(together)))
    b.table.add(name, "single_ablations", f"{seconds:.2f} s", f"{loop / seconds:.1f} x faster")
    worst = max(float(np.abs(found[c]["logit_diff"] - x["logit_diff"]).max()) for c, x in alone.items())
    b.table.add(name, "largest difference between both", f"{worst:.1e}")


def search_steps(ablator: Ablator, threshold: float, differences=None):
    """The steps of a real search, and its decisions where it runs in a half."""
    rule = Rule(threshold=threshold)

    def run(by, settle):
        batch = tried_at_once("auto", by.model.device, lambda: by.evaluations)
        return node_search(by.everything, rule, by_layers(rule), by.percents_of_full, batch, settle)

    return searched(f"T = {threshold}", run, rule, ablator, differences)


def half(b: Bench) -> None:
    """A search in bfloat16 whose close decisions are taken in float32, against one in float32."""
    n = 8 if b.small else 512
    name, setting = f"bfloat16, {n} prompts", b.setting(n)
    for dtype in ("float32", "bfloat16"):
        b.ablator(setting, dtype).logit_diff(frozenset())
    for threshold in THRESHOLDS:
        exact = b.ablator(setting)
        plain, (expected, _) = b.timed(lambda exact=exact, t=threshold: search_steps(exact, t))
        b.table.add(name, f"search in float32, T = {threshold}", f"{plain:.2f} s", f"{len(expected)} decisions")
        low, high = b.ablator(setting, "bfloat16"), b.ablator(setting)

        def checked(low=low, high=high, threshold=threshold):
            return search_steps(high, threshold, Differences(low, high))

        seconds, (steps, decisions) = b.timed(checked)
        same = [(s.components, s.removed) for s in steps] == [(s.components, s.removed) for s in expected]
        counts = decisions.to_json()
        said = f"steps {'equal' if same else 'NOT EQUAL'}; taken again {counts['again']}, sampled {counts['sampled']}, "
        said += f"flipped {counts['flipped']}; bound {counts['bound']:.2g} points; {plain / seconds:.2f} x as fast"
        b.table.add(name, f"search in bfloat16, checked, T = {threshold}", f"{seconds:.2f} s", said)
        alone = b.ablator(setting, "bfloat16")
        seconds, _ = b.timed(lambda alone=alone, t=threshold: search_steps(alone, t))
        b.table.add(name, f"search in bfloat16 alone, T = {threshold}", f"{seconds:.2f} s")
        if b.table.left <= 0:
            return


def agreement(b: Bench) -> None:
    """Scores and the circuit of a search, on the device and on the CPU."""
    n = 4 if b.small else 16
    name, setting = "agreement with the CPU", b.setting(n)
    here, there = b.ablator(setting), b.ablator(setting, device="cpu")
    circuits = [circuit for _, circuit in b.asked][:: max(1, len(b.asked) // 24)]
    worst = max(float(np.abs(here.logit_diff(c) - there.logit_diff(c)).max()) for c in circuits)
    size = float(np.abs(there.logit_diff(there.everything)).mean())
    said = f"of scores of {size:.1f}, {len(circuits)} circuits, {n} prompts"
    b.table.add(name, "largest difference of a score", f"{worst:.1e}", said)
    (ours, _), (theirs, _) = search_steps(here, THRESHOLD), search_steps(there, THRESHOLD)
    same = "the same" if ours[-1].left == theirs[-1].left else "ANOTHER"
    kept = f"{len(ours[-1].left)} components after {len(ours)} decisions"
    b.table.add(name, f"circuit at T = {THRESHOLD}", same, f"{kept}, {sum(s.close for s in ours)} of them close")


def parts(small: bool) -> dict[str, Callable[[Bench], None]]:
    """In the order of their worth, should time run out."""
    prompts = (8,) if small else (48, 1536)
    found = {"device": machine, "agreement": agreement}
    found |= {f"search, {n} prompts": search_of(n) for n in prompts}
    return found | {"edges": edges, "single ablations": singles, "bfloat16": half}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--device", default="cuda")
    options.add_argument("--small", action="store_true", help="a narrow model and few prompts, to try this script")
    options.add_argument("--seconds", type=float, default=460, help="no part starts after so many")
    options.add_argument("--out", type=Path, default=Path("gpu.md"))
    options.add_argument("--threads", type=int, help="of the CPU; by default as many as torch takes")
    o = options.parse_args()
    if o.threads:
        torch.set_num_threads(o.threads)
    table = Table(o.out, o.seconds)
    table.heading = "`" + " ".join(["bench/gpu.py", *sys.argv[1:]]) + "`"
    with tempfile.TemporaryDirectory() as folder:
        shaped(Path(folder), o.small)
        bench = Bench(Path(folder), o.device, o.small, table)
        for name, part in parts(o.small).items():
            table.part(name, lambda part=part: part(bench))
    table.add("all", "seconds", f"{table.seconds - table.left:.0f} s")


if __name__ == "__main__":
    main()
