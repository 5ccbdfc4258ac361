"""The atlas page of a study that has found one circuit so far: of one task, without what compares and explains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atlas.report.atlas import explained, searched
from atlas.report.atlas.page import ROUNDED, VERSION, assembled
from atlas.report.atlas.study import METRIC, OF_SEARCHES, OfModel, Settings
from atlas.report.atlas.tables import Inputs
from atlas.report.shown import MAIN
from atlas.report.wording import words

TO_COME = ("attribution", "patching", "ov", "backup")  # null, as where a study leaves them out


@dataclass(frozen=True)
class FirstLook(OfModel):
    """A model with the tables of one task alone (`tables.FIRST`)."""

    def compare(self) -> dict[str, Any]:
        """Nothing yet."""
        return {"overlap": [], "cross": [], "controls": [], "shared": None}

    def task(self, task: str) -> dict[str, Any]:
        """TASK of the page, with circuits, the steps of their searches, and each component ablated alone."""
        numbering, read = self.numbering, self.inputs.read
        found, chosen = (read(name, self.name, task) for name in ("circuits", "chosen"))
        tables = {name: self._table(name, task) for name in ("faithfulness", "choice")}
        return {
            "name": task,
            "words": words(task),
            "main": True,
            "metric": METRIC,
            "full": explained.full(self._table("clean_summary", task)),
            "prompts_of": read("info", self.name, task)["counts"]["prompts"],
            "several_tokens": "answer_tokens" in read("info", self.name, task)["layout"],
            **dict.fromkeys((*OF_SEARCHES, *TO_COME)),
            "circuits": searched.circuits(found, chosen, tables, numbering, self.settings.threshold),
            "traces": searched.traces(self._table("trace", task), numbering),
            "effects": searched.effects(self._table("component_effects", task), numbering),
            "roles": [],
            "tokens": {},
            "prompts": [],
        }


COME = (
    "Other tasks, random controls, searches on other prompts, edges, single prompts and what each head does come with "
    "the rest of the study. It goes on from here and computes nothing twice: run the same command without the word "
    "quick, then open atlas.html in the folder of this page."
)


def page(name: str, inputs: Inputs, settings: Settings) -> str:
    """The file of a model, as `page.page` makes it; ``inputs`` has `tables.FIRST` of the model and of one task."""
    found = FirstLook(name, inputs, settings)
    data, (task,) = found.data(), inputs.tasks[MAIN]
    said = f"This is a first look at {words(task)}, before the study is finished."
    warning = " ".join(part for part in (data["warning"], said) if part)
    whole = {"version": VERSION, "title": f"{settings.title}: {name}", "note": [ROUNDED, said, COME], "between": []}
    return assembled(whole | {"models": [data | {"warning": warning}]}, settings.megabytes)
