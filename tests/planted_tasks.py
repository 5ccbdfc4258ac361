"""A planted model with the files that the stages before a search leave of its task, for tests of what reads them."""

from pathlib import Path

import pandas as pd
import torch

from atlas.circuit import clean, remade, stability
from atlas.circuit.chosen import OWN_RUN
from atlas.circuit.search import Rule
from atlas.circuit.task_data import TaskData
from atlas.model import activations, source
from atlas.store import artifacts, tensors

RUN = {"device": "cpu", "dtype": "float32", "batch_size": 64}


class PlantedTask:
    """The files of the task `t` of the model `m`, whose circuit is planted; every other round is held out."""

    def __init__(self, fixture, folder: Path) -> None:
        self.fixture, self.root = fixture, folder / "results" / "m"
        self.checkpoint = fixture.build(folder / "checkpoint")
        self.frame = pd.DataFrame(fixture.rows()).assign(model="m", task="t", layout=0)
        turn = self.frame.prompt // self.frame.start.nunique()  # of which each has every member in every slot
        self.frame["split"] = (turn % 2 == 0).map({True: "search", False: "held_out"})
        artifacts.write_json(source.describe("m", self.checkpoint), self.root / "model.json", {})
        self.write_table(self.frame, "prompts")
        data = self.data()
        self.write_table(clean.score(data.model, self.frame, None, False), "clean")
        prompts, groups = clean.search_prompts(data.every_prompt, data.clean, "all", False)
        cached, means = clean.activations_and_means(data.model, prompts, groups, torch.float32, self.root / "t")
        for content, name in ((cached, "activations"), (means, "means")):
            tensors.write(content, self.root / "t" / f"{name}.pt", {})

    def write_table(self, table: pd.DataFrame, name: str) -> None:
        artifacts.write_table(table, self.root / "t" / f"{name}.parquet", artifacts.provenance({}))

    def paths(self) -> dict[str, Path]:
        found = {name: self.root / "t" / f"{name}.parquet" for name in ("prompts", "clean")}
        found |= {name: self.root / "t" / f"{name}.pt" for name in ("means", "activations")}
        return found | {"model": self.root / "model.json"}

    def data(self, **settings) -> TaskData:
        """As a job puts it together."""
        return TaskData(self.paths(), {"model": "m", "task": "t"}, self.checkpoint, RUN, **settings)


def stability_content(ablator, threshold: float, resamples: int) -> dict:
    """As `stability.json` of a planted model: its orders, and the order `layers` on resampled prompts."""
    cache, means = activations.collect(ablator.model, ablator.prompts.corrupted_tokens)
    cache = {"prompt": ablator.prompts.prompt, "corrupted": cache}
    means = {"groups": ["all"], "corrupted": means}
    others = remade.bootstraps(ablator.model, ablator.prompts, means, cache, "mean", resamples, 0)
    orders = {"layers": None, "ascending_effect": None, "random_0": 0, "bisect": None}
    own = remade.Dataset("", OWN_RUN, ablator.prompts, ablator.substitute)

    def search(order: str) -> stability.NodeSearch:
        return stability.NodeSearch("planted", order, orders[order], Rule(threshold))

    found = {order: search(order).circuit(ablator.model, own) for order in orders}
    runs, _ = stability.all_runs(ablator.model, own, others, found, search("layers"))
    return stability.to_json(runs, "component")
