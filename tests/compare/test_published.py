"""Published figures beside those of a study: tables made from the published values, changed ones, prompts of record."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.collections import PathCollection
from snakemake.utils import update_config

from atlas.compare import published
from atlas.compare.published_figures import FIGURES
from atlas.core.errors import StudyError
from atlas.generate import prompts as prompt_sets
from atlas.prompts.making import prompts_of
from atlas.report.figures import published as plot
from atlas.report.sections import published as section
from atlas.study import checks, settings
from conftest import ROOT, load_tokenizer
from published_tables import ABOUT, FOLDER, TASKS, VALUES, study_tables

MAIN = ("numerals", "number_words", "months")
EXACT = 1e-4  # values.csv has six digits, and sums of table columns round once more


def preset(config, *names, **keys):
    merged = copy.deepcopy(config)
    for name in names:
        update_config(merged, yaml.safe_load((ROOT / "presets" / f"{name}.yaml").read_text()))
    return merged | keys


def studied(config, **changes) -> published.Studied:
    """gpt2-small on the prompts of record, unless `changes` says otherwise."""
    record = {"tokens": 23, "member_positions": [3, 8, 13, 18]}
    names = {ours: name for name, ours in TASKS.items() if name != "notebook"}
    content = {
        "model": {"random_weights": False, "n_layers": 12, "n_heads": 12, "d_model": 768, "d_vocab": 50257},
        "settings": {task: settings.comparable(config, task) | {"model.prepend_bos": False} for task in MAIN},
        "prompts": {task: ABOUT["prompts"][names[task]] | {"instances": 32} for task in MAIN},
        "layouts": dict.fromkeys(MAIN, record),
    }
    return published.Studied(**content | changes)


@pytest.fixture(scope="module")
def gpt2(config):
    return preset(config, "gpt2-small")


@pytest.fixture(scope="module")
def publication():
    return published.read(FOLDER)


@pytest.fixture(scope="module")
def exact(gpt2, publication):
    return published.compare(publication, study_tables(), studied(gpt2), 20)


# ---- (a) the published values themselves ---------------------------------------------------------------------
def test_published_values_differ_from_themselves_by_nothing(exact):
    """Every published value has one row, and those of its figure's own scale have no difference."""
    computed = exact[exact["status"] != "not computed"]
    assert computed["difference"].abs().max() < EXACT
    missing = set(exact["figure"][exact["status"] == "not computed"])
    maps = {"patching_resid_pre", "patching_attn_out", "patching_mlp_out"}  # of other positions
    assert missing == maps | {entry["figure"] for entry in ABOUT["not_computed"]}
    assert (exact["status"] == "not computed").sum() == 3 * 12 * 19 + len(ABOUT["not_computed"])
    compared = exact[exact["status"] == "compared"]
    assert compared["within"].all() and compared["tolerance"].notna().all()
    assert exact.loc[exact["status"] != "compared", "within"].isna().all()
    assert list(exact.columns) == published.COLUMNS


def test_every_published_value_is_there(exact):
    """Counted apart from the code: rows per figure in values.csv, with zeros for heads that OV scores do not list."""
    counts, rows = VALUES["figure"].value_counts(), exact["figure"].value_counts()
    for figure, count in counts.items():
        tasks = VALUES.loc[VALUES["figure"] == figure, "task"].nunique()
        assert rows[figure] - sum(e["figure"] == figure for e in ABOUT["not_computed"]) == (
            144 * tasks if figure.startswith("ov_") else count
        ), figure
    assert set(counts.index) == set(ABOUT["figures"]) == set(FIGURES)


@pytest.mark.parametrize(
    ("figure", "task", "item", "value"),
    [
        ("percent_of_full", "months", "circuit", 80.2966),
        ("cross", "number_words", "months", 32.3630),
        ("cross", "months", "numerals", 113.5251),
        ("given_circuit", "numerals", "published_months_keep_m11", 37.7001),
        ("single_head", "number_words", "0.1", 8.1006),
        ("single_mlp", "numerals", "m9", 28.6678),
        ("removal", "numerals", "9.1", 46.0634),
        ("removal", "months", "4.4", 7.134),
        ("ov_next", "months", "9.1", 31.25),
        ("ov_next", "months", "9.2", 0),
        ("lens_increment", "number_words", "block 9", 100 * 1396 / 1536),
        ("attribution_writes", "numerals", "m9", 2.62008),
        ("attribution_writes", "numerals", "attn 8", -0.468),
        ("patching_z", "numerals", "9.1", 0.306045),
        ("patching_resid_pre", "numerals", "0@15", 1),
    ],
)
def test_values_copied_by_hand(exact, figure, task, item, value):
    """Read off the publication, not off values.csv."""
    keys = exact[["figure", "task", "item"]].agg(tuple, axis=1)
    if figure.startswith("patching_resid"):
        assert exact.loc[keys == (figure, task, item), "published"].item() == pytest.approx(value, abs=1e-4)
        return  # its positions are those of other prompts
    row = exact[keys == (figure, task, item)].squeeze()
    assert row["published"] == pytest.approx(value, abs=1e-4) and row["ours"] == pytest.approx(value, abs=1e-4)


def test_values_equal_the_published_files(shared):
    """Read from the publication's own files: every head, the cross matrix and the circuits."""
    folder = shared / "published"
    heads = json.loads((folder / "gpt2_single_head_ablation_pct.json").read_text())
    table = VALUES.set_index(["figure", "task", "item"])["value"].sort_index()
    for task in ("numerals", "numwords", "months"):
        for head, percent in heads[task].items():
            assert table["single_head", task, head] == pytest.approx(percent, abs=1e-3)
    record = json.loads((folder / "gpt2_circuits.json").read_text())
    for task, row in record["cross_task_percent"].items():
        for circuit, percent in row.items() if isinstance(row, dict) else ():
            if circuit != "ioi_heads_all_mlps":
                assert table["given_circuit", task, circuit] == pytest.approx(percent, abs=1e-3)
    names = {"numerals": "numerals", "numwords": "number_words", "months": "months"}
    for name, file in (names | {"months_keep_mlp11": "months_keep_m11"}).items():
        circuit = record["circuits"][name]
        ours = json.loads((FOLDER / "circuits" / f"{file}.json").read_text())
        assert [f"{layer}.{head}" for layer, head in ours["heads"]] == circuit["heads"]
        assert ours["mlps"] == circuit["mlps"]
        if name in names:
            listed = VALUES[(VALUES["figure"] == "circuit") & (VALUES["task"] == name)]["item"]
            assert set(listed) == {*circuit["heads"], *(f"m{layer}" for layer in circuit["mlps"])}
    ov = json.loads((folder / "gpt2_ov_scores_top5_pct.json").read_text())
    for key, scores in ov.items():
        task, score = key.rsplit("_", 1)
        assert table[f"ov_{score}", task].to_dict() == pytest.approx(scores, abs=1e-3)


# ---- (b) other values ----------------------------------------------------------------------------------------
def test_a_changed_value_is_shown_and_flagged(gpt2, publication, exact):
    tables = study_tables()
    effects = tables["effects"]
    chosen = (effects["task"] == "months") & (effects["component"] == "3.7") & (effects["kind"] == "mean")
    effects.loc[chosen, "value"] += 0.75
    table = published.compare(publication, tables, studied(gpt2), 20)
    keys = (table["figure"] == "single_head") & (table["task"] == "months") & (table["item"] == "3.7")
    row = table[keys].squeeze()
    assert row["difference"] == pytest.approx(0.75, abs=EXACT) and not row["within"]
    assert row["tolerance"] == 0.05 and row["note"] == ""
    pd.testing.assert_frame_equal(table[~keys], exact[~keys])
    said = section.findings(table)
    assert any(s.startswith("One head ablated: 1 of 432 lies outside the tolerance, most months 3.7") for s in said)


def test_a_difference_of_exactly_the_tolerance_is_within(gpt2, publication):
    tables = study_tables()
    for shift, within in ((0.0499, True), (-0.0499, True), (0.0501, False)):
        cross = study_tables()["cross"]
        cross["value"] += shift
        table = published.compare(publication, tables | {"cross": cross}, studied(gpt2), 20)
        rows = table[(table["figure"] == "cross") & (table["status"] == "compared")]
        assert len(rows) == 9 and (rows["within"] == within).all()


def test_another_circuit_is_taken_apart(gpt2, publication):
    """One head of the published circuit missing, another in its place; what is about circuits says so."""
    tables = study_tables()
    members = tables["membership"]
    swapped = (members["circuit"] == "months") & (members["component"] == "10.7")
    tables["membership"] = members.assign(component=members["component"].mask(swapped, "11.9"))
    minimal = tables["minimality"]
    tables["minimality"] = minimal[~((minimal["task"] == "months") & (minimal["name"] == "10.7"))]
    table = published.compare(publication, tables, studied(gpt2), 20)
    rows = table[(table["figure"] == "circuit") & (table["difference"] != 0)].dropna(subset="difference")
    assert rows[["task", "item", "difference"]].values.tolist() == [["months", "10.7", -1], ["months", "11.9", 1]]
    assert not rows["within"].any()
    noted = table[table["note"] == "our circuit differs from the published one in 2 of their components"]
    about = noted[noted["figure"] != "removal"][["figure", "task", "item"]].values.tolist()
    assert about == [["percent_of_full", "months", "circuit"], *(["cross", task, "months"] for task in MAIN)]
    assert set(noted["task"][noted["figure"] == "removal"]) == {"months"}
    gone = table[(table["figure"] == "removal") & (table["item"] == "10.7") & (table["task"] == "months")].squeeze()
    assert (gone["status"], gone["note"]) == ("not computed", "the component is not in our circuit")
    strips = plot.circuit_strips(table[table["figure"] == "circuit"])
    assert (strips["months"]["ours"], strips["months"]["published"]) == (["11.9"], ["10.7"])
    assert strips["numerals"]["ours"] == [] and len(strips["numerals"]["both"]) == 14 + 11
    said = " ".join(section.findings(table))
    assert "Months: 22 components in our circuit and in the published one; in ours alone 11.9;" in said


def test_a_bias_belongs_to_its_layer_where_there_is_one(gpt2, publication):
    """Published writes of attention hold b_O; ours are rows of their own, and none where a model has no b_O."""
    tables = study_tables()
    table = tables["attribution"]
    without = tables | {"attribution": table[~table["name"].str.startswith("bias")]}
    rows = {
        name: published.compare(publication, t, studied(gpt2), 20).query("figure == 'attribution_writes'")
        for name, t in (("with", tables), ("without", without))
    }
    attn = rows["with"]["item"].str.startswith("attn")
    assert rows["with"]["difference"].abs().max() < EXACT and rows["with"]["ours_low"][attn].isna().all()
    ratio = rows["without"]["ours"] / rows["without"]["published"]
    assert ratio[attn].values == pytest.approx(0.75, abs=0.01) and ratio[~attn].values == pytest.approx(1, abs=0.01)


# ---- what can be compared ------------------------------------------------------------------------------------
def notes_of(table, figure, task="numerals") -> str:
    rows = table[(table["figure"] == figure) & (table["task"] == task) & (table["status"] == "not comparable")]
    assert rows["within"].isna().all()
    return " ".join(sorted(set(rows["note"])))


@pytest.mark.parametrize(
    ("changes", "figure", "said", "untouched"),
    [
        ({"search": {"legacy_mlp_means": False}}, "cross", "search.legacy_mlp_means is false, agreement needs true", 1),
        ({"search": {"never_test": ["m11"]}}, "circuit", "search.never_test is not as published", 1),
        ({"comparison": {"threshold": 10}}, "removal", "comparison.threshold is 10, agreement needs 20", 1),
        ({"ablation": {"kind": "zero"}}, "single_head", 'ablation.kind is "zero", agreement needs "mean"', 0),
        ({"prompts": {"held_out_share": 0.5}}, "clean_logit_diff", "prompts.held_out_share is 0.5", 0),
    ],
)
def test_a_setting_that_disagrees_is_named(gpt2, publication, changes, figure, said, untouched):
    changed = copy.deepcopy(gpt2)
    update_config(changed, changes)
    table = published.compare(publication, study_tables(), studied(changed), 20)
    assert notes_of(table, figure).startswith("not comparable because") and said in notes_of(table, figure)
    if untouched:  # one component alone is not searched for
        single = table[table["figure"] == "single_head"]
        assert (single["status"] == "compared").all()


def test_bos_and_random_weights_leave_nothing_to_compare(gpt2, publication):
    bos = studied(gpt2)
    bos.settings["months"]["model.prepend_bos"] = True
    table = published.compare(publication, study_tables(), bos, 20)
    assert "model.prepend_bos is true, agreement needs false" in notes_of(table, "single_mlp", "months")
    assert (table[(table["figure"] == "single_mlp") & (table["task"] == "numerals")]["status"] == "compared").all()
    model = studied(gpt2).model | {"random_weights": True, "n_layers": 2}
    table = published.compare(publication, study_tables(), studied(gpt2, model=model), 20)
    assert set(table["status"]) == {"not comparable", "not computed"} and table["within"].isna().all()
    shown = table[table["status"] == "not comparable"]
    assert (
        shown["note"]
        .str.startswith(f"not comparable because {published.RANDOM}; the model has n_layers 2, gpt2-small 12")
        .all()
    )
    assert shown["difference"].notna().all(), "the values still stand side by side"
    beyond = table[(table["figure"] == "single_head") & (table["item"] == "2.0")]
    assert set(beyond["note"]) == {"the model has only 2 layers"}
    assert section.findings(table)[0].startswith("None of ")


def test_made_prompts_have_a_tolerance_of_their_own(gpt2, publication):
    """From the published wording they are compared, and said to be others; from another wording they are not."""
    made = {task: {"digest": "another", "count": 1536, "instances": 32} for task in MAIN}
    table = published.compare(publication, study_tables(), studied(gpt2, prompts=made), 20)
    single = table[table["figure"] == "single_head"]
    assert set(single["tolerance"]) == {5} and set(single["note"]) == {published.OTHERS}
    changed = copy.deepcopy(gpt2)
    changed["tasks"]["numerals"]["templates"] = ["{object} found in {m}."]
    table = published.compare(publication, study_tables(), studied(changed, prompts=made), 20)
    assert "prompts.templates is not as published" in notes_of(table, "single_head")
    changed["tasks"]["numerals"] = {"file": {"clean": "mine.csv"}}
    table = published.compare(publication, study_tables(), studied(changed, prompts=made), 20)
    assert "come from a file and are not those of record" in notes_of(table, "single_head")
    fewer = preset(gpt2, "gpt2-small")
    fewer["prompts"]["per_template"] = 8
    table = published.compare(publication, study_tables(), studied(fewer, prompts=made), 20)
    assert "prompts.per_template is 8, agreement needs 512" in notes_of(table, "lens_increment", "months")


def test_maps_need_bos_and_their_own_places(gpt2, publication, exact):
    """Positions are compared only where tokens and members stand as in the published prompts."""
    assert (exact.loc[exact["figure"] == "patching_attn_out", "status"] == "not computed").all()
    assert "model.prepend_bos is false, agreement needs true" in notes_of(exact, "patching_z")
    maps = preset(gpt2, "gpt2-small-maps")
    there = studied(maps, layouts={task: {"tokens": 19, "member_positions": [3, 7, 11, 15]} for task in MAIN})
    for task in MAIN:
        there.settings[task]["model.prepend_bos"] = maps["models"]["gpt2-small"]["prepend_bos"]
    table = published.compare(publication, study_tables(), there, 20)
    for figure in ("patching_attn_out", "patching_z", "attribution_heads"):
        rows = table[table["figure"] == figure]
        assert (rows["status"] == "compared").all() and rows["within"].all(), figure
        assert set(rows["note"]) == {published.OTHERS}
    assert "model.prepend_bos is true" in notes_of(table, "cross")


def test_scores_of_other_members_are_not_compared(exact):
    """Published OV scores of numerals are shares of 388 instances; twelve members make 32."""
    assert "members make 32 instances, the published ones 388" in notes_of(exact, "ov_copy")
    assert (exact.loc[(exact["figure"] == "ov_next") & (exact["task"] == "months"), "status"] == "compared").all()


def test_a_study_without_a_task_says_so(gpt2, publication):
    only = studied(gpt2)
    for task in ("number_words", "months"):
        del only.settings[task]
    tables = study_tables()
    for name, table in tables.items():
        tables[name] = table[table["circuit" if name == "membership" else "task"] == "numerals"]
    table = published.compare(publication, tables, only, 20)
    rows = table[table["task"] == "months"]
    assert (rows["status"] == "not computed").all()
    assert "the study has no main task months" in set(rows["note"])
    assert (table[(table["figure"] == "single_head") & (table["task"] == "numerals")]["status"] == "compared").all()


def test_prompts_are_known_by_their_texts():
    frame = pd.DataFrame(
        {
            "prompt": [1, 0],
            "text": ["b", "a"],
            "corrupted_text": ["d", "c"],
            "answer": ["2", "1"],
            "incorrect": ["1", "0"],
            "members": [["x", "y"], ["x", "y"]],
        }
    )
    found = published.prompts_of(frame)
    assert found["count"] == 2 and found["instances"] == 2
    assert published.prompts_of(frame.iloc[::-1])["digest"] == found["digest"], "in the order of prompt"
    for column in ("text", "corrupted_text", "answer", "incorrect"):
        changed = frame.assign(**{column: ["z", frame[column][1]]})
        assert published.prompts_of(changed)["digest"] != found["digest"], column


# ---- completions ---------------------------------------------------------------------------------------------
LLAMA = ROOT / "resources" / "published" / "llama-2-7b-chat"


@pytest.fixture(scope="module")
def llama(config):
    return preset(config, "llama-2-7b-chat")


def chat(llama, **changes) -> published.Studied:
    model = {"random_weights": False, "n_layers": 32, "n_heads": 32, "d_model": 4096, "d_vocab": 32000}
    block = settings.comparable(llama, "numerals") | {"model.prepend_bos": True}
    return published.Studied(
        **{"model": model, "settings": {"numerals": block}, "prompts": {}, "layouts": {}} | changes
    )


def no_tables(**tables) -> dict:
    return {"membership": pd.DataFrame(columns=["circuit", "component"])} | tables


def texts(entries) -> pd.DataFrame:
    return pd.DataFrame([{"text": e["text"], "heads": e["heads"], "output": e["written"]} for e in entries])


def test_published_completions_agree_with_themselves(llama):
    """Also where ours is cut after fewer tokens or has spaces that the published text lost; another text is shown."""
    publication = published.read(LLAMA)
    same = texts(publication.completions)
    same["output"] = [" ".join(text[: max(3, len(text) // 2)]) for text in same["output"]]
    table = published.compare(publication, no_tables(generation=same), chat(llama), 20)
    rows = table[table["figure"] == "completions"]
    compared = rows[rows["status"] == "compared"]
    assert len(compared) == len(publication.completions) == 61 and compared["within"].all()
    other = same.assign(output=same["output"].where(same.index != 7, " 99"))
    table = published.compare(publication, no_tables(generation=other), chat(llama), 20)
    off = table[table["within"] == False]  # noqa: E712 (the third value is missing)
    assert off[["ours", "published", "difference"]].values.tolist() == [[0, 1, -1]]
    assert off["item"].item().endswith(publication.completions[7]["text"]) and "ours ' 99'" in off["note"].item()


def test_completions_need_the_same_settings(llama):
    publication = published.read(LLAMA)
    same, changed = texts(publication.completions), copy.deepcopy(llama)
    changed["generation"]["kind"] = "mean"
    table = published.compare(publication, no_tables(generation=same), chat(changed), 20)
    assert 'generation.kind is "mean", agreement needs "zero"' in notes_of(table, "completions", "published")
    table = published.compare(publication, no_tables(), chat(llama), 20)
    assert set(table["status"]) == {"not computed"}


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        (" 4", " 4 5", True),
        ("cuatro cinco", "cuatrocinco", True),
        (" 4", " 5", False),
        ("", " 5", False),
        (" ", "", False),
    ],
)
def test_texts_that_begin_alike(first, second, alike):
    assert published.begins_alike(first, second) == published.begins_alike(second, first) == alike


def test_what_was_written_is_taken_from_its_tables():
    prompts = pd.DataFrame(
        {"set": "s", "prompt": [0, 1, 2], "text": ["a", "b", "c"], "status": ["used", "failed", "rejected"]}
    ).assign(output=["x", "y", ""])
    outputs = pd.DataFrame({"set": "s", "prompt": [0, 0], "heads": ["h", "h"], "draw": [-1, 3], "output": ["u", "v"]})
    found = published.written(prompts, outputs).values.tolist()
    assert found == [["a", "", "x"], ["b", "", "y"], ["a", "h", "u"]]


def test_the_preset_generates_every_published_completion(llama):
    """Every text and head set with a completion is in the preset, whose answers are what was written unablated."""
    sets, own = llama["generation"]["prompts"]["published"]["texts"], llama["generation"]["own"]
    listed = dict(map(tuple, sets))
    for entry in published.read(LLAMA).completions:
        assert entry["text"] in listed and (not entry["heads"] or entry["heads"] in own)
        if not entry["heads"]:
            assert published.begins_alike(listed[entry["text"]], entry["written"])


def test_the_prompts_of_published_completions_fit_the_tokenizer(llama):
    """None is rejected, so each is there to be compared."""
    block = settings.generation_prompt_sets(llama)["published"]
    pairs, _ = prompt_sets.make_set("published", block, 1, 0)
    rows = prompt_sets.encode_set("published", pairs, load_tokenizer("llama2"), True, 4096)
    assert len(rows) == 10 and not [row["text"] for row in rows if row["reason"]]


def test_llama_completions_equal_the_published_file(shared, llama):
    record = json.loads((shared / "published" / "llama2_zero_ablation_generation_goldens.json").read_text())
    own, known = llama["generation"]["own"], {(e["clean"], *(e["ablated_heads"] or [])): [] for e in record}
    for entry in record:
        if not isinstance(entry["ablated_heads"], str):
            known[(entry["clean"], *(entry["ablated_heads"] or []))].append(entry["final"].replace("<0x0A>", "\n"))
    for entry in published.read(LLAMA).completions:
        key = (entry["text"], *(own[entry["heads"]] if entry["heads"] else []))
        assert any(published.begins_alike(entry["text"] + entry["written"], final) for final in known[key])


# ---- prompts of record ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", ["numerals", *(pytest.param(name, marks=pytest.mark.slow) for name in ("numwords", "months"))]
)
def test_the_prompts_of_record_are_read_and_recognised(config, shared, publication, name):
    """As the preset reads them: 1536 prompts, none rejected, laid out as published, known by their digest."""
    merged = preset(config, "gpt2-small", "gpt2-small-published")
    task, tokenizer = TASKS[name], load_tokenizer("gpt2")
    block = settings.task_block(merged, task)
    for key in ("clean", "corrupted"):  # the preset names a folder of the user's
        assert block["file"][key].startswith("data/published/")
        block["file"][key] = block["file"][key].replace("data/published", "published/prompts")
    encoded, _ = prompts_of(task, block, tokenizer, merged["models"]["gpt2-small"]["prepend_bos"], 1024, shared)
    assert len(encoded.rows) == 1536 and not encoded.rejected
    assert published.layout_of({"layout": encoded.layout}) == {"tokens": 23, "member_positions": [3, 8, 13, 18]}
    assert {row["split"] for row in encoded.rows} == {"search"}
    assert list(dict.fromkeys(row["template"] for row in encoded.rows)) == ["done", "lost", "names"]
    found = published.prompts_of(pd.DataFrame(encoded.rows))
    assert found["digest"] == ABOUT["prompts"][name]["digest"] and found["instances"] == 32
    assert merged["search"]["legacy_mlp_means"] is True
    about = publication.about
    spec = about["figures"]["cross"]
    there = studied(merged, prompts={task: found})
    assert published.is_record(spec, task, about, there)
    assert published.disagreements(spec, task, about, there) == []


def test_the_wording_of_record_is_that_of_the_preset(config, shared):
    """Templates and members that `study.json` asks of made prompts, read off the prompts of record."""
    for name in ABOUT["prompts"]:
        clean = pd.read_parquet(shared / "published" / "prompts" / f"{name}_clean.parquet").query("row < 512")
        seen = {str(word).strip() for word in np.ravel(clean[["S1", "S2", "S3", "S4", "corr"]])}
        assert seen == set(ABOUT["members"][name])
        for template in clean["template"].unique():
            text = clean[clean["template"] == template].iloc[0]["text"]
            verb = " ".join(text.split(".")[0].split()[1:-1])
            assert any(f" {verb} {{m}}." in t for t in ABOUT["figures"]["cross"]["made"]["prompts.templates"])


# ---- configuration, page, figure -----------------------------------------------------------------------------
def test_an_unknown_publication_is_refused(config):
    folder = ROOT / "resources" / "published"
    checks.check_published(config, folder)
    checks.check_published(config | {"published": "gpt2-small"}, folder)
    with pytest.raises(StudyError, match=r"published: 'gpt3' is unknown; there are gpt2-small, llama-2-7b-chat"):
        checks.check_published(config | {"published": "gpt3"}, folder)


def test_an_unknown_figure_is_refused(tmp_path):
    (tmp_path / "study.json").write_text(json.dumps({"figures": {"nothing": {}}}))
    with pytest.raises(StudyError, match=r"figures.nothing is unknown; one of circuit"):
        published.read(tmp_path)


def test_every_figure_has_its_tolerance_and_its_reason():
    for name, spec in ABOUT["figures"].items():
        assert spec["why"] and spec["missing"] and spec["title"], name
        assert spec["tolerance"]["made"] >= 0
        assert (spec["tolerance"]["record"] is not None) == spec.get("prompts_of_record", True) or name[:2] == "ov"


def test_the_table_on_the_page_counts(exact):
    table = section.table(exact)
    rows = {(row[0], row[1]): row for row in table["rows"]}
    assert rows["One head ablated", "months"][3:7] == ["144", "144", "144 of 144", "0.05"]
    assert rows["OV score: copy", "numerals"][5] == "\u2013"
    assert all(len(row) == len(table["header"]) for row in table["rows"])
    assert section.findings(None) == []


def test_the_figure_shows_every_value_and_its_verdict(exact):
    colours = {"clean": "#4477AA", "circuit": "#EE6677"}
    figure = plot.draw(exact, colours)
    shown = exact[(exact["status"] != "not computed") & (exact["figure"] != "circuit")]
    panels = [ax for ax in figure.axes if ax.get_title("left")]
    assert len(panels) == shown["title"].nunique()
    points = [c for ax in panels for c in ax.collections if isinstance(c, PathCollection)]
    assert sum(len(c.get_offsets()) for c in points) == len(shown)
    changed = exact.assign(within=exact["within"].mask(exact["figure"] == "cross", False))
    within, outside = (plot.marks(changed[changed["figure"] == name], colours) for name in ("single_mlp", "cross"))
    assert [len(part) for part, _, _ in within] == [0, 36, 0] and [len(p) for p, _, _ in outside][1:] == [0, 9]
    texts = {t.get_text() for t in figure.texts}
    assert "in both (25)" in texts and "ours alone (0)" in texts


def test_a_page_without_a_comparison_has_no_section(exact):
    empty = exact[exact["status"] == "not computed"]
    figure = plot.draw(empty, {"clean": "#4477AA", "circuit": "#EE6677"})
    assert any("nothing published" in t.get_text() for t in figure.texts)
