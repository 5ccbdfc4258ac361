"""The leaderboard: its metrics against closed forms and naive loops, its rows on planted models, page and figure."""

import itertools
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from atlas.circuit.search import Step
from atlas.core.errors import StudyError
from atlas.core.graph import Graph
from atlas.core.statistics import Bootstrap
from atlas.edges import ensembles
from atlas.edges.methods import BY_SCORE, METHODS, RANKINGS, SEARCHING
from atlas.edges.rankings import greedy
from atlas.edges.searches import GRID, auroc
from atlas.proof import (
    board,
    board_figure,
    board_metrics,
    board_models,
    board_orders,
    board_page,
    board_parts,
    board_ranks,
    exact,
    trained_plants,
)
from atlas.proof.attributed import foreseen
from atlas.proof.fixtures import GATES, NODE_METHODS
from conftest import ROOT

METRICS = ("auroc", "precision", "cpr", "cmd")


# ---- metrics -------------------------------------------------------------------------------------------------
def test_precision_at_the_true_size_is_the_mean_over_all_orders_of_equal_elements():
    rng = np.random.default_rng(0)
    for _ in range(20):
        importance = {e: float(v) for e, v in zip("abcdef", rng.integers(0, 3, size=6), strict=True)}
        truth = set("abc")
        orders = [
            o
            for o in itertools.permutations("abcdef")
            if sorted(map(importance.get, o))[::-1] == [*map(importance.get, o)]
        ]
        expected = np.mean([len(truth & set(order[:3])) / 3 for order in orders])
        assert board_metrics.precision_at(importance, truth) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="needs true elements"):
        board_metrics.precision_at({"a": 1.0}, [])


def test_a_search_ranks_what_it_kept_by_cost_and_what_it_removed_by_order():
    """a goes first, then b and c together; d and e stay, d costs 30 points and e 60 in the last sweep."""
    left = [frozenset("bcde"), frozenset("bcde"), frozenset("de"), frozenset("de"), frozenset("de")]
    said = [
        (("a",), 99.0, True),
        (("d",), 40.0, False),
        (("b", "c"), 90.0, True),
        (("d",), 60.0, False),
        (("e",), 30.0, False),
    ]
    steps = [Step(1, "backward", *of, kept) for of, kept in zip(said, left, strict=True)]
    found = board_metrics.importance_of_search("abcde", steps)
    assert (found["d"], found["e"]) == (30.0, 60.0)
    assert board_metrics.ordered(found)[:2] == ["e", "d"] and found["a"] < found["b"] == found["c"] < 0
    assert auroc([found[e] for e in "abcde"], [e in "de" for e in "abcde"]) == 1


def test_neighbours_of_an_order_whose_scores_are_of_one_size_are_equal():
    scores = {"a": 2.0, "b": -2.0, "c": 0.0, "d": 0.0, "e": 2.0}
    found = board_metrics.importance_of_order("abced", scores)
    assert found["a"] == found["b"] > found["c"] > found["e"] > found["d"], "c stands between"
    assert board_metrics.ordered(found) == list("abced")


def test_areas_are_those_of_naive_loops_over_ten_sizes_in_each_convention():
    """Forty elements of which four hold the answer in equal shares; one of them lies on no path without another."""
    elements = [f"e{i:02d}" for i in range(40)]
    worth = {"e00": 1.0, "e05": 1.0, "e10": 1.0, "e30": 1.0}
    importance = {e: float(-i) for i, e in enumerate(elements)}

    def mean_of(circuit):
        return 2.0 + sum(worth.get(e, 0.0) for e in circuit)

    def on_paths(circuit):
        return circuit if "e05" in circuit else circuit - {"e00"}

    found = board_metrics.areas(importance, mean_of, on_paths, 4, corrupted=1.0)
    cpr = cmd = mib_cpr = mib_cmd = 0.0
    own = [(mean_of(elements[: max(1, round(s * 40))]) - 2) / 4 for s in GRID]
    theirs = [(mean_of(on_paths(frozenset(elements[: int(s * 40)]))) - 2) / 4 for s in GRID]
    for i in range(len(GRID) - 1):
        width = GRID[i + 1] - GRID[i]
        cpr += width * (own[i] + own[i + 1]) / 2
        cmd += width * (abs(1 - own[i]) + abs(1 - own[i + 1])) / 2
        mib_cpr += width * (theirs[i] + theirs[i + 1]) / 2
        mib_cmd += width * (abs(1 - theirs[i]) + abs(1 - theirs[i + 1])) / 2
    expected = {"cpr": cpr, "cmd": cmd, "mib_cpr": mib_cpr, "mib_cmd": mib_cmd, "faithfulness": 0.25, "size": 4}
    expected["eap_ig_faithfulness"] = (2.0 - 1.0) / (6.0 - 1.0)  # e00 has no path without e05
    assert found == pytest.approx(expected, abs=1e-12)
    of_components = board_metrics.areas(importance, mean_of, None, 4, corrupted=1.0)
    assert of_components["cpr"] == found["cpr"] and np.isnan(of_components["mib_cpr"])


def test_a_ranking_that_keeps_nothing_up_to_half_has_a_published_cpr_of_a_quarter():
    """As docs/leaderboard.md says of the convention."""
    elements = {i: float(-i) for i in range(100)}
    found = board_metrics.areas(elements, lambda c: float(99 in c), lambda c: c, 1, corrupted=0.0)
    assert found["mib_cpr"] == pytest.approx(0.25) and found["cpr"] == pytest.approx(0.25)


def test_ranks_share_the_mean_of_ties_and_leave_out_what_is_missing():
    assert board_metrics.ranks([0.5, 1, 1, np.nan, 0.2], True).tolist()[:3] == [3, 1.5, 1.5]
    assert np.isnan(board_metrics.ranks([0.5, np.nan], True)[1])
    assert board_metrics.ranks([0.5, 1.0, 0.2], False).tolist() == [2, 3, 1]


def test_ranks_over_fixtures_count_a_fixture_once_whatever_its_families_and_kinds():
    """Method a is best on one and b on two; the fixture with six rows weighs as much as those with one."""
    rows = []
    for fixture, a, b, copies in (("x", 1.0, 0.5, 6), ("y", 0.5, 1.0, 1), ("z", 0.6, 0.9, 1)):
        for method, value in (("a", a), ("b", b)):
            row = {"level": "edge", "method": method, "ranking": "search", "fixture": fixture}
            rows += [row | dict.fromkeys(METRICS, value)] * copies
    unknown = {"level": "edge", "method": "a", "ranking": "search", "fixture": "ladder", "auroc": np.nan}
    table = pd.DataFrame([*rows, unknown | dict.fromkeys(METRICS[1:], np.nan)])
    found = board_ranks.ranked(table, Bootstrap(200, 0)).set_index(["method", "metric"])
    assert found.loc[("a", "auroc"), "rank"] == pytest.approx((1 + 2 + 2) / 3)
    assert found.loc[("b", "auroc"), "value"] == pytest.approx((0.5 + 1 + 0.9) / 3)
    assert found.loc[("b", "cmd"), "rank"] == pytest.approx((1 + 2 + 2) / 3), "of CMD less is better"
    assert found.loc[("b", "auroc"), ["fixtures", "rank_low", "rank_high"]].tolist() == [3, 1, 2]
    assert found.index[0] == ("b", "auroc"), "best first"
    assert found.loc[("b", "auroc"), "best"] == pytest.approx(2 / 3)


# ---- rows ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return exact.leak("gpt2").build(tmp_path_factory.mktemp("board") / "leak")


def cases(folder, fixture=None, kind="mean"):
    of = board.cases_of(fixture or exact.leak("gpt2"), folder)
    return {c.level: c for c in of if c.identity["kind"] == kind}


@pytest.mark.slow
def test_every_node_method_of_the_registries_has_a_row_and_searches_miss_what_lies_below_the_floor(folder):
    """`leak`: an eighth of the effect is below the floor of 80 %, so searches drop 1.3, which single ablation sees."""
    rows, costs = board.measure(cases(folder)["node"])
    table = pd.DataFrame(rows).set_index(["method", "ranking"])
    assert set(table.index.get_level_values(0)) == {*NODE_METHODS, GATES, *board.NODE_SCORES, board.CHANCE}
    assert {"seconds", "peak_mb"} <= set(costs[0]) and not {"seconds", "peak_mb"} & set(rows[0])
    searched = table.loc[(list(NODE_METHODS), board.SEARCH), :]
    assert (searched["found"] == 2).all() and searched["found_faithfulness"].round(4).eq(0.875).all()
    assert not table["by_design"].any(), "no search returns the truth of `leak` at this floor"
    assert table.loc[("single_ablation", "absolute"), "auroc"] == 1
    assert table.loc[("single_ablation", "absolute"), "precision"] == 1
    assert (table["mib_cpr"].isna()).all()


@pytest.mark.slow
def test_of_a_large_model_those_are_left_out_that_take_hundreds_of_passes(folder, monkeypatch):
    monkeypatch.setattr(board, "MOST_COMPONENTS", 1)
    monkeypatch.setattr(board, "MOST_EDGES", 1)
    large = {level: case.methods() for level, case in cases(folder).items()}
    assert large["node"] == ["bisect", *board.NODE_SCORES, board.CHANCE]
    assert {*large["edge"]} == {"eap", "eap_ig", "relp", "mean_of_ranks", board.CHANCE}
    assert not any(METHODS[name].few_passes for name in {*METHODS} - {*large["edge"]})


def test_orders_beside_those_of_a_method_are_made_of_its_scores_and_of_those_of_several():
    graph, rng = Graph(2, 2, 1), np.random.default_rng(0)
    drawn = rng.normal(rng.normal(0, 1, len(graph.edges)), 0.5, (len(METHODS), 9, len(graph.edges)))
    scores = {method: dict(zip(graph.edges, of.T, strict=True)) for method, of in zip(METHODS, drawn, strict=True)}
    means = {method: np.array([values.mean() for values in of.values()]) for method, of in scores.items()}
    assert board_orders.of_method("relp", scores["relp"], graph).keys() == {"greedy"}
    made = board_orders.of_method("eap_ig", scores["eap_ig"], graph)
    found = {name: board_metrics.ordered(importance) for name, (importance,) in made.items()}
    own = dict(zip(graph.edges, means["eap_ig"], strict=True))
    assert found["greedy"] == greedy(own, graph)
    per_prompt, best = np.stack(list(scores["eap_ig"].values()), axis=1), round(0.1 * len(graph.edges))
    kept = ensembles.consistent(per_prompt, best, Bootstrap(1000, 0), 0.95)
    first = sorted((e for e, k in zip(graph.edges, kept, strict=True) if k), key=lambda e: -abs(own[e]))
    assert found["consistent"][: len(first)] == first and 0 < len(first) < best
    assert sum(own[e] < 0 for e in found["helping_75"][:8]) == 6
    for ranking, sign in (("signed", -1), ("absolute", None)):
        sizes = {m: np.abs(v) if sign is None else -v for m, v in means.items()}
        ranks = [np.argsort(np.argsort(sizes[m])) for m in ("eap", "eap_ig", "relp")]
        (mean,) = board_orders.of_ensemble("mean_of_ranks", scores)[ranking]
        assert list(mean.values()) == pytest.approx(list(np.mean(ranks, axis=0)))
        (together,) = board_orders.of_ensemble("sequential", scores)[ranking]
        by = [[graph.edges[i] for i in np.argsort(-sizes[m])] for m in ("eap_ig", "path_patching")]
        ahead = sorted(by[0][:best], key=by[1].index)
        assert board_metrics.ordered(together) == ahead + by[0][best:]
    assert board_orders.possible(["eap", "eap_ig", "relp", "acdc"]) == ["mean_of_ranks"]


def test_a_method_that_misses_what_the_design_says_it_finds_ends_the_run():
    row = {"model": "leak-gpt2", "kind": "mean", "level": "edge", "method": "acdc", "by_design": True, "auroc": 1.0}
    board.refuse_missed([row, row | {"by_design": False, "auroc": 0.5}])
    with pytest.raises(StudyError, match=r"leaderboard: leak-gpt2 mean edge acdc: AUROC 0.9000, but docs/fixtures.md"):
        board.refuse_missed([row | {"auroc": 0.9}])


@pytest.mark.slow
def test_every_edge_method_of_the_registry_has_a_row(folder):
    rows, _ = board.measure(cases(folder, foreseen(exact.leak("gpt2")))["edge"])
    table = pd.DataFrame(rows)
    assert set(table["method"]) == {*METHODS, *board_orders.MEMBERS, board.CHANCE}
    own = table[table["method"] == "eap_ig"].set_index("ranking")
    assert list(own.index) == [*RANKINGS, "consistent", "helping_75"]
    assert own["by_design"].tolist() == [ranking != "signed" for ranking in own.index]
    together = table[table["method"].isin(board_orders.MEMBERS) & (table["ranking"] == "absolute")]
    assert together["by_design"].all() and set(together["method"]) == set(board_orders.MEMBERS)
    asked = dict(zip(table["method"], table["evaluations"], strict=True))
    assert asked["sequential"] == asked["path_patching"] > asked["mean_of_ranks"] == 0, "those of its members"
    assert set(table[table["found"].notna()]["method"]) == set(SEARCHING)
    assert (table[table["by_design"]]["auroc"] == 1).all() and table["by_design"].any()
    chance = table[table["method"] == board.CHANCE].iloc[0]
    assert 0.2 < chance["auroc"] < 0.8 and chance["precision"] < 0.3


TWICE = """
import sys
import pandas as pd, torch
from atlas.proof import board, exact
from atlas.store import artifacts
torch.set_num_threads(1)
rows = [row for case in board.cases_of(exact.leak("gpt2"), sys.argv[1]) for row in board.measure(case)[0]]
artifacts.write_table(pd.DataFrame(rows), sys.argv[2], {})
"""


@pytest.mark.slow
def test_the_table_is_the_same_to_the_byte_when_it_is_made_again(folder, tmp_path):
    """In two processes, one of which is allowed two threads."""
    made = []
    for threads in ("1", "2"):
        path = tmp_path / threads / "results" / "leaderboard" / "leaderboard.parquet"  # a seal holds its file's name
        path.parent.mkdir(parents=True)
        env = {"PYTHONPATH": str(ROOT / "scripts"), "OMP_NUM_THREADS": threads, "HOME": str(tmp_path)}
        subprocess.run([sys.executable, "-c", TWICE, str(folder), str(path)], check=True, env=env)
        made.append(path.read_bytes())
    assert made[0] == made[1]


# ---- models whose circuit is not known -----------------------------------------------------------------------
@pytest.mark.slow
def test_a_model_without_a_truth_is_judged_on_held_out_prompts_as_hooks_would_judge_it(monkeypatch):
    """Faithfulness of the top fifth by single ablation, and the published baseline, against hooks on the bridge."""
    import yaml

    from atlas.circuit.ablation import Ablator
    from atlas.study import settings, validation

    given = yaml.safe_load((ROOT / "config.yaml").read_text())
    given["prompts"]["per_template"] = 16
    schema = yaml.safe_load((ROOT / "schemas" / "config.schema.yaml").read_text())
    config = validation.validated(given, schema, ROOT / "resources" / "published")
    block = settings.task_block(config, "numerals")
    node, edge = board_models.cases_of_task("ladder-6x8", config["models"]["ladder-6x8"], "numerals", block, ROOT)
    assert node.judge.prompts.prompt != node.fresh().prompts.prompt, "held-out prompts are others"
    monkeypatch.setattr(board.Case, "methods", lambda self: ["single_ablation"] if self.level == "node" else ["eap"])
    row = next(row for row in board.measure(node)[0] if row["ranking"] == "absolute")
    assert np.isnan(row["auroc"]) and np.isnan(row["precision"]) and row["size"] == round(0.2 * 54)
    live = node.judge
    hooks = Ablator(live.model, live.prompts, live.substitute, use_engine=False)
    scores = board.single_ablation(node.fresh(), "mean")
    top = frozenset(sorted(scores, key=lambda c: -abs(scores[c]))[: round(0.2 * 54)])
    full, empty, kept = (hooks.logit_diff(c).mean() for c in (hooks.everything, frozenset(), top))
    assert row["faithfulness"] == pytest.approx((kept - empty) / (full - empty), abs=1e-4)  # float32 sums in two orders
    logits = live.model.run(live.prompts.corrupted_tokens)
    rows = torch.arange(len(logits))
    corrupted = (logits[rows, live.prompts.answer] - logits[rows, live.prompts.incorrect]).mean()
    assert node.corrupted == pytest.approx(float(corrupted), abs=1e-4)
    assert {row["method"] for row in board.measure(edge)[0]} == {"eap"}


def test_parts_are_the_shipped_model_and_a_real_one_where_it_is_asked_for():
    assert {name.split(".")[0] for name in board_parts.models_of(False)} == {"ladder-6x8"}
    assert {name.split(".")[0] for name in board_parts.models_of(True)} == {"ladder-6x8", "smollm2"}


# ---- page and figure -----------------------------------------------------------------------------------------
def rankings(level, method):
    """Names of those that a method has on the board."""
    if level == "edge" and method in METHODS and METHODS[method].scores:
        return (*RANKINGS, *(("consistent", "helping_75") if method == board_orders.CHOSEN_FROM else ()))
    if method in board.NODE_SCORES or method in board_orders.MEMBERS:
        return BY_SCORE
    return ("" if method == board.CHANCE else board.SEARCH,)


@pytest.fixture(scope="module")
def table():
    """Two fixtures and a model, every method of the registries; `eap` fails on `induction`."""
    rows, rng = [], np.random.default_rng(0)
    of = {"node": [*NODE_METHODS, *board.NODE_SCORES, board.CHANCE]}
    of |= {"edge": [*METHODS, *board_orders.MEMBERS, board.CHANCE]}
    for fixture, planted in (("two_heads", True), ("induction", True), ("ladder-6x8, numerals", False)):
        for level, methods in of.items():
            for method in methods:
                for ranking in rankings(level, method):
                    row = {"fixture": fixture, "level": level, "method": method, "ranking": ranking, "evaluations": 7}
                    row |= dict.fromkeys(METRICS[:2], 1.0 if planted else np.nan)
                    if planted and fixture == "induction" and method == "eap":
                        row["auroc"] = 0.7
                    columns = ("cpr", "cmd", "faithfulness", "mib_cpr", "mib_cmd", "eap_ig_faithfulness")
                    row |= dict(zip(columns, rng.random(6), strict=True))
                    found = 3.0 if ranking == board.SEARCH else np.nan
                    rows.append(row | {"found": found, "found_faithfulness": found / 4})
    return pd.DataFrame(rows)


def test_the_page_names_every_method_and_says_where_one_fails_and_why(table):
    ranks = board_ranks.ranked(table, Bootstrap(50, 0))
    page = board_page.page(table, ranks, "images/leaderboard.png")
    for row in table.itertuples():
        assert page.count(f"| `{board_figure.name_of(row.method, row.ranking)}` |") >= 2, "planted, and the model"
    failed = page.split("## Where methods fail")[1].split("##")[0]
    assert (
        "`induction`: a softmax that has decided" in failed
        and "edges: `eap, absolute` 0.7, `eap, greedy` 0.7, `eap, signed` 0.7." in failed
    )
    assert "two_heads" not in failed and "layers" not in failed
    assert "### ladder-6x8, numerals: edges" in page and "3, 0.75" in page
    assert max(len(line) for line in page.splitlines() if not line.startswith(("|", "-", "!"))) <= 120


def test_a_reason_is_given_for_every_fixture_that_defeats_something():
    """Of exact fixtures: those where some method is not said to return the truth."""
    names = {f.name for f in (*exact.all_fixtures(), *trained_plants.all_trained())}
    assert set(board_page.WHY) == names


def test_the_figure_has_a_row_for_each_method(table):
    fig = board_figure.draw(table, board_ranks.ranked(table, Bootstrap(50, 0)))
    edges = [label.get_text() for label in fig.axes[0].get_yticklabels()]
    nodes = [label.get_text() for label in fig.axes[2].get_yticklabels()]
    for level, rows in (("edge", edges), ("node", nodes)):
        own = table[table["level"] == level]
        assert set(rows) == {board_figure.name_of(*key) for key in zip(own["method"], own["ranking"], strict=True)}
    assert edges.index("eap, absolute") > edges.index("acdc"), "best first"
    assert ".70" in [text.get_text() for text in fig.axes[0].texts]
