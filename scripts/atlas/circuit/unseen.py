"""Do circuits suffice, and are they needed, on sequences and in wordings that no search saw? (methods: doubts)

Four cells: sequences searched or held out, in the task's own wordings or in new ones (`stability.templates`). What
stands in a cell of new wordings has their own means, which run over sequences that were searched on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from atlas.circuit import cross
from atlas.circuit.ablation import Ablator
from atlas.circuit.cells import NEW, SEARCHED, UNASKED
from atlas.circuit.legacy import LegacyAblator
from atlas.core.components import Circuit
from atlas.core.statistics import Bootstrap
from atlas.prompts import generator, splits

if TYPE_CHECKING:
    from atlas.circuit.remade import Maker
    from atlas.circuit.task_data import TaskData


def new_sequences(data: TaskData, block: Mapping[str, Any]) -> bool:
    """Whether held-out prompts show sequences that were not searched on: else they are new prompts of known ones."""
    rows = [{str(key): value for key, value in row.items()} for row in data.every_prompt.to_dict("records")]
    return splits.chosen_for(rows, block["hold_out"], block["held_out_share"]) == "sequences"


def cells(
    data: TaskData, maker: Maker, wordings: Sequence[list[str]], per_template: int
) -> Iterator[tuple[dict[str, str], Ablator]]:
    """Each cell with an ablator of its prompts; the last ones are the newest.

    wordings: lists of templates; per_template: prompts of each, at most. A task whose prompts have no other wordings,
    and a list that it has itself, give none; without a held-out split there are no new sequences.
    """
    held = data.report_split if new_sequences(data, maker.block) else ""
    names = {"search": SEARCHED} | ({held: NEW} if held else {})
    for split, sequences in names.items():
        yield {"sequences": sequences, "wordings": SEARCHED, "wording": ""}, data.ablator(split)
    if "templates" not in generator.of(maker.block).varies:
        return
    for templates in wordings:
        if templates == maker.block["templates"]:
            continue
        text = " | ".join(templates)
        changed = {"templates": templates, "per_template": min(per_template, maker.block["per_template"])}
        searched = maker.dataset("templates", text, changed)
        for split, sequences in names.items():
            made = searched if split == "search" else maker.dataset("templates", text, changed, split)
            cell, of = {"sequences": sequences, "wordings": NEW, "wording": text}, (made.prompts, made.substitute)
            if data.legacy_mlp_means:
                yield cell, LegacyAblator(data.model, *of, searched.prompts)
            else:
                yield cell, Ablator(data.model, *of)


def rows_of(
    found: Iterator[tuple[dict[str, str], Ablator]],
    circuits: Mapping[str, Circuit],
    questions: Sequence[tuple[str, str]],
    controls: int,
    seed: int,
    bootstrap: Bootstrap,
) -> list[dict[str, Any]]:
    """Rows of `unseen_controls` (COLUMNS): as `cross.control_rows` in every cell, with random sets in new wordings on
    new sequences (or, where no sequence is new, in new wordings) alone."""
    rows = []
    made = list(found)
    newest = max((cell["wordings"] == NEW, cell["sequences"] == NEW) for cell, _ in made)
    for cell, ablator in made:
        is_newest = newest[0] and (cell["wordings"] == NEW, cell["sequences"] == NEW) == newest
        count = controls if is_newest else 0
        drawn, notes = cross.control_rows(ablator, circuits, questions, count, seed, bootstrap)
        said = {(note["question"], note["circuit"]): note["note"] if count else UNASKED for note in notes}
        more = {"prompts": len(ablator.prompts)}
        rows += [cell | row | more | {"note": said[row["question"], row["circuit"]]} for row in drawn]
    return rows
