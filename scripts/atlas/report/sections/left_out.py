"""What the study leaves out: analyses, checks, and prompts."""

from typing import Any

import pandas as pd

from atlas.report.pages import Section
from atlas.report.sections.study import Study, led
from atlas.report.wording import count, listing, number, words

NAMES_OF = {"attribution": "direct attribution", "lens": "the logit lens", "attention": "attention patterns"}
NAMES_OF |= {"detectors": "head detectors", "ov": "what heads write (OV)", "backup": "backup heads"}


def analysis_findings(left_out: dict[str, str | None]) -> list[str]:
    """What the study does not ask of the model, and why it could not have: analysis -> reason, or None."""
    reasons: dict[str | None, list[str]] = {}
    for analysis, reason in left_out.items():
        reasons.setdefault(reason, []).append(NAMES_OF.get(analysis, analysis))
    if not reasons:
        return []
    parts = [
        f"{listing(names)}{f' (not to be had of this model: {why})' if why else ''}" for why, names in reasons.items()
    ]
    return [f"The configuration leaves out {'; '.join(parts)}."]


def unchecked_findings(model: dict[str, Any]) -> list[str]:
    """Where the model's logits were not held against transformers'."""
    skipped = model["compared"].get("skipped")
    return [f"The model was too large to hold its logits against transformers' in {skipped}."] if skipped else []


def prompt_findings(clean: pd.DataFrame, info: dict[str, dict[str, Any]], tasks: list[str]) -> list[str]:
    """Which prompts and fillers were left out."""
    sentences = []
    rejected = {t: info[t]["counts"]["rejected"] for t in tasks if sum(info[t]["counts"]["rejected"].values())}
    for task, reasons in rejected.items():
        why = listing(f"{n} for {words(reason)}" for reason, n in reasons.items() if n)
        sentences.append(f"{words(task).capitalize()}: {count(sum(reasons.values()), 'prompt')} rejected ({why}).")
    shares = clean.drop_duplicates("task").set_index("task")["share_kept"].reindex(tasks)
    filtered = [f"{number(100 * share, 1)} % of {words(task)}" for task, share in shares[shares < 1].items()]
    if filtered:
        sentences.append(f"The filter kept {listing(filtered)} prompts; circuits are searched and evaluated on those.")
    for task in tasks:
        counts = info[task]["counts"]
        if counts["duplicates"]:
            said = f"{count(counts['duplicates'], 'prompt')} repeat others, on the same side of the split"
            sentences.append(f"{words(task).capitalize()}: {said}.")
        if counts["undivided"]:
            said = f"{count(counts['undivided'], 'group')} of prompts could not be divided"
            sentences.append(f"{words(task).capitalize()}: {said}, and the search has all of each.")
    for task in tasks:
        slow = info[task].get("slow_tokenizer")
        if slow and slow["different"]:
            sentences.append(
                f"{words(task).capitalize()}: the fast tokenizer splits {slow['different']} of {slow['compared']} "
                "texts unlike the slow one beside it."
            )
    dropped: dict[str, set[str]] = {}
    for task in tasks:
        for kind, fillers in info[task]["dropped_fillers"].items():
            dropped.setdefault(kind, set()).update(fillers)
    for kind, fillers in dropped.items():
        if fillers:
            sentences.append(f"Not used as {kind}, since not one token of their own: {listing(sorted(fillers))}.")
    return sentences or ["No prompt was rejected, none was filtered out, and every filler could be used."]


def section(study: Study) -> Section:
    """Analyses and checks that were not made."""
    return Section(title="Left out", **led(analysis_findings(study.left_out) + unchecked_findings(study.model)))


def prompts(study: Study) -> Section:
    """Prompts and fillers that were not used."""
    said = prompt_findings(study.tables["clean"], study.info, study.tasks)
    return Section(title="Prompts left out", sentences=said)
