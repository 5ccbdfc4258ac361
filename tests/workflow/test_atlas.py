"""The atlas page of a finished study: its numbers are those of the tables, its attention that of the checkpoint."""

import copy
import json
import random
import re

import numpy as np
import pandas as pd
import pytest

from atlas.heads import traces
from study import Study

MODEL = "ladder-6x8"
LAYERS, HEADS = 6, 8
ROUNDED = {"rel": 5.1e-4, "abs": 1e-12}  # four significant digits
SAMPLE = 40  # of each kind of number


def data_of(path) -> dict:
    """What the page holds."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    return json.loads(found)


@pytest.fixture(scope="module")
def data(study):
    return data_of(study.folder / "results" / MODEL / "atlas.html")


@pytest.fixture(scope="module")
def folder(study):
    return study.folder / "results" / MODEL


def number(component: str) -> int:
    return int(component[1:]) * (HEADS + 1) + HEADS if component[0] == "m" else _head(component)


def _head(component: str) -> int:
    layer, head = map(int, component.split("."))
    return layer * (HEADS + 1) + head


def rows_of(table: pd.DataFrame) -> list[dict]:
    """Some rows of a table, by a fixed seed."""
    return table.sample(min(SAMPLE, len(table)), random_state=0).to_dict("records")


def test_the_page_is_one_small_offline_file(study, data):
    page = study.folder / "results" / MODEL / "atlas.html"
    assert page.stat().st_size < 3e6
    text = page.read_text()
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", text) and "@import" not in text
    assert (data["version"], [m["name"] for m in data["models"]], data["between"]) == (1, [MODEL], [])
    assert [t["name"] for t in data["models"][0]["tasks"]] == ["numerals", "number_words", "days"]


def test_numbers_are_those_of_the_tables(data, folder):
    (model,) = data["models"]
    for task in model["tasks"]:
        own = folder / task["name"]
        attribution = pd.read_parquet(own / "attribution.parquet")
        components = attribution[(attribution.part == "head") & attribution.name.str.fullmatch(r"m?\d+(\.\d+)?")]
        for row in rows_of(components):
            assert task["attribution"]["value"][number(row["name"])] == pytest.approx(row["value"], **ROUNDED)
        summary = pd.read_parquet(own / "clean_summary.parquet")
        full = summary[(summary.run == "clean") & (summary.metric == "logit_diff") & (summary.split == "held_out")]
        assert task["full"] == pytest.approx(full[["value", "ci_low", "ci_high"]].iloc[0].tolist(), **ROUNDED)
        if not task["main"]:
            assert task["circuits"] is task["effects"] is None
            continue
        effects = pd.read_parquet(own / "component_effects.parquet")
        for row in rows_of(effects[effects.metric == "percent_of_full"]):
            found = task["effects"][row["kind"]]
            for key, column in (("value", "value"), ("low", "ci_low"), ("high", "ci_high")):
                assert found[key][number(row["component"])] == pytest.approx(row[column], **ROUNDED)
        scores = pd.read_parquet(own / "edge_scores.parquet").set_index(["method", "sender", "receiver"]).value
        edges = task["edges"]
        for i in random.Random(0).sample(range(len(edges["value"])), SAMPLE):
            names = {-1: "embed", -2: "logits"} | {number(c): c for c in components.name}
            port = f".{edges['port'][i]}" if edges["port"][i] else ""
            key = "eap_ig", names[edges["sender"][i]], names[edges["receiver"][i]] + port
            assert edges["value"][i] == pytest.approx(scores[key], **ROUNDED)
        (reported,) = json.loads((own / "chosen.json").read_text())["circuits"]
        (circuit,) = (c for c in task["circuits"] if c["reported"])
        assert circuit["members"] == sorted(map(number, reported["heads"] + reported["mlps"]))
        assert circuit["percent"][0] == pytest.approx(reported["percent_of_full"], abs=0.01)


def test_single_ablations_are_those_of_the_prompt(data, folder):
    (model,) = data["models"]
    for task in (task for task in model["tasks"] if task["main"]):
        scores = pd.read_parquet(folder / task["name"] / "component_scores.parquet")
        scores = scores[scores.metric == "logit_diff"]
        prompts = {prompt["prompt"]: prompt for prompt in task["prompts"]}
        for row in rows_of(scores[scores.prompt.isin(list(prompts))]):
            found = prompts[row["prompt"]]["ablated"][row["kind"]]
            assert len(found) == LAYERS * (HEADS + 1)
            assert found[number(row["component"])] == pytest.approx(row["value"], **ROUNDED)


def test_what_is_written_sums_to_the_logit_difference(data, folder):
    """Up to the rounding of each of the numbers."""
    (model,) = data["models"]
    for task in model["tasks"]:
        clean = pd.read_parquet(folder / task["name"] / "clean.parquet")
        clean = clean[(clean.run == "clean") & (clean.metric == "logit_diff")].set_index("prompt").value
        for prompt in task["prompts"]:
            parts = [*prompt["attribution"], *(value for _, value in prompt["rest"])]
            allowed = 5.1e-4 * sum(map(abs, parts)) + 1e-4
            assert sum(parts) == pytest.approx(clean[prompt["prompt"]], abs=allowed)
            assert prompt["lens"]["value"][-1] == pytest.approx(clean[prompt["prompt"]], rel=1e-3, abs=1e-3)
            assert prompt["lens"]["top"][-1][0] == prompt["top"][0][0]


def test_attention_is_that_of_the_hugging_face_model(study, data, folder):
    """Of every head that the page has on one prompt of each task; eight bits, so 0.5 / 255 off at most."""
    import torch
    import transformers

    network = transformers.AutoModelForCausalLM.from_pretrained(study.model, attn_implementation="eager")
    circuits = json.loads((folder / "comparison" / "circuits.json").read_text())["circuits"].values()
    for task in data["models"][0]["tasks"]:
        frame = pd.read_parquet(folder / task["name"] / "prompts.parquet").set_index("prompt")
        prompt = task["prompts"][-1]
        with torch.no_grad():
            seen = network(torch.tensor([frame.tokens[prompt["prompt"]].tolist()]), output_attentions=True).attentions
        found = traces.unpacked(prompt["attention"]["bits"], len(prompt["tokens"]))
        assert {_head(head) for circuit in circuits for head in circuit["heads"]} <= set(prompt["attention"]["heads"])
        for weights, id_ in zip(found, prompt["attention"]["heads"], strict=True):
            layer, head = divmod(id_, HEADS + 1)
            assert np.abs(weights - seen[layer][0, head].numpy()).max() < 0.5 / 255 + 1e-5
        assert "".join(prompt["tokens"]).strip() == frame.text[prompt["prompt"]].strip()


@pytest.mark.slow
def test_a_page_has_room_for_what_it_is_told(study):
    """Too small a room ends the job with one line; a page at the limit is within it, and says what it lacks."""
    page = study.folder / "results" / MODEL / "atlas.html"
    before, size = page.read_bytes(), page.stat().st_size
    changed = copy.deepcopy(study.config)
    try:
        for megabytes, fits in ((0.9 * size / 1e6, True), (0.1, False)):
            changed["atlas"]["megabytes"] = round(megabytes, 3)
            study.write_config(changed)
            done = study.snakemake(str(page.relative_to(study.folder)), check=False)
            if fits:
                assert done.returncode == 0 and page.stat().st_size <= 1e6 * round(megabytes, 3)
                assert data_of(page)["note"][-1].startswith("To keep the page small, it holds at most")
            else:
                text = done.stdout + done.stderr
                assert done.returncode and "error: atlas.megabytes: the data of" in text and "raise it" in text
    finally:
        study.write_config(study.config)
        study.snakemake(str(page.relative_to(study.folder)))
        study.snakemake("--touch")
    assert page.read_bytes() == before


@pytest.mark.slow
def test_the_same_study_gives_the_same_bytes(study):
    files = [f"results/{MODEL}/atlas.html", *(f"results/{MODEL}/{task}/traces.json" for task in ("numerals", "days"))]
    before = {name: (study.folder / name).read_bytes() for name in files}
    study.snakemake("--force", *files)
    assert {name: (study.folder / name).read_bytes() for name in files} == before
    study.snakemake("--touch")


@pytest.mark.slow
def test_two_models_have_a_page_each_and_one_together(study, tmp_path):
    """The second is the first under another name, of a study without heads and edges."""
    changed = copy.deepcopy(study.config)
    changed["models"]["again"] = changed["models"][MODEL]
    changed["study"] = {"title": "Two", "models": [MODEL, "again"], "tasks": ["numerals"], "transfer_tasks": []}
    changed["heads"]["analyses"], changed["edges"]["methods"] = [], []
    copied = Study(tmp_path / "two")
    copied.write_config(changed)
    copied.snakemake("results/atlas.html", "results/again/atlas.html")
    both = data_of(copied.folder / "results" / "atlas.html")
    single = data_of(copied.folder / "results" / "again" / "atlas.html")
    assert [model["name"] for model in both["models"]] == [MODEL, "again"]
    first, second = both["models"]
    assert first["tasks"] == second["tasks"] == single["models"][0]["tasks"]
    for row in both["between"]:
        assert {row["a"], row["b"]} == {MODEL, "again"} and row["jaccard"] == 1 and row["task"] == "numerals"
    (task,) = second["tasks"]
    assert task["edges"] is task["attribution"] is None and task["roles"] == [] and task["tokens"] == {}
    assert task["prompts"][0]["top"] and "attention" not in task["prompts"][0]
    assert "again: Edges are left out." in both["note"]
