"""The data of a task from its files: what is put together, that files are read once, and what is remembered on disk."""

import pytest
import torch

from atlas.circuit.legacy import LegacyAblator
from atlas.circuit.replacement import replacement
from atlas.core.errors import StudyError
from atlas.edges.task_data import edge_ablator
from atlas.model import activations
from atlas.prompts.batch import Prompts
from atlas.proof import exact
from atlas.store import artifacts, tensors
from planted_tasks import PlantedTask

KINDS = ("mean", "zero", "resample", "mean_clean")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return PlantedTask(exact.leak("gpt2"), tmp_path_factory.mktemp("task"))


def rows_of(task, split):
    return task.frame[task.frame.split == split].reset_index(drop=True)


def test_splits_are_the_prompts_of_the_table_and_the_held_out_one_is_reported(task):
    data = task.data()
    assert data.report_split == "held_out" and data.task == "t"
    for split in ("search", "held_out"):
        expected = rows_of(task, split)
        assert data.prompts(split).prompt == expected.prompt.tolist()
        assert data.prompts(split).tokens.tolist() == expected.tokens.tolist()
    assert data.prompts("search") is data.prompts("search"), "made once"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["search", "held_out"])
def test_what_replaces_components_is_of_the_search_split_or_of_the_prompts_own_run(task, kind, split):
    """Means over the search prompts, by forward passes made here; activations of other prompts than were cached."""
    data = task.data(kind=kind)
    found, search = data.substitute(split), Prompts.from_frame(rows_of(task, "search"))
    runs = {"clean": search.tokens, "corrupted": search.corrupted_tokens}
    means = {run: activations.collect(data.model, tokens)[1] for run, tokens in runs.items()} | {"groups": ["all"]}
    expected = replacement(kind, data.model, Prompts.from_frame(rows_of(task, split)), means)
    for name in ("z", "mlp_out"):
        ours, theirs = (getattr(x, name)[:, x.rows] for x in (found, expected))
        assert (ours - theirs).abs().max() < 1e-6, name


def test_scores_are_those_of_the_planted_circuit(task):
    data, whole = task.data(), 100
    ablator = data.ablator("held_out", ("logit_diff", "top1"))
    assert ablator.percent_of_full(task.fixture.nodes["mean"]) == pytest.approx(whole, abs=1e-3)
    assert set(ablator.scores(ablator.everything)) == {"logit_diff", "top1"}
    edges = edge_ablator(data, "held_out")
    truth = task.fixture.named(task.fixture.edges["mean"], edges.graph)
    assert edges.percent_of_full(truth) == pytest.approx(whole, abs=1e-3)


def test_every_file_is_read_once(task, monkeypatch):
    read = []

    def counted(reader):
        def wrapper(path):
            read.append(path)
            return reader(path)

        return wrapper

    for module, name in ((artifacts, "read_table"), (artifacts, "read_json"), (tensors, "read")):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    data = task.data(kind="resample")
    for split in ("search", "held_out"):
        for _ in range(2):
            data.ablator(split)
            edge_ablator(data, split)
    assert sorted(map(str, read)) == sorted(map(str, task.paths().values()))
    read.clear()
    task.data(kind="mean").ablator("held_out")
    assert task.paths()["activations"] not in read, "large, and read for `resample` alone"


def test_scores_on_disk_are_found_by_another_job_that_asks_for_the_same_and_by_no_other(task, tmp_path):
    circuit = task.fixture.nodes["mean"]
    first = task.data(memo_folder=tmp_path).ablator("search")
    expected = first.logit_diff(circuit)
    again = task.data(memo_folder=tmp_path).ablator("search")
    assert (again.logit_diff(circuit) == expected).all() and (first.evaluations, again.evaluations) == (1, 0)
    for settings, split in (({"kind": "zero"}, "search"), ({}, "held_out"), ({"legacy_mlp_means": True}, "search")):
        other = task.data(memo_folder=tmp_path, **settings).ablator(split)
        other.logit_diff(circuit)
        assert other.evaluations == 1, settings


def test_means_of_published_code_need_the_mean(task):
    data = task.data(legacy_mlp_means=True)
    assert isinstance(data.ablator("search"), LegacyAblator)
    assert not isinstance(data.ablator("search", kind="mean"), LegacyAblator), "single ablations never use them"
    with pytest.raises(StudyError, match=r"legacy_mlp_means: true needs ablation.kind mean, not zero"):
        task.data(legacy_mlp_means=True, kind="zero").ablator("search")


def test_components_can_be_kept_at_the_roles_of_a_layout(task):
    slots = len(task.frame.tokens.iloc[0])
    roles = [{"first": [0], "rest": list(range(1, slots))}]
    ablator = task.data().ablator("search", roles=roles)
    assert {name: mask.shape for name, mask in ablator.prompts.roles.items()} == {
        "first": (1, slots),
        "rest": (1, slots),
    }
    assert torch.equal(ablator.prompts.roles["first"][0], torch.arange(slots) == 0)
