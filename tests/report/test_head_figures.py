"""Figures, pages and sentences about what heads do, from synthetic tables."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from test_figures import COLOURS, STUDIES, fake_study

import edge_tables
import head_tables
from atlas.report import head_cards, lens_page, maps, pattern_page, style, wording
from atlas.report import head_findings as findings
from atlas.report.figures import attention, attribution, backup, detectors, lens, ov, patching, patching_scatter


def more(layers, heads, tasks, members=True, kv_heads=None, **options):
    made = edge_tables.add(fake_study(layers, heads, tasks, (), **options), edges=20)
    return head_tables.add(made, kv_heads, members)


GROUPED = more(3, 4, ("days", "months"), kv_heads=2, model="grouped")
UNKNOWN = more(2, 3, ("days",), members=False, model="unknown-layout")
ALL = STUDIES | {"shared keys and values": GROUPED, "members unknown": UNKNOWN}


@pytest.fixture(params=ALL, scope="module")
def study(request):
    return ALL[request.param]


def of_main(table, study):
    return table[table["task"].isin(study.main)]


def draw(figure: str, study):
    task, member_of = study.main[-1], study.membership
    of_task = study.patching[study.patching["task"] == task]
    seen, effects = (study.attention, study.members, member_of), pd.concat(study.effects.values())
    scores = (study.detectors, member_of, study.main)
    return {
        "patching": lambda: patching.draw(of_task, member_of, task, "RdBu"),
        "patching_scatter": lambda: patching_scatter.draw(study.patching, member_of, study.main, "RdBu"),
        "attribution": lambda: attribution.draw(study.attribution, member_of, study.main, COLOURS, "RdBu"),
        "lens": lambda: lens.draw(study.lens, study.lens_lead, study.lens_increments, study.main, COLOURS),
        "attention": lambda: attention.draw(*seen, effects, study.main, "mean", "viridis"),
        "detectors": lambda: detectors.draw(*scores, head_tables.THRESHOLDS, "viridis"),
        "ov": lambda: ov.draw(study.ov, member_of, study.main, head_tables.K, "viridis"),
        "backup": lambda: backup.draw(study.backup, study.main, COLOURS),
    }[figure]()


FIGURES = ["patching", "patching_scatter", "attribution", "lens", "attention", "detectors", "ov", "backup"]


@pytest.mark.parametrize("name", [n for n in ALL if n != "6 layers x 8 heads"])
@pytest.mark.parametrize("figure", FIGURES)
def test_figure_is_written_and_repeats_byte_for_byte(figure, name, tmp_path):
    study = ALL[name]  # the small ones; larger ones are drawn below
    for name in ("once", "again"):
        style.save(draw(figure, study), tmp_path / f"{name}.svg", tmp_path / f"{name}.png", dpi=40)
    for kind in ("svg", "png"):
        assert (tmp_path / f"once.{kind}").read_bytes() == (tmp_path / f"again.{kind}").read_bytes()


@pytest.fixture(scope="module")
def large():
    """More layers than fit at full height, more heads than fit in one figure, more tasks than fit in one row."""
    return more(13, 9, ("days", "months", "numerals", "letters"), thresholds=(20,), orders=("layers",), model="large")


@pytest.mark.parametrize("figure", FIGURES)
def test_a_larger_study_keeps_to_the_page(figure, large):
    made = draw(figure, large)
    width, height = made.get_size_inches()
    assert width <= style.PAGE + 0.01 and height <= 30
    heads = maps.union_heads(large.membership, large.main)
    if figure == "attention":
        left_out = len(heads) - attention.ROWS_UP_TO
        assert left_out > 0 and f"{wording.count(left_out, 'weaker head')} not shown" in texts(made)


def test_circuits_without_heads_have_every_figure_and_page(tmp_path):
    made = edge_tables.add(fake_study(2, 2, ("days",), (), ("layers",), (20,), model="mlps"), edges=8)
    made.membership = made.membership[made.membership["component"].str.startswith("m")]
    made = head_tables.add(made)
    for figure in FIGURES:
        style.save(draw(figure, made), tmp_path / "a.svg", tmp_path / "a.png", dpi=40)
    assert "<section" not in cards(made) and "No circuit holds a head." in patterns(made)
    said = findings.label_findings(made.roles, made.main, head_tables.THRESHOLDS)
    assert said == ["No circuit holds a head, so there is none to explain."]
    assert findings.label_table(made.roles, made.tasks) is None


def texts(figure) -> list[str]:
    return [t.get_text() for t in figure.texts] + [t.get_text() for ax in figure.axes for t in ax.texts]


# ---- maps ----------------------------------------------------------------------------------------------------
def test_a_grid_holds_the_table_and_nothing_where_there_is_none():
    rows = pd.DataFrame([(0, 1, 3.0), (2, 0, 5.0), (1, -1, 9.0)], columns=["layer", "head", "value"])
    np.testing.assert_array_equal(maps.head_grid(rows), [[np.nan, 3], [np.nan, np.nan], [5, np.nan]])
    assert maps.head_grid(rows.head(0)).shape == (1, 1)


def test_a_map_led_to_white_is_white_at_zero_and_ends_in_the_darkest_colour():
    cmap = maps.from_white("viridis")
    assert style.to_hex(cmap(0.0)) == "#ffffff" and style.to_hex(cmap(1.0)) == "#440154"


def test_names_that_would_overlap_are_left_out():
    points = pd.DataFrame({"x": [0.0, 0.01, 0.5], "y": [0.0, 0.01, 0.5], "name": ["a", "b", "c"]})
    assert list(maps.named(points, 5, (1, 1))["name"]) == ["a", "c"]
    assert list(maps.named(points, 1, (1, 1))["name"]) == ["a"]


# ---- patching ------------------------------------------------------------------------------------------------
def test_patching_shows_changes_from_where_each_direction_starts(study):
    task = study.main[-1]
    rows = study.patching[(study.patching["task"] == task) & (study.patching["head"] < 0)]
    meshes = [ax.collections[0] for ax in draw("patching", study).axes[:6]]
    order = [(d, s) for d in ("denoising", "noising") for s in patching.POSITIONS]
    for mesh, (direction, site) in zip(meshes, order, strict=True):
        part = rows[(rows["direction"] == direction) & (rows["site"] == site)].sort_values(["layer", "position"])
        np.testing.assert_allclose(np.ravel(mesh.get_array()), part["value"] - (direction == "noising"))
        assert mesh.norm.vmin == -mesh.norm.vmax


def test_patching_names_members_and_the_last_position(study):
    named = [t.get_text() for ax in draw("patching", study).axes for t in ax.get_xticklabels()]
    assert {"member 1", "member 4", "last"} <= set(named) and "separators" not in named


def test_heads_of_the_circuit_are_outlined(study):
    circuit = maps.circuit_heads(study.membership, study.main[-1])
    ax = draw("patching", study).axes[7]  # after six maps and their colour bar: z, denoising
    assert ax.get_title(loc="left") == "output (z)"
    corners = {tuple(np.round(np.add(p.get_xy(), 0.5)).astype(int)) for p in ax.patches}
    assert corners == {(wording.place(name)[2], wording.place(name)[0]) for name in circuit}


def test_keys_and_values_of_a_group_are_as_wide_as_its_heads():
    axes = {ax.get_title(loc="left"): ax for ax in draw("patching", GROUPED).axes}
    assert axes["value, 2 groups"].collections[0].get_array().shape[1] == 2
    assert axes["value, 2 groups"].get_xlim() == axes["output (z)"].get_xlim() == (-0.5, 3.5)


def test_scatter_gives_a_head_the_values_of_its_group():
    rows = [("z", h, 0.1 * h) for h in range(4)] + [("pattern", h, 0.0) for h in range(4)] + [("v", 0, 5), ("v", 1, 7)]
    points = patching_scatter.by_head(pd.DataFrame(rows, columns=["site", "head", "value"]).assign(layer=0))
    assert list(points["v"]) == [5, 5, 7, 7] and list(points["z"]) == pytest.approx([0, 0.1, 0.2, 0.3])


def test_scatter_shows_every_head_once(study):
    ax = draw("patching_scatter", study).axes[0]
    n = study.detectors.drop_duplicates(["layer", "head"]).shape[0]
    assert sum(len(c.get_offsets()) for c in ax.collections) == n


# ---- attribution and lens ------------------------------------------------------------------------------------
def test_attribution_shows_every_write_and_keeps_both_signs(study):
    task = study.main[0]
    rows = study.attribution[(study.attribution["task"] == task) & (study.attribution["part"] == "write")]
    ax = draw("attribution", study).axes[1]
    marks = [c.get_offsets()[:, 1] for c in ax.collections if isinstance(c, PathCollection)]
    shown = np.concatenate(marks)
    np.testing.assert_allclose(sorted(shown), sorted(rows["value"]))
    low, high = ax.get_ylim()
    assert low < rows["value"].min() and high > rows["value"].max()


def test_writes_stand_in_the_order_of_the_model():
    names = ["embed", "positions", "attn 0", "bias 0", "m0", "attn 1", "bias 1", "m1", "final norm bias"]
    at = attribution.places([*names, "unembedding bias"], 2)
    assert sorted(at, key=at.get) == [*names, "unembedding bias"]


def test_lens_shows_the_norm_lens_and_counts_prompts_lost_at_the_end(study):
    figure, task = draw("lens", study), study.main[0]
    rows = study.lens[(study.lens["task"] == task) & (study.lens["lens"] == "norm")].sort_values("point")
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), rows["value"])
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), rows["top1"])
    assert "1 of 12 end with another token" in texts(figure)
    bars = figure.axes[2].patches
    assert sum(b.get_height() for b in bars) == pytest.approx(1 + 11 / 12)


# ---- attention, detectors, OV, backup ------------------------------------------------------------------------
def test_attention_has_a_row_for_each_head_and_a_column_for_each_variant(study):
    figure = draw("attention", study)
    shown = texts(figure)
    heads = maps.union_heads(study.membership, study.main)
    named = [t for t in shown if re.fullmatch(r"\d+\.\d+", t)]
    assert len(named) == min(len(heads), attention.ROWS_UP_TO) * len(study.main)
    variants = study.attention["variant"].nunique()
    assert len(figure.axes) == variants * len(study.main) + 1
    assert any("not shown" in t for t in shown) == (len(heads) > attention.ROWS_UP_TO)


def test_attention_maps_hold_the_table(study):
    figure = draw("attention", study)
    shown = {t for t in texts(figure) if re.fullmatch(r"\d+\.\d+", t)}
    rows = study.attention[(study.attention["task"] == study.main[0]) & (study.attention["variant"] == "in order")]
    names = rows["layer"].astype(str) + "." + rows["head"].astype(str)
    expected = rows.loc[names.isin(shown), "value"]
    cells = figure.axes[0].collections[0].get_array().compressed()
    np.testing.assert_allclose(np.sort(cells), np.sort(expected))


def test_the_weakest_heads_are_left_out_first():
    names = [f"0.{i}" for i in range(attention.ROWS_UP_TO + 3)]
    kept = attention.strongest(names, {name: float(i) for i, name in enumerate(names)})
    assert kept == names[3:]


def test_detector_titles_count_the_heads_that_reach_the_threshold(study):
    titles = [ax.get_title(loc="left") for ax in draw("detectors", study).axes[:3]]
    for title, detector in zip(titles, ("previous", "duplicate", "induction"), strict=True):
        n = ((study.detectors["detector"] == detector) & (study.detectors["value"] >= 0.5)).sum()
        assert wording.count(n, "head") in title


def test_cross_types_that_no_head_writes_are_named_and_not_drawn():
    study = STUDIES["6 layers x 8 heads"]
    own = study.ov[study.ov["task"] == study.main[0]]
    found, weak = ov.panels(own, head_tables.K)
    assert [f"{n} {s}" for n, s in found][:2] == ["own next", "own copy"] and len(found) == 6
    assert weak == ["as number words", "as months"]
    strong = own.assign(value=own["value"].where(own["score"] != "cross:months", 0.9))
    assert ("own", "cross:months") in ov.panels(strong, head_tables.K)[0]
    assert any("no head reaches 20 %: as number words and as months" in t for t in texts(draw("ov", study)))


def test_without_known_members_ov_says_so():
    assert texts(draw("ov", UNKNOWN)) == ["No head was scored: where members stand is not known."]


def test_backup_leaves_out_the_ablated_head_and_judges_by_the_interval():
    row = {"ablated": "0.0", "layer": 0, "before": 0.1, "after": 0.2, "change": 0.1}
    rows = [
        row | {"head": 0, "change_ci_low": 0.05, "change_ci_high": 0.2},
        row | {"head": 1, "change_ci_low": 0.05, "change_ci_high": 0.2},
        row | {"head": 2, "change_ci_low": -0.05, "change_ci_high": 0.2},
        row | {"head": 3, "change": -0.1, "change_ci_low": -0.2, "change_ci_high": -0.05},
        row | {"head": 4, "change": 1e-4, "change_ci_low": 1e-5, "change_ci_high": 1e-3},
    ]
    judged = backup.others(pd.DataFrame(rows))
    assert dict(zip(judged["name"], judged["verdict"], strict=True)) == {
        "0.1": "rises",
        "0.2": "",
        "0.3": "falls",
        "0.4": "",
    }


def test_backup_shows_every_other_head(study):
    ax = draw("backup", study).axes[0]
    rows = backup.others(study.backup[study.backup["task"] == study.main[0]])
    assert sum(len(c.get_offsets()) for c in ax.collections) == len(rows)


# ---- pages ---------------------------------------------------------------------------------------------------
def cards(study) -> str:
    effects = pd.concat(study.effects.values())
    tables = {name: getattr(study, name) for name in ("attention", "members", "ov", "detectors", "roles")}
    tables["effects"] = effects[(effects["kind"] == "mean") & (effects["metric"] == "percent_of_full")]
    tables["patching"] = study.patching[(study.patching["site"] == "z")]
    tables["attribution"] = study.attribution[study.attribution["part"] == "head"]
    settings = {"title": "A & B", "main_tasks": study.main, "tasks": study.tasks, "k": head_tables.K}
    settings |= {"labels": head_tables.THRESHOLDS, "sequential": "viridis"}
    return head_cards.page(tables, settings, study.model)


def patterns(study) -> str:
    circuits = {task: maps.circuit_heads(study.membership, task) for task in study.main}
    labels = {task: {} for task in study.main}
    shown = {task: study.patterns[task] for task in study.main}
    return pattern_page.page(shown, circuits, labels, "A & B", COLOURS["clean"])


def tokens(study) -> str:
    tables = {task: study.lens_tokens[study.lens_tokens["task"] == task] for task in study.main}
    chosen = dict.fromkeys(study.main, head_tables.PROMPTS)
    return lens_page.page(tables, study.prompts, study.lens_lead, chosen, "A & B")


@pytest.mark.parametrize("page", [cards, patterns, tokens])
def test_pages_are_whole_offline_and_the_same_again(page, study):
    html = page(study)
    assert html == page(study)
    assert "http" not in html and "src=" not in html and "@import" not in html and "A &amp; B" in html
    assert ">nan" not in html and html.count("<table") == html.count("</table>")
    assert html.count("<script") == html.count("</script>")


def test_every_head_has_one_card_and_links_lead_to_one(study):
    html, heads = cards(study), maps.union_heads(study.membership, study.main)
    assert re.findall(r'<section class="card" id="h([\d.]+)">', html) == heads
    anchors = set(re.findall(r' id="([^"]+)"', html))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= anchors
    assert not re.search(r'href="[^#]', html)


def test_cards_flag_the_heads_whose_label_differs():
    study = STUDIES["6 layers x 8 heads"]
    differ = set(study.roles.loc[study.roles["differs"], "component"])
    assert differ and differ < set(study.roles["component"])
    for card in cards(study).split('<section class="card"')[1:]:
        assert ("Its label differs between tasks." in card) == (re.search(r'id="h([\d.]+)"', card)[1] in differ)


def test_cards_give_each_tasks_value_with_its_interval():
    study = STUDIES["6 layers x 8 heads"]
    name = maps.union_heads(study.membership, study.main)[0]
    layer, _, head = wording.place(name)
    rows = study.attribution[(study.attribution["layer"] == layer) & (study.attribution["head"] == head)]
    card = next(c for c in cards(study).split('<section class="card"') if f'id="h{name}"' in c)
    for task in study.tasks:
        row = rows[rows["task"] == task].iloc[0]
        assert f"<td>{wording.interval(row, 2)}</td>" in card
    effect = study.effects[study.main[0]].query("kind == 'mean' and metric == 'percent_of_full'")
    row = effect[effect["component"] == name].iloc[0]
    lost = {"value": 100 - row["value"], "ci_low": 100 - row["ci_high"], "ci_high": 100 - row["ci_low"]}
    assert f"<td>{wording.interval(lost, 1)}</td>" in card


def test_missing_evidence_has_no_line():
    assert "Written into the top" in cards(STUDIES["6 layers x 8 heads"])
    html = cards(UNKNOWN)
    assert "Written into the top" not in html and "last to last member" not in html and "Patching" in html


def test_pattern_page_holds_every_weight_and_no_markup_of_tokens():
    study = STUDIES["6 layers x 8 heads"]
    html = patterns(study)
    held = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1]
    data = json.loads(held)
    assert [task["title"] for task in data] == [wording.words(t) for t in study.main]
    for task, name in zip(data, study.main, strict=True):
        circuit = maps.circuit_heads(study.membership, name)
        assert [h for h, inside, _ in task["heads"] if inside] == circuit
        for prompt, example in zip(task["prompts"], study.patterns[name]["examples"], strict=True):
            assert prompt["tokens"] == example["tokens"]
            for head, rows in example["patterns"].items():
                for mine, whole in zip(prompt["patterns"][head], rows, strict=True):
                    np.testing.assert_allclose(np.array(mine) / 1000, whole, atol=1e-9)  # both have three digits


def test_lens_page_shows_the_tokens_escaped_and_marks_the_answer():
    table = pd.DataFrame(
        {
            "prompt": 3,
            "point": [0, 0, 1, 1],
            "name": ["resid_pre 0"] * 2 + ["resid_post"] * 2,
            "place": [1, 2, 1, 2],
            "token": [" <b>", "\n", " four", " <b>"],
            "logit": [9.0, -1.25, 8.0, 7.0],
            "answer_place": [7, 7, 1, 1],
        }
    )
    first, last = lens_page.prompt_rows(table)
    assert first["name"] == "before layer 0" and first["answer_place"] == 7
    assert [t for t, _, _ in first["tokens"]] == ["\u00b7<b>", "\u21b5"]
    assert first["tokens"][1][1] == "\u22121.2"
    assert [answer for _, _, answer in last["tokens"]] == [True, False]
    html = tokens(STUDIES["6 layers x 8 heads"])
    assert "&lt;b&gt;" in html and "<b>" not in html and 'class="answer"' in html


# ---- sentences -----------------------------------------------------------------------------------------------
def called(**labels):
    """Roles: head -> its label on each of the tasks a, b, c (main) and d."""
    rows = [
        {"component": name, "task": task, "label": label, "effect": 1.0}
        for name, held in labels.items()
        for task, label in zip("abcd", held.split(", "), strict=False)
    ]
    rows = [row | {"component": row["component"].replace("h", "").replace("_", ".")} for row in rows]
    return pd.DataFrame(rows)


def test_label_sentences_name_heads_by_label_and_the_tasks():
    table = called(
        h0_1="copy, copy, copy", h1_2="unlabelled, copy, unlabelled", h2_0="unlabelled, unlabelled, unlabelled"
    )
    first, rest, differ = findings.label_findings(table, list("abc"), head_tables.THRESHOLDS)
    assert first == (
        "Of the 3 heads in any circuit, 2 reach the threshold of a label on a main task: "
        "copy: 0.1 (all main tasks) and 1.2 (b)."
    )
    assert rest == "Unlabelled on every main task: 2.0."
    assert differ == "1.2 is not called the same on all main tasks: unlabelled on a and c and copy on b."


def test_when_no_head_has_a_label_the_first_sentence_says_so():
    said = findings.label_findings(called(h0_1="unlabelled, unlabelled"), ["a", "b"], {"copy": 0.5})
    assert said[0] == "None of the 1 head in any circuit reaches the threshold of any label on a main task."
    assert said[1] == "No head is called differently on different main tasks."
    assert said[2].startswith("No threshold is set for previous token, induction")
    assert findings.label_findings(called().reindex(columns=["component"]), ["a"], {}) == [
        "No circuit holds a head, so there is none to explain."
    ]


def test_other_tasks_add_to_the_heads_with_several_labels():
    said = findings.label_findings(called(h0_1="copy, copy, copy, induction"), list("abc"), head_tables.THRESHOLDS)
    assert "Counting the other tasks, 0.1 is called differently on some of them too." in said


def test_the_strongest_head_comes_with_its_label_or_the_nearest_threshold(study):
    said = findings.evidence_findings(study.roles, study.attribution, study.main, head_tables.THRESHOLDS)
    for task, sentence in zip(study.main, said[::2], strict=True):
        own = study.roles[study.roles["task"] == task]
        row = own.loc[own["effect"].idxmax()]
        assert f"ablating {row['component']} costs most" in sentence
        assert ("it is called" in sentence) == (row["label"] != "unlabelled")
    scores = {f"score: {label}": 0.0 for label in head_tables.THRESHOLDS}
    row = pd.Series(scores | {"label": "unlabelled", "score: copy": 0.4, "score: inhibitor": 0.09})
    assert "nearest to inhibitor (score 0.09, threshold 0.10)" in findings._known(row, head_tables.THRESHOLDS)


def test_attribution_sentences_keep_both_signs_apart():
    values = {"0.0": 0.5, "0.1": -0.4, "0.2": 0.001}
    rows = [
        {"task": "a", "part": "head", "name": n, "layer": 0, "head": int(n[-1]), **head_tables.interval(v, 0.05)}
        for n, v in values.items()
    ]
    said = findings.evidence_findings(called(h0_1="copy").assign(effect=np.nan), pd.DataFrame(rows), ["a"], {})
    assert said == [
        "A, heads that write most for the answer, 0.0 0.50 [0.45, 0.54]; against the answer, 0.1 \u22120.40 "
        "[\u22120.45, \u22120.36] (logits)."
    ]


def stream(*denoising, z=()):
    key = {"task": "a", "site": "resid_pre", "head": -1, "position": 4}
    rows = [
        key | {"direction": d, "layer": layer, **head_tables.interval(v if d == "denoising" else 1 - v, 0)}
        for layer, v in enumerate(denoising)
        for d in ("denoising", "noising")
    ]
    key |= {"site": "z", "position": -1, "direction": "noising", "layer": 0}
    return pd.DataFrame(rows + [key | {"head": h, **head_tables.interval(v)} for h, v in enumerate(z)])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (stream(0.1, 0.6, 0.9), "restores at least half of the score from layer 1 on"),
        (stream(0.6, 0.1, 0.9), "restores at least half of the score from layer 2 on"),
        (stream(0.1, 0.2), "restores at least half of the score at no layer"),
        (stream(0.9, z=(0.4, 0.99)), "single heads that cost most: 0.0 (60 %)."),
        (stream(0.9, z=(1.2,)), "no corrupted output of a single head surely costs anything."),
    ],
)
def test_patching_sentences_follow_the_rows(table, said):
    assert said in findings.patching_findings(table, ["a"])[0]


def test_lens_sentences_name_the_point_and_the_block(study):
    task = study.main[0]
    own = study.lens_lead[study.lens_lead["task"] == task]
    sentence = findings.lens_findings(study.lens, study.lens_lead, study.lens_increments, [task])[0]
    assert "on 11 of 12 prompts" in sentence
    steps = study.lens_increments[(study.lens_increments["task"] == task) & (study.lens_increments["lens"] == "norm")]
    assert f"within block {steps.loc[steps['share'].idxmax(), 'from_point'] // 2}, on" in sentence
    half = own.loc[own["stays"] >= 0, "stays"].sort_values().iloc[5]
    assert lens_page.point_name(study.lens.set_index("point")["name"][half].iloc[0]) in sentence
    never = own.assign(stays=-1)
    flat = steps.assign(share=0.0)
    sentence = findings.lens_findings(study.lens, never, flat, [task])[0]
    assert "first choice on no prompt" in sentence and "within no block" in sentence


def test_detector_sentences_say_none_with_the_largest():
    rows = [("previous", 0, 0, 0.9), ("previous", 0, 1, 0.1), ("induction", 1, 1, 0.3), ("duplicate", 0, 0, 0.0)]
    table = pd.DataFrame(rows, columns=["detector", "layer", "head", "value"])
    table = table.assign(ci_low=table["value"], ci_high=table["value"])
    said = findings.detector_findings(table, {"previous token": 0.5, "induction": 0.5})
    assert said == [
        "On repeated random tokens, of all heads of the model: previous token: 0.0; "
        "induction: none (largest 1.1 0.30 [0.30, 0.30])."
    ]


def test_backup_sentences_count_sure_rises_only():
    row = {"task": "a", "ablated": "0.0", "layer": 0, "head": 1, "change": 0.2, "scale_ratio": 1.5}
    sure = row | {"change_ci_low": 0.1, "change_ci_high": 0.3}
    said = findings.backup_findings(pd.DataFrame([sure]), ["a"])[0]
    assert "1 head surely writes more" in said and "0.1 without 0.0, by 0.20 [0.10, 0.30] logits" in said
    assert "scale is then 1.50 times" in said
    unsure = row | {"change_ci_low": -0.1, "change_ci_high": 0.3}
    assert "no head surely writes more" in findings.backup_findings(pd.DataFrame([unsure]), ["a"])[0]


def test_the_label_table_has_a_row_for_each_head_and_stars_differences(study):
    table = findings.label_table(study.roles, study.tasks)
    assert len(table["rows"]) == study.roles["component"].nunique()
    assert {len(row) for row in table["rows"]} == {1 + len(study.tasks)}
    starred = {row[0].split()[1] for row in table["rows"] if row[0].endswith("*")}
    assert starred == set(study.roles.loc[study.roles["differs"], "component"])


def test_all_findings_come_in_whole_sentences(study):
    tables = {name: getattr(study, name) for name in ("roles", "attribution", "patching", "lens", "lens_lead")}
    tables |= {name: getattr(study, name) for name in ("lens_increments", "detectors", "backup")}
    said = findings.head_findings(tables, study.main, head_tables.THRESHOLDS)
    assert all(s.endswith(".") and "nan" not in s and "  " not in s for s in said)


def test_what_is_left_out_is_said_with_the_reason_where_there_is_one():
    said = findings.left_out_findings({"edges": "it has no engine", "lens": None, "backup": None})
    assert said == [
        "The configuration leaves out edges (not to be had of this model: it has no engine); the logit lens and backup "
        "heads."
    ]
    assert findings.left_out_findings({}) == []


def test_tables_that_a_study_leaves_out_have_the_columns_of_those_it_makes():
    from atlas.heads import attention, attribution, detectors, ov, patching

    assert {
        "attention": ["variant", *attention.ROLE_COLUMNS],
        "attention_members": ["variant", *attention.STATISTIC_COLUMNS],
        "patching": patching.COLUMNS,
        "attribution": attribution.COLUMNS,
        "ov": ov.COLUMNS,
    } == head_cards.OF_TASKS
    assert head_cards.DETECTORS == detectors.COLUMNS
