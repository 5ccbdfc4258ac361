"""A study on a table of prompts of several layouts, from its file to circuits, edges, positions and patching."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import torch

import indirect_objects
from atlas.circuit.task_data import TaskData
from atlas.core.errors import StudyError
from atlas.heads import traces
from atlas.prompts import rejections
from atlas.prompts.words import tokens_in_text
from atlas.store import tensors
from conftest import load_tokenizer
from study import Study

pytestmark = pytest.mark.slow

POOL = ["Ada", "Ben", "Dan", "Elena", "Felix", "Grace", "Hugo", "Iris", "Jack", "Karen", "Liam", "Mia"]
POOL += ["Uwe", "Tom", "Bob", "Ezra", "Mary", "John", "Zeki"]  # of three and of four tokens on the shipped tokenizer
TABLES = ("evaluation", "positions", "edge_areas", "patching", "lens", "stability")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Study:
    """Everything of one main task, a third of whose prompts has each length, on a random model of two layers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    root, tokenizer = tmp_path_factory.mktemp("layouts"), load_tokenizer("shipped")
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=16, n_positions=64, vocab_size=len(tokenizer), initializer_range=0.3
    )
    GPT2LMHeadModel(config).save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    study = Study(root / "study")
    study.config["models"]["ladder-6x8"]["path"] = str(root / "model")
    names: dict[int, list[str]] = {}
    for name, size in zip(POOL, tokens_in_text(tokenizer, POOL, "so "), strict=True):
        names.setdefault(size, []).append(name)
    table = indirect_objects.table(72, guest=True, names=names)
    table = pd.concat(
        [table, table.iloc[:1].assign(text="Ada met Ben. Ada met", corrupted_text="Dan met Mia. Dan met")]
    )
    table.to_csv(study.folder / "guests.csv", index=False)
    study.config["tasks"] = {"guests": {"file": {"clean": "guests.csv"}}}
    study.config["prompts"]["allow_negative_clean"] = True
    study.config["study"] |= {"tasks": ["guests"], "transfer_tasks": []}
    study.config["edges"]["methods"] = ["eap", "iterative_edges"]
    study.config["generation"]["prompts"] = {}
    study.config["search"]["never_test"] = ["0.0", "m0"]
    study.write_config(study.config)
    study.snakemake(*(f"results/ladder-6x8/guests/{name}.parquet" for name in TABLES), "results/ladder-6x8/atlas.html")
    return study


@pytest.fixture(scope="module")
def folder(finished):
    return finished.folder / "results" / "ladder-6x8" / "guests"


def test_every_prompt_but_that_of_a_layout_of_its_own_is_used(folder):
    info = json.loads((folder / "prompts.json").read_text())
    prompts = pd.read_parquet(folder / "prompts.parquet")
    assert info["counts"]["read"] == 73 and info["counts"]["rejected"] == {rejections.FEW_OF_LAYOUT: 1}
    assert info["counts"]["prompts"] == len(prompts) == 72
    assert [layout["prompts"] for layout in info["layouts"]] == [24, 24, 24]
    for layout, rows in prompts.groupby("layout"):
        assert set(rows.tokens.map(len)) == {info["layouts"][layout]["tokens"]}
    shown = pd.read_parquet(folder / "tokens.parquet")
    assert shown.prompt.map(prompts.set_index("prompt").layout).nunique() == 3


def test_means_are_of_each_layout(folder):
    prompts, means = pd.read_parquet(folder / "prompts.parquet"), tensors.read(folder / "means.pt")
    cache = tensors.read(folder / "activations.pt")
    assert means["groups"] == ["all", "all, layout 1", "all, layout 2"]
    layout = prompts.set_index("prompt").layout[cache["prompt"].tolist()].to_numpy()
    for group, length in enumerate(means["lengths"].tolist()):
        rows = torch.tensor((layout == group).nonzero()[0])
        by_hand = cache["corrupted"]["z"][:, rows].double().mean(1)[:, :length]
        assert (means["corrupted"]["z"][:, group, :length] - by_hand).abs().max() < 1e-6, "stored in float32"


def test_searches_use_all_prompts_and_heads_are_explained_on_one_layout(folder):
    info = json.loads((folder / "prompts.json").read_text())
    prompts, first = pd.read_parquet(folder / "prompts.parquet"), info["layouts"][0]
    scores = pd.read_parquet(folder / "clean.parquet")
    assert set(scores.prompt) == set(prompts.prompt) and scores.kept.all()
    assert pd.read_parquet(folder / "patching.parquet").position.max() == first["tokens"] - 1
    held_out = prompts[(prompts.split == "held_out") & (prompts.layout == 0)]
    assert set(pd.read_parquet(folder / "lens_lead.parquet").prompt) == set(held_out.prompt)
    assert set(pd.read_parquet(folder / "positions.parquet").role) == {"separators", "last"}
    assert "bootstrap" in set(pd.read_parquet(folder / "stability.parquet").family)


def test_prompts_of_every_layout_are_on_the_atlas_page(finished, folder):
    """Each with attention over its own positions: that of the Hugging Face model, in eight bits."""
    from transformers import GPT2LMHeadModel

    page = (folder.parent / "atlas.html").read_text()
    (task,) = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])["models"][0]["tasks"]
    frame = pd.read_parquet(folder / "prompts.parquet").set_index("prompt")
    path = finished.config["models"]["ladder-6x8"]["path"]
    network = GPT2LMHeadModel.from_pretrained(path, attn_implementation="eager")
    assert {frame.layout[prompt["prompt"]] for prompt in task["prompts"]} == {0, 1, 2}
    for prompt in task["prompts"]:
        tokens = frame.tokens[prompt["prompt"]].tolist()
        found = traces.unpacked(prompt["attention"]["bits"], len(tokens))
        with torch.no_grad():
            seen = network(torch.tensor([tokens]), output_attentions=True).attentions
        for weights, number in zip(found, prompt["attention"]["heads"], strict=True):
            layer, head = divmod(number, 3)
            assert abs(weights - seen[layer][0, head].numpy()).max() < 0.5 / 255 + 1e-5
        assert len(prompt["roles"]) == len(prompt["tokens"]) == len(tokens)


def test_what_needs_one_layout_is_refused_in_one_line(finished, folder):
    paths = {name: folder / f"{name}.parquet" for name in ("prompts", "clean")} | {"means": folder / "means.pt"}
    paths["model"] = finished.folder / "results/ladder-6x8/model.json"
    model_folder = Path(finished.config["models"]["ladder-6x8"]["path"])
    run = {"device": "cpu", "dtype": "float32", "batch_size": 16}
    identity = {"model": "ladder-6x8", "task": "guests"}
    data = TaskData(paths, identity, model_folder, run, legacy_mlp_means=True)
    with pytest.raises(StudyError, match=r"tasks.guests have several; set its file.min_layout above 72"):
        data.ablator("search")
