"""Prompts of several layouts: grouping, means of their own, and scores equal to those of each prompt run alone.

The oracle runs Hugging Face's modules on one prompt at a time, without padding, and takes the mean of each layout by
hand. Tolerances are those of `random_models`: float64 rounds below 1e-9, Llama's norm computes in float32.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import indirect_objects
from atlas.circuit import remade
from atlas.circuit.ablation import Ablator
from atlas.circuit.evaluation import Patching
from atlas.circuit.kinds import KINDS
from atlas.circuit.replacement import replacement
from atlas.circuit.unablated import answer_logits, collected
from atlas.core.components import Component, Site, all_components, sites
from atlas.core.errors import StudyError
from atlas.core.graph import Edge
from atlas.core.metrics import METRICS, PAD, per_prompt
from atlas.core.positions import Layout
from atlas.edges import attribution
from atlas.edges.engine import EdgeAblator, graph_of, with_embeddings
from atlas.model import models
from atlas.prompts import layouts, rejections
from atlas.prompts.batch import Prompts
from atlas.prompts.layouts import Encoded
from atlas.prompts.making import prompts_of
from atlas.prompts.tokens import encode_prompts
from atlas.prompts.words import tokens_in_text
from atlas.report.sections import full_model
from conftest import crossed, load_tokenizer, slow_but
from edge_oracle import EdgeScores, Oracle
from random_models import TOLERANCE, VOCAB, H, L, build

COMPONENTS = all_components(L, H)
UNFITTED = [kind.name for kind in KINDS.values() if not kind.fitted]  # fitted constants: tests/circuit/test_optimal.py
SOME = [
    frozenset(COMPONENTS),
    frozenset(),
    frozenset(c for i, c in enumerate(COMPONENTS) if i % 3),
    frozenset({Component(0, 1), Component(1), Component(2, 3)}),
]
LENGTHS = [3, 5, 5, 3, 4, 5, 3, 4]  # of the prompts, in tokens
LAYOUT = [{3: 0, 5: 1, 4: 2}[n] for n in LENGTHS]
RIGHT = [[3], [5], [11], [6], [8], [1], [9], [2]]
WRONG = [[4], [9], [12], [7], [5], [2], [8], [1]]
LONG_RIGHT = [[3, 7, 9], [5], [11, 2], [6, 6], [8, 1], [1, 2, 3], [9], [2]]
LONG_WRONG = [[4], [9, 1, 0], [12, 2], [7, 3], [5], [2], [8, 4, 4], [1, 1, 1]]


def frame_of(several: bool) -> pd.DataFrame:
    """Prompts of three layouts as `prompts.parquet` has them."""
    rng = np.random.default_rng(0)
    tokens, corrupted = ([rng.integers(1, VOCAB, n).tolist() for n in LENGTHS] for _ in range(2))
    frame = pd.DataFrame({"prompt": range(len(LENGTHS)), "template": "file", "tokens": tokens, "layout": LAYOUT})
    frame["corrupted_tokens"] = corrupted
    if several:
        return frame.assign(answer_tokens=LONG_RIGHT, incorrect_tokens=LONG_WRONG)
    return frame.assign(answer_token=[a for (a,) in RIGHT], incorrect_token=[w for (w,) in WRONG])


class Case:
    """A random model, and Hugging Face's own module with the same weights."""

    def __init__(self, family, folder):
        torch.manual_seed(0)
        self.network = build(family).double().eval()
        for name, parameter in self.network.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.3)
        self.network.save_pretrained(folder)
        load_tokenizer("shipped").save_pretrained(folder)  # the bridge wants one; it is not used
        self.model = models.load(folder, device="cpu", dtype="float64", batch_size=3)
        self.tolerance = TOLERANCE[family]
        body = next(self.network.children())
        self.blocks = getattr(body, "h", None) or body.layers

    def output_of_heads(self, block):
        """The module that reads z."""
        attention = next(m for name, m in block.named_children() if name in ("attn", "attention", "self_attn"))
        return next(m for name, m in attention.named_children() if name in ("c_proj", "dense", "o_proj"))

    def run(self, ids, change=None):
        """Logits [S, d_vocab] of one text, and (name, layer) -> activation; ``change(name, layer, x)`` puts another."""
        found, handles = {}, []

        def note(name, layer, x):
            found[name, layer] = x[0].detach().clone()
            return x if change is None else change(name, layer, x.clone())

        for layer, block in enumerate(self.blocks):
            heads = self.output_of_heads(block).register_forward_pre_hook(
                lambda module, inputs, layer=layer: (note("z", layer, inputs[0]),)
            )
            mlp = block.mlp.register_forward_hook(lambda module, inputs, x, layer=layer: note("mlp", layer, x))
            handles += [heads, mlp]
        with torch.no_grad():
            logits = self.network(torch.tensor([ids])).logits[0]
        for handle in handles:
            handle.remove()
        return logits, found


@pytest.fixture(scope="module", params=slow_but(TOLERANCE, "gpt2", "llama"))
def case(request, tmp_path_factory):
    return Case(request.param, tmp_path_factory.mktemp("random") / "model")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return Case("gpt2", tmp_path_factory.mktemp("random") / "model")


class Alone:
    """Each prompt run alone with one answer, everything outside a circuit replaced as its own layout's prompts say."""

    def __init__(self, case, frame, kind):
        self.case, self.frame, self.kind, self.several = case, frame, kind, "answer_tokens" in frame
        ids = frame.tokens if kind == "mean_clean" else frame.corrupted_tokens
        self.clean = {}  # prompt -> logits with nothing ablated
        self.runs = {
            (side, i): case.run(text + self.answer(side, i)[:-1])[1] for side in range(2) for i, text in enumerate(ids)
        }

    def answer(self, side, i):
        column = ("answer", "incorrect")[side] + ("_tokens" if self.several else "_token")
        return list(self.frame[column][i]) if self.several else [self.frame[column][i]]

    def value(self, name, layer, side, i):
        """What replaces the activation [S, D] of prompt i."""
        own = self.runs[side, i][name, layer]
        if self.kind == "zero":
            return torch.zeros_like(own)
        if self.kind == "resample":
            return own
        alike = [j for j, layout in enumerate(self.frame.layout) if layout == self.frame.layout[i]]
        others = [self.runs[side, j][name, layer] for j in alike]
        return torch.stack([torch.stack([x[p] for x in others if len(x) > p]).mean(0) for p in range(len(own))])

    def logits(self, circuit, side, i):
        """[k, d_vocab] before each token of an answer, all ablated but the circuit."""
        width = self.case.model.d_head

        def change(name, layer, x):
            new = self.value(name, layer, side, i)[None]
            if name == "mlp":
                return x if Component(layer) in circuit else new
            for head in (h for h in range(H) if Component(layer, h) not in circuit):
                own = slice(head * width, (head + 1) * width)
                x[..., own] = new[..., own]
            return x

        answer = self.answer(side, i)
        logits, _ = self.case.run(self.frame.tokens[i] + answer[:-1], change)
        return logits[-len(answer) :]

    def scores(self, circuit) -> dict[str, torch.Tensor]:
        """Every metric, from `per_prompt` of one prompt at a time."""
        found = []
        for i in range(len(self.frame)):
            right, wrong = (self.logits(circuit, side, i) for side in range(2))
            if i not in self.clean:
                self.clean[i] = self.logits(frozenset(COMPONENTS), 0, i)
            clean = self.clean[i]
            if not self.several:
                answer, incorrect = (torch.tensor(self.answer(side, i)) for side in range(2))
                found.append(per_prompt(METRICS, right, answer, incorrect, clean))
                continue
            k = max(len(right), len(wrong))
            pad = [torch.nn.functional.pad(x, (0, 0, 0, k - len(x))) for x in (right, wrong, clean)]
            ids = [torch.tensor([a + [PAD] * (k - len(a))]) for a in (self.answer(side, i) for side in range(2))]
            found.append(per_prompt(METRICS, torch.stack(pad[:2]), *ids, torch.stack([pad[2], pad[1]])))
        return {name: torch.cat([one[name] for one in found]) for name in METRICS}


def prepared(case, frame):
    """Prompts, and contents of `means.pt` and `activations.pt`, in the model's own precision."""
    groups = layouts.group_names(frame, by_template=False)
    prompts = Prompts.from_frame(frame, groups)
    rows = prompts.rows()
    runs = {run: collected(case.model, rows, run, torch.float64) for run in ("clean", "corrupted")}
    cache = {"prompt": torch.tensor(prompts.prompt)} | {run: found for run, (found, _) in runs.items()}
    means = {run: in_float64(found, rows) for run, (found, _) in runs.items()}
    return prompts, means | {"groups": groups} | rows.sizes_of_means(), cache


def in_float64(found, rows):
    """Means of activations [L, N, ...] by group; those of `collect` are rounded to float32."""
    out = {}
    for name, x in found.items():
        x = x.where((torch.arange(x.shape[2]) < rows.length[:, None]).view(1, *x.shape[1:3], *[1] * (x.dim() - 3)), 0)
        out[name] = torch.stack([x[:, rows.group == g].sum(1) for g in range(int(rows.group.max()) + 1)], 1)
        for g in range(out[name].shape[1]):
            counts = (torch.arange(x.shape[2]) < rows.length[rows.group == g][:, None]).sum(0).clamp(min=1)
            out[name][:, g] /= counts.view(1, -1, *[1] * (x.dim() - 3))
    return out


# ---- scores --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "several"), crossed(UNFITTED, [False, True]))
def test_padded_scores_equal_each_prompt_alone(case, kind, several):
    """Every kind and metric, engine and hooks, answers of one token and of one to three."""
    frame = frame_of(several)
    prompts, means, cache = prepared(case, frame)
    substitute, oracle = replacement(kind, case.model, prompts, means, cache), Alone(case, frame, kind)
    ablators = [Ablator(case.model, prompts, substitute, METRICS, use_engine=use) for use in (True, False)]
    quick = Ablator(case.model, prompts, substitute)  # the logit difference alone goes another way
    allowed = 10 * case.tolerance  # sums of up to three log-probabilities
    for circuit in SOME[1:3]:
        expected = oracle.scores(circuit)
        for ablator in ablators:
            found = ablator.scores(circuit)
            for name in METRICS:
                assert np.abs(found[name] - expected[name].numpy()).max() < allowed, (name, circuit)
        assert np.abs(quick.logit_diff(circuit) - expected["logit_diff"].numpy()).max() < allowed


def test_one_layout_is_padded_nowhere_and_scored_as_before(gpt2):
    """Prompts of one layout are the same tensors whether or not the task has others, and score the same bits."""
    frame = frame_of(False)
    prompts, means, cache = prepared(gpt2, frame)
    own = layouts.of_one(frame.assign(task="t", layout=[{0: 1, 1: 0, 2: 2}[k] for k in LAYOUT]))
    assert own.prompt.tolist() == [1, 2, 5]
    alone = Prompts.from_frame(own.assign(layout=1), means["groups"])
    assert alone.position is None and alone.rows().length is None and alone.tokens.shape == (3, 5)
    for kind in UNFITTED:
        whole = Ablator(gpt2.model, prompts, replacement(kind, gpt2.model, prompts, means, cache))
        part = Ablator(gpt2.model, alone, replacement(kind, gpt2.model, alone, means, cache))
        for circuit in SOME:
            assert np.abs(whole.logit_diff(circuit)[[1, 2, 5]] - part.logit_diff(circuit)).max() < 1e-9


def test_collected_means_are_those_of_each_layout(gpt2):
    """`collect` on padded rows, in float32, against `in_float64` and against each layout run alone."""
    for several in (False, True):
        frame = frame_of(several)
        prompts, expected, _ = prepared(gpt2, frame)
        rows = prompts.rows()
        _, means = collected(gpt2.model, rows, "corrupted")
        for name, x in means.items():
            assert (x - expected["corrupted"][name]).abs().max() < 1e-6, "rounded to float32, of order 1"
        if not several:
            for layout in range(3):
                ids = torch.tensor([t for t, k in zip(frame.corrupted_tokens, LAYOUT, strict=True) if k == layout])
                alone = replace(rows, corrupted_tokens=ids, group=torch.zeros(len(ids), dtype=torch.long), length=None)
                _, own = collected(gpt2.model, alone, "corrupted")
                assert torch.allclose(means["z"][:, layout, : ids.shape[1]], own["z"][:, 0], atol=1e-6)
                assert not means["z"][:, layout, ids.shape[1] :].any()


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=6))
@settings(max_examples=60)
def test_rows_are_the_texts_with_their_answers(sizes):
    """Prompts and answers of any lengths: every row is prompt, answer less its last token, padding."""
    rng = np.random.default_rng(0)
    ids = [[rng.integers(1, 9, n).tolist() for n in size] for size in sizes]
    other = [rng.integers(1, 9, n).tolist() for n, _, _ in sizes]
    frame = pd.DataFrame(ids, columns=["tokens", "answer_tokens", "incorrect_tokens"])
    lengths = sorted({n for n, _, _ in sizes})
    frame = frame.assign(corrupted_tokens=other, prompt=range(len(sizes)), template="file")
    frame["layout"] = [lengths.index(n) for n, _, _ in sizes]
    prompts = Prompts.from_frame(frame, layouts.group_names(frame, False))
    where = [{"last": [n - 1], "separators": list(range(n - 1))} for n in lengths]
    prompts = prompts.with_roles_of(where, frame.layout.tolist())
    rows = prompts.rows()
    for i, (text, right, wrong) in enumerate(ids):
        for side, answer in enumerate((right, wrong)):
            row, full = 2 * i + side, text + answer[:-1]
            assert rows.length[row] == len(full)
            assert rows.tokens[row].tolist() == full + [0] * (rows.tokens.shape[1] - len(full))
            assert rows.corrupted_tokens[row, : len(full)].tolist() == other[i] + answer[:-1]
            assert rows.position[row].tolist()[: len(answer)] == list(range(len(text) - 1, len(full)))
            assert rows.targets[row][rows.targets[row] != PAD].tolist() == answer
            assert rows.group[row] == 2 * prompts.group[i] + side
            masks = {name: m.expand(len(rows), -1)[row, : len(full)].tolist() for name, m in rows.roles.items()}
            assert masks["last"] == [p >= len(text) - 1 for p in range(len(full))]
            assert masks["separators"] == [p < len(text) - 1 for p in range(len(full))]
    single = Prompts.from_frame(frame.assign(answer_token=1, incorrect_token=2).drop(columns=["answer_tokens"]))
    assert (single.position is None) == (len(lengths) == 1)
    taken = prompts.take([len(sizes) - 1]).rows()
    assert taken.length.tolist() == rows.length[-2:].tolist()


def test_means_of_other_lengths_are_refused(gpt2):
    frame = frame_of(False)
    prompts, means, _ = prepared(gpt2, frame)
    with pytest.raises(StudyError, match="belong to different tasks"):
        replacement("mean", gpt2.model, replace(prompts, group=(prompts.group + 1) % 3), means)
    with pytest.raises(StudyError, match="none of the prompts of 'all, layout 2'"):
        Prompts.from_frame(frame, ["all", "all, layout 1"])


# ---- edges ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", slow_but(UNFITTED, "mean", "resample"))
def test_edges_of_padded_prompts_equal_those_of_each_layout(case, kind):
    """Any edge circuit, against the naive forward pass on the prompts of each layout, with means of their own; path
    patching is one edge less. EAP against the gradients there, EAP-IG against the engine on each layout alone."""
    frame = frame_of(False)
    prompts, means, cache = prepared(case, frame)
    oracle, graph = Oracle(case.network), graph_of(case.model.weights)

    def edge_ablator(own):
        substitute = replacement(kind, case.model, own, means, cache)
        return EdgeAblator(case.model, graph, own, with_embeddings(substitute, kind, case.model, own))

    whole, rng = edge_ablator(prompts), np.random.default_rng(0)
    circuits = [frozenset(e for e in graph.edges if rng.random() < share) for share in (0.2, 0.6, 0.95)]
    circuits += [graph.all_edges - {edge} for edge in graph.edges[::40]]
    found = [whole.logit_diff(circuit) for circuit in circuits]
    by_edge = {points: attribution.scores(whole, points) for points in (None, 3)}
    for layout in range(3):
        at = [i for i, k in enumerate(LAYOUT) if k == layout]
        own = Prompts.from_frame(frame.iloc[at].reset_index(drop=True), means["groups"])
        naive, alone = EdgeScores(oracle, own, "mean" if kind == "mean_clean" else kind), edge_ablator(own)
        if kind == "mean_clean":
            naive.ablated = {s: w.mean(0, keepdim=True).expand_as(w) for s, w in naive.clean.items()}
        for circuit, values in zip(circuits, found, strict=True):
            expected = naive.without(spelled(graph, graph.all_edges - circuit)).numpy()
            assert np.abs(values[at] - expected).max() < case.tolerance
        for points, scores in by_edge.items():
            of_layout = attribution.scores(alone, points)
            for edge in graph.edges:
                assert (scores[edge][at] - of_layout[edge]).abs().max() < 10 * case.tolerance, "sums over positions"


def spelled(graph, edges):
    """The same edges in the oracle, which knows query heads only."""
    out = set()
    for edge in edges:
        shared = ".kv" in edge.receiver
        heads = graph.readers(edge.receiver)
        out |= {Edge(edge.sender, f"{h}.{edge.receiver[-1]}") for h in heads} if shared else {edge}
    return out


# ---- positions, resamples, noising ---------------------------------------------------------------------------
def test_sites_of_padded_prompts_equal_those_of_each_layout(case):
    frame = frame_of(False)
    prompts, means, cache = prepared(case, frame)
    where = [{"members": [0], "last": [2], "separators": [1]}, {"members": [1, 3], "last": [4], "separators": [0, 2]}]
    where.append({"members": [1], "last": [3], "separators": [0, 2]})
    chosen = prompts.with_roles_of(where, frame.layout.tolist())
    circuit = sites(COMPONENTS[::2], ["members", "last"]) | {Site(1, 1, "separators"), Component(2, 2)}
    substitute = replacement("mean", case.model, prompts, means, cache)
    found = [Ablator(case.model, chosen, substitute, use_engine=use).logit_diff(circuit) for use in (True, False)]
    for layout in range(3):
        at = [i for i, k in enumerate(LAYOUT) if k == layout]
        own = Prompts.from_frame(frame.iloc[at].reset_index(drop=True), means["groups"]).with_roles(where[layout])
        alone = Ablator(case.model, own, replacement("mean", case.model, own, means)).logit_diff(circuit)
        assert max(np.abs(values[at] - alone).max() for values in found) < case.tolerance


def test_a_layout_without_a_role_has_it_nowhere(gpt2):
    prompts = Prompts.from_frame(frame_of(False), ["all", "all, layout 1", "all, layout 2"])
    where = [{"last": [2]}, {"bos": [0], "last": [4]}, {"last": [3]}]
    masks = prompts.with_roles_of(where, LAYOUT).roles
    assert masks["bos"].nonzero().tolist() == [[i, 0] for i, k in enumerate(LAYOUT) if k == 1]
    assert masks["last"].nonzero().tolist() == [[i, n - 1] for i, n in enumerate(LENGTHS)]


@pytest.mark.parametrize("several", [False, True], ids=["one token", "several tokens"])
def test_resamples_take_means_from_the_drawn_prompts_of_each_layout(gpt2, several):
    """Also where a draw misses a layout, which then no drawn prompt asks for."""
    frame = frame_of(several)
    prompts, means, cache = prepared(gpt2, frame)

    def layouts_drawn(seed):
        return {LAYOUT[i] for i in np.random.default_rng([seed, 0]).integers(len(LAYOUT), size=len(LAYOUT))}

    for seed in (0, next(seed for seed in range(1000) if len(layouts_drawn(seed)) == 2)):
        (data,) = remade.bootstraps(gpt2.model, prompts, means, cache, "mean", 1, seed)
        drawn = frame.iloc[data.prompts.prompt].reset_index(drop=True)
        assert set(drawn.layout) == layouts_drawn(seed)
        expected = Alone(gpt2, drawn, "mean").scores(SOME[2])["logit_diff"].numpy()
        found = Ablator(gpt2.model, data.prompts, data.substitute).logit_diff(SOME[2])
        assert np.abs(found - expected).max() < 1e-5, "means are rounded to float32"


def test_noising_and_denoising_equal_those_of_each_prompt(gpt2):
    frame = frame_of(False)
    prompts, _, cache = prepared(gpt2, frame)
    patching = Patching(gpt2.model, prompts, cache)
    kept = SOME[2]
    swapped = frame.assign(tokens=frame.corrupted_tokens, corrupted_tokens=frame.tokens)
    for ablator, own in ((patching.noised, frame), (patching.denoised, swapped)):
        expected = Alone(gpt2, own, "resample").scores(kept)["logit_diff"].numpy()
        assert np.abs(ablator.logit_diff(kept) - expected).max() < 1e-9


# ---- grouping ------------------------------------------------------------------------------------------------
@given(
    lengths=st.lists(st.tuples(st.integers(3, 6), st.integers(0, 1)), min_size=1, max_size=40),
    least=st.one_of(st.none(), st.integers(2, 12)),
)
@settings(max_examples=100)
def test_a_layout_is_used_where_it_is_the_largest_or_large_enough(lengths, least):
    kept = [({"prompt": i}, Layout(n, ((m, m),), n - 1, bool(m))) for i, (n, m) in enumerate(lengths)]
    rows, found, left_out = layouts.grouped(kept, least)
    sizes = Counter(layout for _, layout in kept)
    assert sorted(row["prompt"] for row in [*rows, *left_out]) == list(range(len(kept)))
    assert [layout["prompts"] for layout in found] == sorted((x["prompts"] for x in found), reverse=True)
    assert found[0]["prompts"] == max(sizes.values())
    for row in rows:
        layout, own = found[row["layout"]], kept[row["prompt"]][1]
        assert Layout.of(layout) == own and layout == own.to_json() | {"prompts": sizes[own]}
        assert row["layout"] == 0 or (least is not None and layout["prompts"] >= least)
    for row in left_out:
        assert least is None or sizes[kept[row["prompt"]][1]] < least


rows_of_splits = st.lists(
    st.tuples(st.sampled_from(["search", "held_out"]), st.integers(0, 3), st.integers(1, 3), st.integers(1, 3)),
    min_size=1,
    max_size=20,
)


@given(made=rows_of_splits, multi_token=st.booleans())
@settings(max_examples=100)
def test_what_is_held_out_without_a_mean_is_rejected_and_counted(made, multi_token):
    kept = []
    for i, (split, layout, right, wrong) in enumerate(made):
        answers = {"answer_tokens": [1] * right, "incorrect_tokens": [2] * wrong} if multi_token else {}
        kept.append(({"prompt": i, "split": split, "template": "file"} | answers, Layout(5 + layout, (), 4 + layout)))
    rows, found, _ = layouts.grouped(kept, 1)
    out = layouts.searched(Encoded(rows, found))
    for row in rows:
        alike = [r for r in rows if r["split"] == "search" and r["layout"] == row["layout"]]
        sizes = ("answer_tokens", "incorrect_tokens") if multi_token else ()
        has_mean = bool(alike) and all(max(len(r[s]) for r in alike) >= len(row[s]) for s in sizes)
        stays = row["prompt"] in {r["prompt"] for r in out.rows}
        assert stays == (row["split"] == "search" or has_mean)
    assert out.rejected.total() == len(rows) - len(out.rows)
    counts = Counter(row["layout"] for row in out.rows)
    assert [layout["prompts"] for layout in out.layouts] == [counts[i] for i in range(len(counts))]
    assert list(counts.values()) == [] or max(counts.values()) == counts[0]
    for row in out.rows:
        assert out.layouts[row["layout"]]["tokens"] == kept[row["prompt"]][1].tokens


def test_what_a_filter_keeps_has_a_mean():
    columns = ["prompt", "split", "layout", "template", "kept"]
    rows = [(0, "search", 0, "a", True), (1, "held_out", 0, "a", True), (2, "search", 1, "a", False)]
    rows += [(3, "held_out", 1, "a", True), (4, "held_out", 0, "b", True), (5, "held_out", 0, "a", False)]
    frame = pd.DataFrame(rows, columns=columns)
    assert layouts.kept_with_mean(frame, by_template=False).tolist() == [True, True, False, False, True, False]
    assert layouts.kept_with_mean(frame, by_template=True).tolist() == [True, True, False, False, False, False]
    assert layouts.kept_with_mean(frame.assign(layout=0), by_template=False).equals(frame["kept"])


def test_groups_are_layouts_of_all_or_of_each_template():
    frame = pd.DataFrame({"template": ["b", "a", "a", "b"], "layout": [0, 0, 10, 2]})
    assert layouts.group_names(frame, False) == ["all", "all, layout 2", "all, layout 10"]
    by_template = layouts.group_names(frame, True)
    assert by_template == ["a", "a, layout 10", "b", "b, layout 2"]
    assert layouts.group_of(frame, by_template) == [2, 0, 1, 3]
    assert layouts.group_of(frame, ["all", "all, layout 2", "all, layout 10"]) == [0, 0, 2, 1]
    with pytest.raises(StudyError, match="'a, layout 1' ends as the name of a layout does"):
        layouts.group_names(frame.assign(template="a, layout 1"), True)


def test_a_task_of_members_keeps_one_layout():
    rows = [{"prompt": i, "template": "t", "answer": "c", "incorrect": "b"} for i in range(3)]
    for row, text in zip(rows, ("a b", "a b", "a b a"), strict=True):
        row |= {"text": text, "corrupted_text": text}
    found = encode_prompts(rows, load_tokenizer("shipped"), False, "t")
    assert [row["layout"] for row in found.rows] == [0, 0] and found.rejected == {rejections.OTHER_LAYOUT: 1}
    several = encode_prompts(rows, load_tokenizer("shipped"), False, "t", min_layout=1)
    assert [row["layout"] for row in several.rows] == [0, 0, 1] and not several.rejected


# ---- indirect objects ----------------------------------------------------------------------------------------
def block(tmp_path, table, **more) -> dict:
    table.to_csv(tmp_path / "p.csv", index=False)
    file = {"clean": "p.csv", "columns": {"template": "template"}}
    return {"file": file | more, "held_out_share": 0.5, "hold_out": "auto", "seed": 0, "multi_token": True}


def test_names_of_one_to_three_tokens_are_all_used(tmp_path):
    """336 prompts whose lengths differ: grouped by length, or by the places of both names."""
    tokenizer, table = load_tokenizer("gpt2"), indirect_objects.table(336)
    for size, names in indirect_objects.NAMES.items():
        assert set(tokens_in_text(tokenizer, names, "so ")) == {size}
    found, _ = prompts_of("names", block(tmp_path, table), tokenizer, False, 64, tmp_path)
    expected = Counter(len(tokenizer(text)["input_ids"]) for text in table.text)
    assert len(found.rows) > 0.97 * 336 and len(found.layouts) == indirect_objects.layouts_of() == len(expected)
    assert set(found.rejected) <= {rejections.NO_MEAN} and found.rejected.total() + len(found.rows) == 336
    for row in found.rows:
        assert len(row["tokens"]) == len(row["corrupted_tokens"]) == found.layouts[row["layout"]]["tokens"]
        assert tokenizer.decode(row["answer_tokens"]) == f" {row['answer']}"

    own = block(tmp_path, table)
    own["file"]["columns"] |= {"members": ["a", "b"]}
    found, _ = prompts_of("names", own, tokenizer, False, 64, tmp_path)
    assert len(found.layouts) == 18, "three sizes of either name, in two orders"
    for row in found.rows:
        shown = [tokenizer.decode(row["tokens"][a : b + 1]).strip() for a, b in found.layouts[row["layout"]]["members"]]
        assert shown == row["members"]


def test_smaller_layouts_are_rejected_and_counted(tmp_path):
    table = indirect_objects.table(336)
    found, _ = prompts_of("names", block(tmp_path, table, min_layout=400), load_tokenizer("gpt2"), False, 64, tmp_path)
    assert len(found.layouts) == 1 and found.rejected[rejections.FEW_OF_LAYOUT] + len(found.rows) == 336
    with pytest.raises(StudyError, match="takes 15; select shorter ones"):
        prompts_of("names", block(tmp_path, table), load_tokenizer("gpt2"), False, 15, tmp_path)


def test_the_summary_says_which_layouts_are_used_and_which_one_explains():
    info = {"names": {"layouts": [{"tokens": 14, "prompts": 60}, {"tokens": 15, "prompts": 40}]}, "one": {"layout": {}}}
    info["names"] |= {"layout": {}, "counts": {"rejected": {rejections.FEW_OF_LAYOUT: 100}}}
    used, explained = full_model.layout_findings(info, ["one", "names"], {"names"})
    assert used.startswith(
        "Names: 100 of the 200 prompts read are used (50.0 %), in 2 layouts of 14 to 15 tokens and 40"
    )
    assert "read the most common layout alone: 60 of 100 prompts, of 14 tokens" in explained
    assert full_model.layout_findings(info, ["one", "names"], ()) == [used]


def test_roles_and_answers_are_those_of_every_layout():
    first, second = Layout(3, ((0, 0),), 2), Layout(2, ((1, 1),), 1, bos=True)
    both = [first.to_json() | {"answer_tokens": {"1": 2, "10": 1}}, second.to_json() | {"answer_tokens": {"2": 4}}]
    info = {"layout": both[0], "layouts": both}
    assert layouts.roles_of(info) == [first.roles, second.roles] != [first.roles] * 2
    assert layouts.roles_of({"layout": both[1]}) == [second.roles], "where no layouts are listed"
    assert list(layouts.answer_sizes(info, "answer_tokens").items()) == [("1", 2), ("2", 4), ("10", 1)]


@given(groups=st.integers(1, 8), per_start=st.integers(1, 6), data=st.data())
def test_fewer_prompts_are_spread_evenly_over_first_members(groups, per_start, data):
    """Every first member occurs as often as every other, up to one, and rows stay in order of prompts."""
    n = groups * per_start
    frame = pd.DataFrame({"prompt": range(n), "start": [i % groups for i in range(n)], "template": "a"})
    some = layouts.spread(frame, at_most := data.draw(st.integers(1, n)))
    assert len(some) == at_most and some.prompt.is_monotonic_increasing and some.prompt.is_unique
    counts = some.start.value_counts().reindex(range(groups), fill_value=0)
    assert counts.max() - counts.min() <= 1
    assert layouts.spread(frame, None) is frame


def test_the_filter_reads_each_prompt_at_its_end(gpt2):
    """`answer_logits`, which cache_activations scores with, against each prompt alone."""
    frame = frame_of(False)
    for run, column in (("clean", "tokens"), ("corrupted", "corrupted_tokens")):
        found = answer_logits(gpt2.model, Prompts.from_frame(frame), run)
        for row, ids in zip(found, frame[column], strict=True):
            assert (row - gpt2.run(ids)[0][-1]).abs().max() < 1e-9


@pytest.mark.parametrize("family", ["Bloom", "Gemma2"])
def test_padding_changes_nothing_for_families_that_count_distances(family, tmp_path):
    """Distances that attention counts (Bloom's ALiBi, on hooks) and windows (Gemma 2, whose norms round to float32) are
    those of the text alone."""
    import transformers

    sizes = {
        "Bloom": {"n_layer": 2, "n_head": 4},
        "Gemma2": {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
        | {"intermediate_size": 24, "sliding_window": 3},
    }[family]
    config = getattr(transformers, f"{family}Config")(vocab_size=VOCAB, hidden_size=16, **sizes)
    torch.manual_seed(0)
    network = getattr(transformers, f"{family}ForCausalLM")(config).double().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(tmp_path)
    load_tokenizer("shipped").save_pretrained(tmp_path)
    model, frame = models.load(tmp_path, device="cpu", dtype="float64", batch_size=3), frame_of(False)
    assert (model.weights is None) == (family == "Bloom")
    found = answer_logits(model, Prompts.from_frame(frame), "clean")
    for row, ids in zip(found, frame.tokens, strict=True):
        with torch.no_grad():
            expected = network(torch.tensor([ids])).logits[0, -1]
        assert (row - expected).abs().max() < (1e-9 if family == "Bloom" else 1e-5)
