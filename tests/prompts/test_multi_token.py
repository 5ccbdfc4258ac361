"""Answers of several tokens: teacher-forced scores, their means, and the prompts, against naive computations.

The oracle runs a model once for each token of each answer, on that text alone, without padding, through TransformerLens
hooks, and takes its means from runs of its own. Tolerances are those of `random_models` (rounding in float64; Llama's
norm computes in float32), times ten where an answer's score sums up to three log-probabilities with a softmax each, or
where `collect` has rounded activations of order 1 to float32.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.circuit import remade
from atlas.circuit.ablation import Ablator
from atlas.circuit.evaluation import Patching, position_effects
from atlas.circuit.kinds import KINDS
from atlas.circuit.remade import Maker
from atlas.circuit.replacement import Replacement, replacement
from atlas.circuit.search import Rule, by_layers, node_search
from atlas.circuit.unablated import collected
from atlas.core import metrics
from atlas.core.components import Component, Site, all_components, sites
from atlas.core.errors import StudyError
from atlas.core.metrics import METRICS, PAD, per_prompt
from atlas.core.positions import Layout
from atlas.core.statistics import Bootstrap
from atlas.model import activations, models
from atlas.prompts import token_table, tokens
from atlas.prompts.batch import Prompts
from atlas.prompts.making import prompts_of
from atlas.prompts.tasks import Task, make_prompts
from atlas.study.settings import task_block
from conftest import load_tokenizer, slow_but
from random_models import TOLERANCE, VOCAB, H, L, save

N, LENGTH = 5, 4  # prompts, and their tokens
COMPONENTS = all_components(L, H)
UNFITTED = [kind.name for kind in KINDS.values() if not kind.fitted]  # fitted constants: tests/circuit/test_optimal.py
RIGHT = [[3, 7, 9], [5], [11, 2], [6, 6], [8, 1, 4]]  # the third token is in two answers only
WRONG = [[4], [5, 9, 1], [12, 2], [7], [8, 1, 5]]
circuits_strategy = st.sets(st.sampled_from(COMPONENTS)).map(frozenset)


# the layout of a layer decides nothing here, so both NeoX are left to the slow tests
FAMILIES = slow_but(TOLERANCE, "gpt2", "llama")


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("random") / "model"
    save(request.param, folder)
    loaded = models.load(folder, device="cpu", dtype="float64", batch_size=3)  # a prompt's two rows may be parted
    loaded.tolerance = TOLERANCE[request.param]
    return loaded


def padded(answers, longest=3):
    return torch.tensor([ids + [PAD] * (longest - len(ids)) for ids in answers])


@pytest.fixture(scope="module")
def prompts():
    rng = torch.Generator().manual_seed(1)
    tokens, corrupted = (torch.randint(VOCAB, (N, LENGTH), generator=rng) for _ in range(2))
    return Prompts(tokens, corrupted, padded(RIGHT), padded(WRONG), list(range(N)), torch.tensor([0, 1, 0, 1, 1]))


def means_of(model, prompts) -> tuple[dict, dict]:
    """Contents of `means.pt` and `activations.pt` in the model's own precision."""
    rows = prompts.rows()
    runs = {run: collected(model, rows, run, torch.float64) for run in ("clean", "corrupted")}
    cache = {"prompt": torch.tensor(prompts.prompt)} | {run: found for run, (found, _) in runs.items()}
    return {run: means for run, (_, means) in runs.items()} | {"longest": rows.longest()}, cache


# ---- the oracle ----------------------------------------------------------------------------------------------
def read(model, ids, hooks=()):
    """Logits [S, d_vocab] of one text, and z and MLP outputs by hook name."""
    found = {}

    def keeper(name):
        def keep(x, hook):
            found[name] = x[0].clone()

        return keep

    names = [name for layer in range(L) for name in (models.z_hook(layer), models.mlp_hook(layer))]
    with torch.no_grad():
        logits = model.bridge.run_with_hooks(ids[None], fwd_hooks=[*hooks, *((name, keeper(name)) for name in names)])
    return logits[0], found


class Naive:
    """One full forward for each token of each answer, with hooks on everything that a circuit does not keep."""

    def __init__(self, model, prompts, kind):
        self.model, self.prompts, self.kind = model, prompts, kind
        texts = prompts.tokens if kind == "mean_clean" else prompts.corrupted_tokens
        self.runs = {
            (side, i): read(model, torch.cat((texts[i], torch.tensor(ids[:-1], dtype=torch.long))))[1]
            for side, answers in (("right", RIGHT), ("wrong", WRONG))
            for i, ids in enumerate(answers)
        }

    def value(self, name, side, i, position):
        if self.kind == "zero":
            return torch.zeros_like(self.runs[side, i][name][0])
        if self.kind == "resample":
            return self.runs[side, i][name][position]
        group = self.prompts.group
        rows = [self.runs[side, j][name] for j in range(N) if group[j] == group[i]]
        return torch.stack([row[position] for row in rows if len(row) > position]).mean(0)

    def hooks(self, circuit, side, i):
        for layer in range(L):
            for name, heads in ((models.z_hook(layer), range(H)), (models.mlp_hook(layer), [-1])):

                def hook(x, hook, name=name, heads=heads, layer=layer):
                    x = x.clone()
                    for position in range(x.shape[1]):
                        for head in heads:
                            if Component(layer, head) not in circuit:
                                value = self.value(name, side, i, position)
                                x[0, position][... if head < 0 else head] = value if head < 0 else value[head]
                    return x

                yield name, hook

    def token_logits(self, circuit, side, i):
        """[k, d_vocab] before each token of an answer."""
        ids, rows = (RIGHT if side == "right" else WRONG)[i], []
        for j in range(len(ids)):
            text = torch.cat((self.prompts.tokens[i], torch.tensor(ids[:j], dtype=torch.long)))
            rows.append(read(self.model, text, list(self.hooks(circuit, side, i)))[0][-1])
        return torch.stack(rows)

    def scores(self, circuit) -> dict[str, list[float]]:
        out = {name: [] for name in METRICS}
        for i in range(N):
            logits = {side: self.token_logits(circuit, side, i) for side in ("right", "wrong")}
            sums = {
                side: sum(float(row.log_softmax(-1)[token]) for row, token in zip(rows, answers[i], strict=True))
                for (side, rows), answers in zip(logits.items(), (RIGHT, WRONG), strict=True)
            }
            ranks = [int((row > row[token]).sum()) for row, token in zip(logits["right"], RIGHT[i], strict=True)]
            clean = self.token_logits(frozenset(COMPONENTS), "right", i).softmax(-1)
            out["logit_diff"].append(sums["right"] - sums["wrong"])
            out["prob_diff"].append(np.exp(sums["right"]) - np.exp(sums["wrong"]))
            out["log_prob"].append(sums["right"])
            out["top1"].append(float(max(ranks) == 0))
            out["answer_rank"].append(max(ranks))
            out["kl"].append(float((clean * (clean.log() - logits["right"].log_softmax(-1))).sum()))
        return out


# ---- scores --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", slow_but(UNFITTED, "mean", "resample"))
def test_teacher_forced_scores_equal_a_forward_for_each_token(model, prompts, kind):
    """All kinds of ablation, all metrics, engine and hooks; from no component to all of them."""
    means, cache = means_of(model, prompts)
    substitute, oracle = replacement(kind, model, prompts, means, cache), Naive(model, prompts, kind)
    both = {use: Ablator(model, prompts, substitute, METRICS, use_engine=use) for use in (True, False)}
    quick = Ablator(model, prompts, substitute)  # the logit difference alone goes another way
    some = frozenset(c for i, c in enumerate(COMPONENTS) if i % 3)
    for circuit in (frozenset(COMPONENTS), frozenset(), some, frozenset({Component(0, 1), Component(1), Component(2)})):
        expected = oracle.scores(circuit)
        for ablator in both.values():
            found = ablator.scores(circuit)
            for name in METRICS:
                assert np.abs(found[name] - expected[name]).max() < 10 * max(model.tolerance, 1e-6), (name, circuit)
        difference = np.abs(quick.logit_diff(circuit) - expected["logit_diff"]).max()
        assert difference < 10 * max(model.tolerance, 1e-6)
    assert np.ptp(both[True].scores(frozenset(COMPONENTS))["logit_diff"]) > 0.1, "the scores do differ"


@given(base=circuits_strategy, layer=st.integers(0, L - 1), data=st.data())
@settings(max_examples=10)
def test_a_batch_of_candidates_equals_one_at_a_time(model, prompts, base, layer, data):
    means, cache = means_of(model, prompts)
    own = [c for c in COMPONENTS if c.layer == layer]
    others = frozenset(c for c in base if c.layer != layer)
    variants = data.draw(st.lists(st.sets(st.sampled_from(own)), min_size=1, max_size=4))
    circuits = [others | frozenset(v) for v in variants]
    substitute = replacement(data.draw(st.sampled_from(UNFITTED)), model, prompts, means, cache)
    together = Ablator(model, prompts, substitute).scores_of(circuits)
    for circuit, scores in zip(circuits, together, strict=True):
        alone = Ablator(model, prompts, substitute, use_engine=False).logit_diff(circuit)
        assert np.abs(scores["logit_diff"] - alone).max() < 10 * model.tolerance


@pytest.mark.parametrize("kind", UNFITTED)
def test_padding_changes_nothing(model, prompts, kind):
    """Neither one more column of it, nor which prompts share a batch, nor the token that stands there."""

    def scores(some, every=prompts):
        means, cache = means_of(model, every)
        ablator = Ablator(model, some, replacement(kind, model, some, means, cache), METRICS)
        return ablator.scores(frozenset(COMPONENTS[::2]))

    expected = scores(prompts)
    wider = replace(prompts, answer=padded(RIGHT, 4), incorrect=padded(WRONG, 4))
    for name, values in scores(wider, wider).items():
        assert np.abs(values - expected[name]).max() < 1e-9, name
    for i in range(N):
        for name, values in scores(prompts.take([i])).items():
            assert abs(values[0] - expected[name][i]) < 10 * model.tolerance, name

    rows = prompts.rows()
    beyond = torch.arange(rows.tokens.shape[1]) >= rows.length[:, None]
    assert beyond.any() and not rows.tokens[beyond].any()
    noisy = replace(rows, corrupted_tokens=rows.corrupted_tokens.where(~beyond, 17))
    for name, values in collected(model, noisy, "corrupted")[1].items():
        assert torch.equal(values, collected(model, rows, "corrupted")[1][name])


def test_means_at_positions_of_the_answer_are_those_by_hand(model, prompts):
    """Over corrupted prompts followed by the same answer, those of the group that have the position."""
    rows = prompts.rows()
    _, means = collected(model, rows, "corrupted")
    assert means["z"].shape[:3] == (L, 4, LENGTH + 2)  # two groups of prompts, each with either answer
    assert rows.longest().tolist() == [LENGTH + 2, LENGTH + 1, LENGTH + 2, LENGTH + 2]
    # group 0 with the right answer: prompts 0 and 2; after the prompt stand 3 7 and 11
    first, third = (
        read(model, torch.cat((prompts.corrupted_tokens[i], torch.tensor(ids))))[1]
        for i, ids in ((0, [3, 7]), (2, [11]))
    )
    for layer in range(L):
        for name, hook in (("z", models.z_hook(layer)), ("mlp_out", models.mlp_hook(layer))):
            found, tolerance = means[name][layer, 0], 10 * max(model.tolerance, 1e-7)
            assert (found[LENGTH] - (first[hook][LENGTH] + third[hook][LENGTH]) / 2).abs().max() < tolerance
            assert (found[LENGTH + 1] - first[hook][LENGTH + 1]).abs().max() < tolerance, "one prompt is as long"
            assert not means[name][layer, 1, LENGTH + 1].any(), "no wrong answer of group 0 is as long"


def test_the_rows_that_a_model_reads(prompts):
    rows = prompts.rows()
    assert len(rows) == 2 * N and rows.targets.tolist()[:2] == [[3, 7, 9], [4, PAD, PAD]]
    assert rows.tokens[0].tolist() == [*prompts.tokens[0].tolist(), 3, 7], "all of the answer but its last token"
    assert rows.corrupted_tokens[3].tolist() == [*prompts.corrupted_tokens[1].tolist(), 5, 9]
    assert rows.position[:2].tolist() == [[3, 4, 5], [3, 3, 3]] and rows.length.tolist()[:4] == [6, 4, 4, 6]
    assert rows.group.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 2, 3]
    assert rows.of_prompts(torch.tensor([3, 0])).tolist() == [6, 7, 0, 1]
    own = prompts.with_roles({"separators": [0, 1, 2], "last": [3]}).rows().roles
    assert own["last"].tolist() == [[False] * 3 + [True] * 3] and own["separators"].tolist() == [
        [True] * 3 + [False] * 3
    ]


@given(circuit=st.sets(st.sampled_from(COMPONENTS + sorted(sites(COMPONENTS, ("members", "last"))))).map(frozenset))
@settings(max_examples=10)
def test_sites_equal_hooks(model, prompts, circuit):
    own = prompts.with_roles({"members": [1, 2], "separators": [0], "last": [3]})
    substitute = replacement("mean", model, own, means_of(model, own)[0])
    live, hooks = (Ablator(model, own, substitute, METRICS, use_engine=use) for use in (True, False))
    assert np.abs(live.logit_diff(circuit) - hooks.logit_diff(circuit)).max() < 10 * model.tolerance
    all_last = Site(1, 2, "last")  # at the answer's tokens too: ablated at every role it is ablated
    gone = live.everything - {Component(1, 2)}
    assert (
        np.abs(live.logit_diff(gone | sites({Component(1, 2)}, own.roles)) - live.logit_diff(live.everything)).max()
        < 1e-9
    )
    assert live.without({all_last}) == gone | {Site(1, 2, "members"), Site(1, 2, "separators")}


def test_patching_carries_runs_with_the_same_answer(model, prompts):
    """Nothing patched is the run itself; everything patched is the other run, but for what the tokens there embed."""
    _, cache = means_of(model, prompts)
    patching, bootstrap = Patching(model, prompts, cache, allow_no_effect=True), Bootstrap(10)
    clean, corrupted = (a.logit_diff(a.everything) for a in (patching.noised, patching.denoised))
    oracle = Naive(model, prompts.swapped(), "zero")
    assert np.abs(corrupted - oracle.scores(frozenset(COMPONENTS))["logit_diff"]).max() < 10 * model.tolerance
    rows = {row["metric"]: row["value"] for row in patching.rows(frozenset(), bootstrap)}
    assert rows["noising"] == pytest.approx(1) and rows["denoising"] == pytest.approx(0) and (clean != corrupted).all()


def test_metrics_of_one_token_are_what_they_are_without():
    rng = torch.Generator().manual_seed(0)
    logits, clean = (torch.randn(6, 20, generator=rng, dtype=torch.float64) for _ in range(2))
    answer, incorrect = torch.arange(6), torch.arange(6) + 3
    logits[2] = logits[2].scatter(0, torch.tensor([2]), 9.0)  # one prompt is answered
    one = per_prompt(METRICS, logits, answer, incorrect, clean)
    rows = (x.repeat_interleave(2, 0)[:, None] for x in (logits, clean))
    several = per_prompt(METRICS, next(rows), answer[:, None], incorrect[:, None], next(rows))
    for name in METRICS:
        assert (one[name] - several[name]).abs().max() < 1e-12, name
    for ratio in (0, 0.5, 2):
        found = metrics.passes(logits.repeat_interleave(2, 0)[:, None], answer[:, None], incorrect[:, None], ratio)
        assert torch.equal(found, metrics.passes(logits, answer, incorrect, ratio)) and found.any()


def test_the_filter_is_of_whole_answers():
    """Each token first, and the whole answer more probable than ratio times the incorrect one."""
    p = torch.tensor([[[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]], [[0.6, 0.3, 0.1], [0.5, 0.3, 0.2]]])  # one prompt's two rows
    answer, incorrect = torch.tensor([[0, 1]]), torch.tensor([[1, PAD]])  # 0.6 x 0.7 = 0.42 and 0.3
    for ratio, passed in ((1, True), (1.39, True), (1.41, False)):
        assert metrics.passes(p.log(), answer, incorrect, ratio).tolist() == [passed]
    assert metrics.passes(p.log(), torch.tensor([[0, 0]]), incorrect, 0).tolist() == [False], "second token not first"


# ---- what is refused -----------------------------------------------------------------------------------------
def test_answers_longer_than_any_that_the_means_know_are_refused(model, prompts):
    means, _ = means_of(model, prompts.take([1, 2, 3]))
    short = prompts.take([1, 2, 3])
    assert replacement("mean", model, short, means).z.shape[2] == LENGTH + 2
    with pytest.raises(StudyError, match="an answer is longer than any of the search split"):
        replacement("mean", model, prompts, means)
    assert len(replacement("zero", model, prompts, means).rows) == 2 * N


def test_means_of_the_other_sort_of_task_are_refused(model, prompts):
    means, _ = means_of(model, prompts)
    single = replace(prompts, answer=prompts.answer[:, 0], incorrect=prompts.incorrect[:, 0])
    with pytest.raises(StudyError, match="they belong to different tasks"):
        replacement("mean", model, single, means)
    _, found = activations.collect(model, single.corrupted_tokens)
    with pytest.raises(StudyError, match="they belong to different tasks"):
        replacement("mean", model, prompts, {"corrupted": found})


def test_edges_of_several_tokens_are_refused(model, prompts):
    from atlas.edges.engine import EdgeAblator, engine_of, graph_of, with_embeddings

    substitute = with_embeddings(
        replacement("zero", model, prompts, means_of(model, prompts)[0]), "zero", model, prompts
    )
    with pytest.raises(StudyError, match="on answers of one token alone"):
        EdgeAblator(model, graph_of(engine_of(model).weights), prompts, substitute)


# ---- a task of one token, either way -------------------------------------------------------------------------
def encoded(config, task="number_words", **changes):
    block = task_block(config, task) | changes
    return prompts_of(task, block, load_tokenizer("shipped"), False, None, None)[0]


@pytest.mark.parametrize("kind", slow_but(UNFITTED, "mean"))
def test_a_task_of_one_token_is_the_same_either_way(shipped_model, config, kind):
    """Scores to rounding in float32 (1e-4 of logits of order 10), and circuits exactly."""
    small = {"per_template": 16, "held_out_share": 0, "templates": ["{object} found in {m}."]}
    found = {}
    for several in (False, True):
        rows = encoded(config, multi_token=several, **small).rows
        assert ("answer_tokens" in rows[0]) == several
        prompts = Prompts.from_frame(pd.DataFrame(rows), ["all"])
        means, cache = means_of(shipped_model, prompts) if several else single_means(shipped_model, prompts)
        substitute = replacement(kind, shipped_model, prompts, means, cache)
        ablator = Ablator(shipped_model, prompts, substitute, METRICS)
        circuit, rule = ablator.everything, Rule(threshold=20)
        for step in node_search(
            circuit, rule, by_layers(rule), Ablator(shipped_model, prompts, substitute).percents_of_full
        ):
            circuit = step.left
        some = frozenset(sorted(ablator.everything)[::2])
        found[several] = circuit, [ablator.scores(c) for c in (ablator.everything, circuit, some, frozenset())]
    assert found[False][0] == found[True][0] and 0 < len(found[True][0]) < len(COMPONENTS) * 4
    for one, several in zip(found[False][1], found[True][1], strict=True):
        for name in METRICS:
            assert np.abs(one[name] - several[name]).max() < 1e-4, name


def single_means(model, prompts):
    runs = {run: collected(model, prompts.rows(), run) for run in ("clean", "corrupted")}
    cache = {"prompt": torch.tensor(prompts.prompt)} | {run: found for run, (found, _) in runs.items()}
    return {run: means for run, (_, means) in runs.items()}, cache


# ---- other data ----------------------------------------------------------------------------------------------
MEMBERS = [f"{i} {i + 1}" for i in range(1, 40, 2)]
MEMBERS[5] = "11"  # an answer of one token among those of two


@pytest.fixture(scope="module")
def block(config):
    own = {"members": MEMBERS, "templates": ["{m}"], "shown": 3, "multi_token": True, "corruption": "repeat_random"}
    return config["prompts"] | own | {"per_template": 40}


@pytest.fixture(scope="module")
def pairs(block):
    frame = pd.DataFrame(prompts_of("pairs", block, load_tokenizer("shipped"), False, None, None)[0].rows)
    return Prompts.from_frame(frame[frame.split == "search"].reset_index(drop=True), ["all"])


def test_the_shipped_model_continues_members_of_several_tokens(shipped_model, pairs):
    rows = pairs.rows()
    logits = activations.last_logits(shipped_model, rows.tokens, rows.position)
    found = per_prompt(("logit_diff", "top1"), logits, pairs.answer, pairs.incorrect)
    assert found["logit_diff"].mean() > 1 and set((pairs.answer != PAD).sum(1).tolist()) == {1, 2}


@pytest.mark.parametrize("kind", UNFITTED)
def test_a_bootstrap_equals_ablation_on_the_drawn_prompts(shipped_model, pairs, kind):
    """Means of the drawn rows without a forward pass; 1e-4 of logits, since cached activations are float32."""
    means, cache = means_of(shipped_model, pairs)
    means["groups"] = ["all"]
    (found,) = remade.bootstraps(shipped_model, pairs, means, cache, kind, 1, 0)
    again, _ = means_of(shipped_model, found.prompts)
    expected = replacement(kind, shipped_model, found.prompts, again)
    circuit = frozenset(sorted(all_components(6, 8))[::2])
    ours, theirs = (Ablator(shipped_model, found.prompts, s).logit_diff(circuit) for s in (found.substitute, expected))
    assert np.abs(ours - theirs).max() < 1e-4 and len(set(found.prompts.prompt)) < len(pairs)


@pytest.mark.parametrize("kind", ["mean", "mean_clean", "resample"])
def test_data_made_anew_is_what_the_earlier_stages_make(shipped_model, block, kind):
    maker = Maker(shipped_model, "pairs", block, load_tokenizer("shipped"), False, None, kind, by_template=False)
    found = maker.dataset("seeds", "seed 1", {"seed": 1})
    frame = pd.DataFrame(prompts_of("pairs", block | {"seed": 1}, load_tokenizer("shipped"), False, None, None)[0].rows)
    prompts = Prompts.from_frame(frame[frame.split == "search"].reset_index(drop=True), ["all"])
    means, cache = means_of(shipped_model, prompts)
    circuit = frozenset(sorted(all_components(6, 8))[::2])
    expected = Ablator(shipped_model, prompts, replacement(kind, shipped_model, prompts, means, cache))
    assert torch.equal(found.prompts.answer, prompts.answer)
    ours = Ablator(shipped_model, found.prompts, found.substitute).logit_diff(circuit)
    assert np.abs(ours - expected.logit_diff(circuit)).max() < 1e-5
    strict = replace(maker, filter={"probability_ratio": 2.0})
    kept = strict.dataset("seeds", "seed 1", {"seed": 1}).prompts
    assert 0 < len(kept) <= len(prompts)


def test_positions_of_a_circuit(shipped_model, block, pairs):
    layout = prompts_of("pairs", block, load_tokenizer("shipped"), False, None, None)[0].layout
    own = pairs.with_roles(Layout.of(layout).roles)
    ablator = Ablator(shipped_model, own, replacement("mean", shipped_model, own, means_of(shipped_model, own)[0]))
    (*_, row) = position_effects(ablator, {Component(1, 4)}, frozenset(), Bootstrap(10))
    left = ablator.logit_diff(ablator.without({Site(1, 4, row["role"])})).mean()
    full = ablator.logit_diff(ablator.everything).mean()
    assert row["role"] == "last" and row["value"] == pytest.approx(100 * (full - left) / full)


def test_fewer_rows_than_a_prompt_has_fit_into_memory(shipped_model, pairs):
    """The batch does not have to hold both rows of a prompt."""
    substitute = replacement("mean", shipped_model, pairs, means_of(shipped_model, pairs)[0])
    whole, parted = Ablator(shipped_model, pairs, substitute), Ablator(shipped_model, pairs, substitute)
    parted.split(7)
    assert len(parted.batches) > 4
    circuit = frozenset(sorted(all_components(6, 8))[::3])
    assert np.abs(whole.logit_diff(circuit) - parted.logit_diff(circuit)).max() < 1e-4
    assert whole.rows_that_fit() < Ablator(shipped_model, replace_answers(pairs), zero_like(pairs)).rows_that_fit()


def replace_answers(prompts):
    return replace(prompts, answer=prompts.answer[:, 0], incorrect=prompts.incorrect[:, 0])


def zero_like(prompts):
    return Replacement(
        torch.zeros(6, 1, prompts.tokens.shape[1], 8, 16),
        torch.zeros(6, 1, prompts.tokens.shape[1], 128),
        torch.zeros(len(prompts)).long(),
    )


# ---- prompts on real tokenizers ------------------------------------------------------------------------------
TEMPLATES = ["{object} found in {m}.", "{name} is in {m}."]
SPANISH_MONTHS = ["enero", "febrero", "marzo", "abril", "mayo", "junio", "julio", "agosto", "septiembre", "octubre"]
SPANISH_MONTHS += ["noviembre", "diciembre"]
FIBONACCI = [1, 2]
while len(FIBONACCI) < 22:
    FIBONACCI.append(FIBONACCI[-1] + FIBONACCI[-2])


def made(config, name, members, bos=False, **changes):
    block = config["prompts"] | {"templates": TEMPLATES, "members": members, "multi_token": True} | changes
    return prompts_of("t", block, load_tokenizer(name), bos, None, None)[0]


def check_prompts(found, tokenizer, bos):
    """Every id is where the text puts it, by decoding parts of the ids; members are apart from what is around them."""
    for row in found.rows:
        assert len(row["tokens"]) == len(row["corrupted_tokens"]) == found.layout["tokens"]
        for ids, shown in ((row["tokens"], row["members"]), (row["corrupted_tokens"], row["corrupted_members"])):
            read = [tokenizer.decode(ids[a : b + 1]).strip() for a, b in found.layout["members"]]
            assert read == shown
        for key, text in (("answer", row["text"]), ("incorrect", row["text"])):
            whole = tokenizer(f"{text} {row[key]}", add_special_tokens=False)["input_ids"]
            assert row["tokens"][bos:] + row[f"{key}_tokens"] == whole, "no retokenisation drift"
            assert tokenizer.decode(whole) == f"{text} {row[key]}"
            assert row["tokens"][bos:] == tokenizer(text, add_special_tokens=False)["input_ids"], "the text's own ids"
        assert (row["tokens"][0] == tokenizer.bos_token_id) == bos
    for key in ("answer_tokens", "incorrect_tokens"):
        counted = found.layout[key]
        assert sum(counted.values()) == len(found.rows)
        for n, prompts in counted.items():
            assert sum(len(row[key]) == int(n) for row in found.rows) == prompts
    assert found.layout["answer_position"] == found.layout["tokens"] - 1


@pytest.mark.parametrize("bos", [False, True])
def test_numerals_of_two_digits_on_llama(config, bos):
    """A lone space and two digits; the digits alone are the member, and the space is the first token of an answer."""
    tokenizer = load_tokenizer("llama2")
    found = made(config, "llama2", {"range": [10, 40]}, bos)
    check_prompts(found, tokenizer, bos)
    assert not found.rejected and found.layout["answer_tokens"] == {"3": len(found.rows)}
    for row in found.rows:
        digits = [tokenizer.convert_tokens_to_ids(d) for d in row["answer"]]
        assert row["answer_tokens"] == [29871, *digits]
        for (first, last), member in zip(found.layout["members"], row["members"], strict=True):
            assert row["tokens"][first - 1] == 29871 and last == first + 1
            assert tokenizer.convert_ids_to_tokens(row["tokens"][first : last + 1]) == list(member)


def test_one_digit_on_llama_reads_the_same_rows_either_way(config):
    """The lone space belongs to the prompt, or to the answer and is fed with it: the model reads the same."""
    one, several = (made(config, "llama2", {"range": [1, 9]}, multi_token=m).rows for m in (False, True))
    single, multi = (Prompts.from_frame(pd.DataFrame(rows), ["all"]).rows() for rows in (one, several))
    for name in ("tokens", "corrupted_tokens"):
        assert torch.equal(getattr(multi, name), getattr(single, name).repeat_interleave(2, 0))
    assert [row["answer_tokens"] for row in several] == [[29871, row["answer_token"]] for row in one]


@pytest.mark.parametrize(
    ("name", "members", "kept"),
    [
        ("gpt2", range(10, 400, 10), {"1"}),
        ("llama2", range(10, 100, 10), {"3"}),
        ("llama2", range(100, 400, 10), {"4"}),
    ],
)
def test_sequences_of_plus_ten(config, name, members, kept):
    found = made(config, name, [str(m) for m in members], corruption="repeat_random")
    check_prompts(found, load_tokenizer(name), False)
    assert not found.rejected and set(found.layout["answer_tokens"]) == kept


def test_an_answer_may_be_longer_than_the_members_shown(config):
    """On Llama 60 70 80 90 goes on with one digit more, and texts with 100 in them are rejected and counted."""
    found = made(config, "llama2", [str(m) for m in range(10, 120, 10)], per_template=60)
    check_prompts(found, load_tokenizer("llama2"), False)
    assert set(found.layout["answer_tokens"]) == {"3", "4"} and set(found.layout["incorrect_tokens"]) == {"3"}
    assert len(found.rows) + sum(found.rejected.values()) == 2 * 63, "per_template raised to a multiple of 7 starts"
    assert sum(found.rejected.values()) >= 2 * 9, "those that show 100"


@pytest.mark.parametrize("corruption", ["random_members", "repeat_random", {"position": 1}])
def test_corrupted_members_have_as_many_tokens_as_those_they_replace(config, corruption):
    """Where two members are as long; else any is drawn, and the prompt rejected if its members then lie elsewhere."""
    members = [str(m) for m in [*range(10, 30), *range(100, 110)]]
    block = config["prompts"] | {
        "members": members,
        "corruption": corruption,
        "templates": ["{m}"],
        "per_template": 120,
    }
    task = replace(Task.from_config("t", block), tokens=tuple(map(len, members)))
    for prompt in make_prompts(task):
        pairs = list(zip(prompt["members"], prompt["corrupted_members"], strict=True))
        if corruption == "repeat_random":
            pairs = pairs[:1]
        assert all(len(a) == len(b) for a, b in pairs)
    alone = replace(task, tokens=tuple([1] + [2] * (len(members) - 1)))  # nothing is as long as 10
    assert len(make_prompts(alone)) == len(make_prompts(task))


@pytest.mark.parametrize("name", ["gpt2", "llama2"])
def test_fibonacci(config, name):
    found = made(config, name, [str(m) for m in FIBONACCI], shown=3, per_template=400)
    check_prompts(found, load_tokenizer(name), False)
    assert len(found.layout["answer_tokens"]) > 1 and set(found.rejected) == {"another layout than most prompts"}


def test_spanish_months_on_gpt2(config):
    """Two tokens, three or four: only sequences of one shape are kept, with an answer of another number of tokens."""
    found = made(config, "gpt2", SPANISH_MONTHS, shown=2, cyclic=True, per_template=240)
    check_prompts(found, load_tokenizer("gpt2"), False)
    assert found.layout["members"][0][1] - found.layout["members"][0][0] == 1
    assert set(found.layout["answer_tokens"]) == {"2", "3"}


@given(st.integers(0, 100))
@settings(max_examples=5)
def test_words_that_fall_into_bytes_are_members_too(config, seed):
    found = made(
        config,
        "shipped",
        ["Rotterdam A", "Rotterdam B", "Rotterdam C", "Rotterdam D", "Rotterdam E"],
        shown=3,
        seed=seed,
    )
    check_prompts(found, load_tokenizer("shipped"), False)
    assert not found.rejected


def row(text="one two three", corrupted="two one one", answer="four", incorrect="three"):
    return {"text": text, "corrupted_text": corrupted, "answer": answer, "incorrect": incorrect, "template": "x"}


def test_prompts_that_cannot_be_used_are_rejected_and_counted():
    rows = [
        row(),
        row(answer="four five"),
        row(answer="three four"),  # begins with the incorrect answer, so that it cannot be the more probable one
        row(corrupted="two one"),
        row(answer="three"),
        row(text="one two three "),
    ]
    found = tokens.encode_prompts(rows, load_tokenizer("shipped"), False, "t", multi_token=True)
    assert [len(r["answer_tokens"]) for r in found.rows] == [1, 2]
    assert found.rejected == {
        "one answer begins with the other": 1,
        "the corrupted text has another number of tokens": 1,
        "answer and incorrect answer are equal": 1,
        "the text ends with a space": 1,
    }


class Joining:
    """A tokenizer that reads the last word of a text and the first after it as one."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, texts, **options):
        return self.inner([text.replace("three four", "threexfour") for text in texts], **options)

    def batch_decode(self, ids, **options):
        return self.inner.batch_decode(ids, **options)


def test_a_text_whose_own_ids_change_is_rejected():
    tokenizer, rows = load_tokenizer("shipped"), [row(), row("one two two", answer="five six")]
    assert len(tokens.encode_prompts(rows, tokenizer, False, "t", multi_token=True).rows) == 2
    found = tokens.encode_prompts(rows, Joining(tokenizer), False, "t", multi_token=True)
    assert [r["answer"] for r in found.rows] == ["five six"]
    assert found.rejected == {"the text has other tokens when an answer follows": 1}


@pytest.mark.parametrize(
    ("members", "changes"), [({"range": [8, 20]}, {}), (["a b", "c", "d", "e", "f", "g"], {"shown": 3})]
)
def test_without_the_key_several_tokens_are_refused_with_the_remedy(config, members, changes):
    with pytest.raises(StudyError, match=r"or set multi_token: true$"):
        made(config, "llama2", members, multi_token=False, **changes)
    with pytest.raises(
        StudyError, match=r"an answer is not one token: 1\); set multi_token: true, or choose answers of one token$"
    ):
        tokens.encode_prompts([row(answer="four five")], load_tokenizer("shipped"), False, "t")


def test_prompts_too_long_with_their_answers_are_refused(config):
    block = config["prompts"] | {
        "members": MEMBERS,
        "templates": ["{m}"],
        "multi_token": True,
        "corruption": "repeat_random",
    }
    tokenizer = load_tokenizer("shipped")
    assert prompts_of("t", block, tokenizer, False, 9, None)[0].layout["tokens"] == 8
    with pytest.raises(StudyError, match="prompts have 9 tokens with their answers, the model takes 8"):
        prompts_of("t", block, tokenizer, False, 8, None)


def test_the_token_table_and_the_figures_show_every_token(config):
    from atlas.report.figures import dataset
    from atlas.report.figures import tokens as figure

    found = made(config, "llama2", [str(m) for m in range(10, 120, 10)], True, per_template=60)
    rows = pd.DataFrame(token_table.rows(found.rows, Layout.of(found.layout), load_tokenizer("llama2")))
    for number in rows.prompt.unique():
        prompt = next(r for r in found.rows if r["prompt"] == number)
        for run, text, ids in (("clean", "text", "tokens"), ("corrupted", "corrupted_text", "corrupted_tokens")):
            shown = rows[(rows.prompt == number) & (rows.run == run) & (rows.role != "incorrect")]
            assert shown.id.tolist() == [*prompt[ids], *prompt["answer_tokens"]]
            assert "".join(shown.string) == f"{prompt[text]} {prompt['answer']}"
            assert (shown.role == "answer").sum() == len(prompt["answer_tokens"]) and (
                shown.role == "members"
            ).sum() == 8
        wrong = rows[(rows.prompt == number) & (rows.role == "incorrect")]
        assert wrong.id.tolist() == prompt["incorrect_tokens"]
        assert wrong.position.tolist() == list(range(len(prompt["tokens"]), len(prompt["tokens"]) + len(wrong)))
    assert figure.draw(rows.assign(task="tens"), {"slow_tokenizer": None}, COLOURS)
    counts = {"prompts": len(found.rows), "search": 1, "held_out": 1, "rejected": {}, "duplicates": 0}
    drawn = dataset.draw(
        pd.DataFrame(found.rows).assign(task="tens"),
        {"layout": found.layout, "counts": counts, "hold_out": None},
        COLOURS,
    )
    said = [text.get_text() for text in drawn.axes[0].texts]
    answers = found.layout["answer_tokens"]
    line = f"answers of 3 tokens ({answers['3']} prompts) and 4 tokens ({answers['4']} prompts)"
    assert any(f"members are of 2, 2, 2 and 2 tokens; {line}" in text for text in said)


COLOURS = {"clean": "#4477AA", "corrupted": "#BBBBBB"}
