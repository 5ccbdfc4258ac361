"""A finished study, opened where one programs: its numbers are those of the tables, its refusals name what is wrong."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import documented
from atlas.core.errors import StudyError
from atlas.study.finished import open_study
from conftest import ROOT, SHIPPED

MODEL, MAIN = "ladder-6x8", ["numerals", "number_words"]


@pytest.fixture(scope="module")
def opened(study):
    return open_study(study.folder / "results")


def estimate(row) -> tuple[float, float, float]:
    return row["value"], row["ci_low"], row["ci_high"]


def pick(table, **where):
    for key, value in where.items():
        table = table[table[key] == value]
    assert len(table) == 1
    return table.iloc[0]


def plain(markup: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", markup))


# ---- what is read --------------------------------------------------------------------------------------------
def test_tasks_circuits_and_tables_are_those_on_disk(study, opened):
    folder = study.folder / "results" / MODEL
    assert opened.main == MAIN and opened.tasks == [*MAIN, "days"] and [t.name for t in opened] == opened.tasks
    stored = json.loads((folder / "comparison" / "circuits.json").read_text())["circuits"]
    for task in MAIN:
        circuit = opened[task].circuit
        assert (circuit.heads, circuit.mlps) == (stored[task]["heads"], stored[task]["mlps"])
        assert len(circuit) == len(list(circuit)) and circuit.heads[0] in circuit and "99.0" not in circuit
        core = json.loads((folder / "comparison" / "consensus.json").read_text())["tasks"][task]["core"]
        assert list(opened[task].core) == sorted([*core["heads"], *core["mlps"]], key=list(opened[task].core).index)
        pd.testing.assert_frame_equal(opened[task].table("trace"), pd.read_parquet(folder / task / "trace.parquet"))
    members = pd.read_parquet(folder / "comparison" / "membership.parquet")
    assert set(opened.shared) == set(members.component[members.circuit == "shared"])
    assert set(opened.tables) >= {"comparison/cross", "detectors", "data_check"}
    assert {f"{name}.parquet" for name in opened["days"].tables} == {
        f.name for f in (folder / "days").glob("*.parquet")
    }


def test_circuits_are_sets(opened):
    a, b = (opened[task].circuit for task in MAIN)
    assert set(a & b) == set(a) & set(b) == set(opened.shared)
    assert set(a | b) == set(a) | set(b) and set(a - b) == set(a) - set(b)
    assert list(opened.circuit(["m0", "0.1", "0.0"])) == ["0.0", "0.1", "m0"]


def test_a_table_is_a_copy(opened):
    table = opened["numerals"].table("trace")
    table["percent"] = 0.0
    opened.table("comparison/circuits.json")["circuits"].clear()
    assert opened["numerals"].table("trace")["percent"].any() and opened.circuits


def test_figures_are_the_files_of_the_study(study, opened):
    folder = study.folder / "results" / "figures" / MODEL
    drawn = {file.name for file in folder.glob("*.svg")}
    names = {f"{MODEL}.{name}.svg" for name in opened.figures}
    names |= {f"{MODEL}.{task.name}.{name}.svg" for task in opened for name in task.figures}
    assert names == drawn and "shared.circuit_diagram" in opened.figures
    figure = opened["numerals"].figure("circuit_diagram")
    assert figure._repr_png_() == (folder / f"{MODEL}.numerals.circuit_diagram.png").read_bytes()
    assert "<svg" in figure.svg and figure.name == f"{MODEL}.numerals.circuit_diagram"


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- what is run ---------------------------------------------------------------------------------------------
def test_what_is_kept_and_ablated_is_what_the_study_scored(opened, one_thread):
    """Two tables that jobs of the study wrote: the circuit of each task on each, and each component alone; on one
    thread, as jobs are, to the bit of the same engine but for what it remembers, so 1e-6 of a percent."""
    cross = opened.table("comparison/cross")
    for task in opened:
        for name, circuit in opened.circuits.items():
            row = pick(cross, circuit=name, task=task.name, metric="percent_of_full")
            found = task.keep(circuit)
            assert found.percent == pytest.approx(estimate(row), abs=1e-6)
            assert found.first == pytest.approx(estimate(pick(cross, circuit=name, task=task.name, metric="top1")))
            assert len(found.per_prompt) == row["prompts"]
    numerals = opened["numerals"]
    effects, scores = numerals.table("component_effects"), numerals.table("component_scores")
    for name in ("1.4", "m0"):
        found = numerals.ablate(name, split="search")
        assert found.percent == pytest.approx(
            estimate(pick(effects, component=name, kind="mean", metric="percent_of_full")), abs=1e-6
        )
        rows = scores[(scores.component == name) & (scores.kind == "mean") & (scores.metric == "logit_diff")]
        np.testing.assert_allclose(
            found.per_prompt.set_index("prompt").left[rows.prompt], rows.value, rtol=0, atol=1e-5
        )


def test_components_are_given_by_name_one_by_one_or_as_circuits(opened):
    task = opened["numerals"]
    left = [task.ablate("1.4", "m0"), task.ablate(["m0", "1.4"]), task.ablate(opened.circuit(["1.4"]), "m0")]
    assert len({found.percent for found in left}) == 1 and left[0].title == "numerals, without m0 and 1.4"
    assert task.ablate().percent == pytest.approx((100, 100, 100)) and (task.ablate().per_prompt.lost == 0).all()
    everything = [c for layer in range(6) for c in [*(f"{layer}.{h}" for h in range(8)), f"m{layer}"]]
    assert task.ablate(everything).percent == pytest.approx(task.keep().percent)


def test_another_kind_of_ablation_is_that_of_its_name(opened):
    """Zero ablation by the plain definition: the head's z is 0 in the whole model, run by transformers with a hook."""
    from transformers import AutoModelForCausalLM

    task = opened["numerals"]
    found = task.ablate("1.4", kind="zero", split="search")
    model = AutoModelForCausalLM.from_pretrained(SHIPPED).eval()
    rows = task.prompts
    rows = rows[rows.kept & (rows.split == "search")]

    def without(module, given):
        z = given[0].clone()
        z[..., 4 * 16 : 5 * 16] = 0
        return (z,)

    import torch

    model.transformer.h[1].attn.c_proj.register_forward_pre_hook(without)
    with torch.no_grad():
        logits = model(torch.tensor(np.stack(rows.tokens))).logits[:, -1].double()
    at = torch.arange(len(rows))
    wanted = logits[at, torch.tensor(rows.answer_token.values)] - logits[at, torch.tensor(rows.incorrect_token.values)]
    np.testing.assert_allclose(found.per_prompt.left, wanted, atol=1e-4)  # float32 in another order of sums
    assert "replaced by: zero" in found.about


def test_means_by_answer_are_those_of_the_prompts(opened):
    found = opened["numerals"].ablate("1.4")
    by = found.by("answer").set_index("answer")
    for answer, rows in found.per_prompt.groupby("answer"):
        assert by.lost[answer] == pytest.approx(rows.lost.mean()) and by.prompts[answer] == len(rows)
    assert by.prompts.sum() == len(found.per_prompt)


def test_the_lines_that_open_a_study_do(study, monkeypatch):
    """As the README has them; the small study has other tasks."""
    (lines,) = (block.text for block in documented.blocks() if (block.page, block.language) == ("README.md", "python"))
    assert len(lines.strip().splitlines()) == 4, "an import, and three lines with the blank one"
    monkeypatch.chdir(study.folder)
    lines = lines.replace("months", "numerals")
    *statements, last = lines.strip().splitlines()
    names = {}
    exec("\n".join(statements), names)
    assert eval(last, names).title == "numerals, without 1.4 and 4.3"


def test_what_the_documents_name_is_there(opened):
    page = (ROOT / "docs" / "usage.md").read_text()
    table = re.search(r"^\| of a study .*?\n\n", page, re.MULTILINE | re.DOTALL)[0].strip().splitlines()[2:]
    assert len(table) == 8
    for line in table:
        of_study, of_task = line.split("|")[1:3]
        for owner, names in ((opened, of_study), (opened["numerals"], of_task)):
            assert all(hasattr(owner, name) for name in re.findall(r"`(\w+)", names)), line
    found = opened["numerals"].ablate("1.4")
    assert all(len(estimate) == 3 for estimate in (found.percent, found.logit_diff, found.first))


# ---- what is shown -------------------------------------------------------------------------------------------
def test_objects_show_themselves_as_html_with_the_numbers_of_the_tables(opened):
    numerals = opened["numerals"]
    kept = pick(opened.table("comparison/cross"), circuit="numerals", task="numerals", metric="percent_of_full")
    said = f"{kept.value:.1f} % [{kept.ci_low:.1f}, {kept.ci_high:.1f}]"
    for shown in (opened, numerals, numerals.circuit, numerals.keep(numerals.circuit)):
        markup = shown._repr_html_()
        assert type(markup) is str and said in plain(markup), shown
        assert markup.count("<div>") == markup.count("</div>") and "nan" not in markup
    below = "not above the floor of 80 %"
    assert [below in opened[task].circuit._repr_html_() for task in MAIN] == [opened[t].kept.value <= 80 for t in MAIN]
    picture = numerals.circuit.picture()
    assert picture.count('fill="currentColor" stroke') == len(numerals.circuit) and picture.count("<rect") == 6 * 9
    assert "not searched" in opened._repr_html_() and "days" in repr(opened)


def test_texts_of_a_task_are_escaped(opened):
    from atlas.study import html

    assert html.frame(pd.DataFrame({"text": ["<b>\n"]})).count("&lt;b&gt;\\n") == 1
    assert "<script" not in html.block("<script>", ["<script>"])


# ---- what is refused -----------------------------------------------------------------------------------------
def refused(call) -> str:
    with pytest.raises(StudyError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_not_there_is_refused_in_one_line_that_says_what_is(opened):
    task = opened["numerals"]
    assert "has no task 'weeks'; there are numerals, number_words and days" in refused(lambda: opened["weeks"])
    assert "tables are attention, " in refused(lambda: task.table("effects"))
    assert "no figure 'ov' of ladder-6x8.numerals; there are circuit_diagram" in refused(lambda: task.figure("ov"))
    assert "no circuit was searched for it" in refused(lambda: opened["days"].circuit)
    assert "no component 6.0; 6 layers of 8 heads" in refused(lambda: task.ablate("6.0"))
    assert "no component 1.4@last" in refused(lambda: task.ablate("1.4@last"))
    assert "'head 3' is no component" in refused(lambda: task.keep("head 3"))
    assert "'none' is no kind of ablation; there are mean" in refused(lambda: task.ablate("1.4", kind="none"))
    assert "there are held_out and search" in refused(lambda: task.ablate("1.4", split="test"))


def test_a_folder_without_a_finished_study_is_refused(study, tmp_path):
    assert "called `results`" in refused(lambda: open_study(tmp_path / "mine"))
    empty = tmp_path / "results"
    assert "holds no study; run `snakemake" in refused(lambda: open_study(empty))
    shutil.copytree(study.folder / "results" / MODEL, empty / MODEL, ignore=shutil.ignore_patterns("*.pt"))
    assert "holds no study of 'gpt2'; there are ladder-6x8" in refused(lambda: open_study(empty, model="gpt2"))
    assert "means.pt: missing; ablating needs it" in refused(lambda: open_study(empty)["numerals"].ablate("1.4"))
    shutil.copytree(empty / MODEL, empty / "other")
    assert "holds studies of ladder-6x8 and other; say which" in refused(lambda: open_study(empty))
    (empty / MODEL / "comparison" / "circuits.json").unlink()
    assert "run the study of ladder-6x8 to its end first" in refused(lambda: open_study(empty, model=MODEL))


def test_a_damaged_table_is_named(study, tmp_path):
    shutil.copytree(
        study.folder / "results" / MODEL, tmp_path / "results" / MODEL, ignore=shutil.ignore_patterns("*.pt")
    )
    file = tmp_path / "results" / MODEL / "numerals" / "trace.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    task = open_study(tmp_path / "results")["numerals"]
    assert "trace.parquet: damaged" in refused(lambda: task.table("trace"))


def test_another_checkpoint_than_the_studys_is_refused(study, tmp_path):
    """One whose weights changed by a byte; and a folder without any."""
    results = study.folder / "results"
    other = shutil.copytree(SHIPPED, tmp_path / "other")
    assert open_study(results, checkpoint=other)["numerals"].ablate().percent[0] == pytest.approx(100)
    content = bytearray((other / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (other / "model.safetensors").write_bytes(content)
    said = refused(lambda: open_study(results, checkpoint=other)["numerals"].ablate("1.4"))
    assert "holds another model than the study ran; its weights differ" in said
    said = refused(lambda: open_study(results, checkpoint=tmp_path)["numerals"].ablate("1.4"))
    assert "holds no checkpoint; give its folder" in said


def test_nothing_is_written(study, opened):
    """Not even the memo of scores, which jobs of the study share."""
    before = {f: f.stat().st_mtime_ns for f in (study.folder / "results").rglob("*")}
    opened["number_words"].ablate("2.2", "m3")
    assert {f: f.stat().st_mtime_ns for f in (study.folder / "results").rglob("*")} == before
