"""What a model does on the prompts of a task, unharmed, and whether circuits can be searched on that."""

import numpy as np
import pandas as pd

from atlas.core.errors import StudyError

SIDES = {"search": "prompts to search on", "held_out": "held-out prompts"}  # of the split, and what they are called


def with_scores(prompts: pd.DataFrame, clean: pd.DataFrame) -> pd.DataFrame:
    """prompts.parquet with what clean.parquet says of each prompt.

    New columns: ``kept`` (passed the filter), and every metric, of clean prompts under its own name (``logit_diff``),
    of corrupted ones after ``corrupted_``; ``probability`` is that of the whole answer.
    """
    kept = clean.drop_duplicates("prompt").set_index("prompt")["kept"]
    found = prompts.assign(kept=prompts["prompt"].map(kept).astype(bool))
    for (run, metric), rows in clean.groupby(["run", "metric"]):
        name = metric if run == "clean" else f"{run}_{metric}"
        found[name] = found["prompt"].map(rows.set_index("prompt")["value"])
    return found.assign(probability=np.exp(found["log_prob"]))


def kept_prompts(prompts: pd.DataFrame, clean: pd.DataFrame, split: str | None = None) -> pd.DataFrame:
    """Prompts of a split that passed the filter, in order of ``prompt``; of all splits when ``split`` is None.

    prompts, clean: `prompts.parquet` and `clean.parquet` of one model and task.
    """
    kept = prompts[prompts["prompt"].isin(set(clean["prompt"][clean["kept"]]))]
    if split is not None:
        kept = kept[kept["split"] == split]
    return kept.sort_values("prompt", ignore_index=True)


def report_split(prompts: pd.DataFrame, clean: pd.DataFrame) -> str:
    """The split that results are reported on: held_out, or search in a study that holds nothing out.

    Raises StudyError where prompts are held out, but none of them passed the filter.
    """
    if not (prompts["split"] == "held_out").any():
        return "search"
    said = emptied(prompts.merge(clean[["prompt", "kept"]].drop_duplicates(), on="prompt"))
    if said:
        raise StudyError(f"tasks.{prompts['task'].iloc[0]}: {said}")
    return "held_out"


def emptied(prompts: pd.DataFrame) -> str | None:
    """The refusal of a filter that keeps no prompt of a side; ``prompts`` has ``split`` and ``kept``."""
    for split, named in SIDES.items():
        side = prompts["split"] == split
        if side.any() and not prompts["kept"][side].any():
            return f"the filter keeps none of the {side.sum()} {named}; relax prompts.filter, or give more prompts"
    return None


def refusal(prompts: pd.DataFrame, groups: str, allow_negative_clean: bool) -> str | None:
    """Why a study cannot go on with a task, in one line with its remedy; None where it can.

    ``prompts`` as of `with_scores`; ``groups``: over which prompts means run (`ablation.groups`).
    """
    said = emptied(prompts)
    if said:
        return said
    if not (prompts["split"] == "search").any():
        return "there are no prompts to search on; lower held_out_share or make more prompts"
    kept = prompts[prompts["kept"]]
    for split, named in SIDES.items():
        side = kept[kept["split"] == split]
        mean = side["logit_diff"].mean()
        if mean <= 0 and not allow_negative_clean:
            return (
                f"the model's clean logit difference on the {len(side)} {named} is {mean:.3f}, not positive: it does "
                "not do this task, and percent of full means nothing; choose other prompts or another model, or set "
                "allow_negative_clean: true"
            )
    search = kept[kept["split"] == "search"]
    if groups == "template" and set(search["template"]) < set(prompts["template"]):
        return "the filter keeps no search prompt of some template; use ablation.groups: all"
    return None
