"""The atlas page within its size: what it leaves out first, and the sentence that says so."""

from __future__ import annotations

import base64
from typing import Any

from atlas.core.errors import StudyError
from atlas.report.atlas.packing import text
from atlas.report.wording import count

FEWEST = 8  # heads whose attention is kept while prompts are
SAID = "To keep the page small"  # how the sentence begins


def fitted(data: dict[str, Any], room: float) -> str:
    """JSON of the page's data, at most ``room`` bytes of it; what had to go is gone from ``data`` too, whose ``note``
    says so.

    Half of the heads lose their attention, those of least effect, until FEWEST are left; then half of the prompts go,
    until one of each task is left; then the steps of searches at other thresholds than the reported one. Raises
    StudyError where the rest is still too large.
    """
    note, written = list(data["note"]), text(data)
    while len(written.encode()) > room:
        if not smaller(data):
            needs = len(written.encode()) / 1e6
            raise StudyError(
                f"atlas.megabytes: the data of {data['title']} takes {needs:.1f} MB with one prompt of each task, and "
                f"the page has room for {room / 1e6:.1f}; raise it"
            )
        data["note"] = [*note, sentence(data)]
        written = text(data)
    return written


def smaller(data: dict[str, Any]) -> bool:
    """Take the next part away; False where there is none."""
    tasks = [(model, task) for model in data["models"] for task in model["tasks"]]
    prompts = [prompt for _, task in tasks for prompt in task["prompts"]]
    heads = max((len(prompt["attention"]["heads"]) for prompt in prompts if "attention" in prompt), default=0)
    if heads > FEWEST:
        for prompt in prompts:
            if "attention" in prompt:
                prompt["attention"] = first_heads(prompt["attention"], max(FEWEST, heads // 2), len(prompt["tokens"]))
        return True
    longest = max((len(task["prompts"]) for _, task in tasks), default=0)
    if longest > 1:
        for _, task in tasks:
            task["prompts"] = task["prompts"][: (longest + 1) // 2]
        return True
    found = False
    for model, task in tasks:
        every = task["traces"] or []
        task["traces"] = [search for search in every if search["threshold"] == model["threshold"]] or None
        found |= len(task["traces"] or []) < len(every)
    return found


def first_heads(attention: dict[str, Any], n: int, tokens: int) -> dict[str, Any]:
    """Attention of the first n heads of a prompt's."""
    size = tokens * (tokens + 1) // 2
    bits = base64.b64encode(base64.b64decode(attention["bits"])[: n * size]).decode()
    return {"heads": attention["heads"][:n], "bits": bits}


def sentence(data: dict[str, Any]) -> str:
    """What is left of the parts that `smaller` takes from."""
    tasks = [(model, task) for model in data["models"] for task in model["tasks"]]
    prompts = [prompt for _, task in tasks for prompt in task["prompts"]]
    heads = max((len(prompt["attention"]["heads"]) for prompt in prompts if "attention" in prompt), default=0)
    longest = max((len(task["prompts"]) for _, task in tasks), default=0)
    said = f"{SAID}, it holds at most {count(longest, 'prompt')} of a task"
    said += f" and the attention of at most {heads} heads" if heads else ""
    thresholds = {model["name"]: len(model["thresholds"]) for model, _ in tasks}
    steps = {(m["name"], len({s["threshold"] for s in t["traces"]})) for m, t in tasks if t["traces"]}
    cut = any(n < thresholds[name] for name, n in steps)
    return f"{said}{', and the steps of searches at the reported threshold alone' if cut else ''} (atlas.megabytes)."
