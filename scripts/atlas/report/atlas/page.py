"""The atlas page: its data, and the one file that holds them with the app that draws them.

Numbers are rounded to four significant digits; null is what was not computed. C = n_layers x (n_heads + 1) components
are numbered layer x (n_heads + 1) + head, the MLP of a layer being head n_heads; lists of C are in that order. An
interval is a value with the ends of its 95 % bootstrap interval over prompts, [value, low, high] or three lists.

data:
- version, title, note: sentences on what was left out and what numbers are of; models: one, or all of the study;
  between: rows of `overlap` (below) with their task, of pairs of models.

A model: name, n_layers, n_heads, n_kv_heads, parallel, source (architecture), warning (sentences on its weights), kind
(of ablation, of searches), threshold, thresholds, orders, labels (label -> smallest score), detectors: name -> [C],
tasks, compare, order (null where the study makes nothing of it).

A task: name, words, main (was it searched?), metric, full: interval (logits), prompts_of: the prompts that the sampled
ones are of, several_tokens, and
- circuits: label (`reported` or an order), order, threshold, searched (threshold of the search that found it), members
  (numbers), dropped (numbers), split, percent: interval, reported (is it the one that is compared?);
- traces: order, threshold, steps: [numbers tried, percent of full without them, 1 where removed], from the full model;
- effects: kind -> value, low, high: percent of full with a component alone ablated, on the prompts searched on;
- attribution: value, low, high (logits, positive for the answer); patching: direction -> [C];
  ov: score -> value, low, high, baseline; share: [C] of the searches that keep it, class: [C], runs (searches);
- needed: [member, points of full lost without it, those lost without nearly any component outside once it is added,
  corrected p, state];
- roles: id, label, labels, evidence and null (words), differs; scores: name -> title, value, unit, about;
- positions: roles, and for each of them value, low, high (points of percent of full lost), kept;
- backup: [ablated, head, change of direct attribution, low, high, corrected p];
- tokens: number -> top, bottom: [token, logits] that it writes; tokens_about: a sentence on what these are;
- edges: method, total (edges of the model), scored, inside (edges of the reported circuit), left_out (sentence), and
  lists sender (-1 embeddings), receiver (-2 logits), port (q, k, v or nothing), value, low, high, circuit (1 inside),
  class (in the searches on other data);
  value: change of the logit difference by the edge's ablation, so negative where the edge helps; the strongest first.
  An input that heads share stands once for each of them;
- prompts: prompt, split, template, tokens, roles (of each token), answer, incorrect, corrupted (tokens), clean (logit
  difference), ablated: kind -> [C] (logit difference with it alone ablated), top: [token, logit], attribution: [C],
  rest: [name, value] of what else is written (all sum to the logit difference, before a cap of logits), lens: points,
  value, top (tokens of each point), attention: heads (numbers), bits (base64 of bytes; head by head, query by query the
  weights on keys up to the query, times 255).

Compare: overlap: a, b, level, sizes, shared, expected, p, p_holm, jaccard; cross: circuit, task, split, value, low,
high (percent of full); controls: question, circuit, task, value, low, high, median, control_low, control_high,
controls, p, p_holm, state, reason; shared: tasks, heads, mlps, expected, p, p_holm, share: [C],
sentence; doubts: sentence (or null), header, rows (in words): the tests of the circuits.

Order: classes: name, words; successors (or null): rows: class, target (unique within its class), with words and group,
about, centre (what chance gives), members (how many), value and p (corrected): [C], sure: numbers, random: median, high
(97.5 %), alone (or null: the score without a head): value, p; layouts: class, at (`member`, or `answer` and its task),
where (the same in words), members, joined: [number, number, 1 where neighbours in the class], points (layers passed; 0
is the embedding), best (point), coordinates: point by point of each member, explained: shares, point by point; shapes:
class, at, shape, words, title, about, points, and lists value, null_low, null_high, p (corrected); parts: name, title,
sentences, tables (title, header, rows, note, open), note.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atlas.report.atlas import compare
from atlas.report.atlas.fitting import fitted
from atlas.report.atlas.packing import DIGITS
from atlas.report.atlas.study import OfModel, Settings
from atlas.report.atlas.tables import Inputs
from atlas.store import artifacts

VERSION = 1
ROUNDED = f"Numbers are rounded to {DIGITS} significant digits; brackets hold 95 % bootstrap intervals over prompts."
MEGABYTE = 1e6
FOLDER = Path(__file__).parent
PARTS = {"style": "page.css", "script": "bundle.js"}  # marker of the template -> file


def data_of(inputs: Inputs, settings: Settings, between: str | None = None) -> dict[str, Any]:
    """What the page of these models holds. ``between``: the file of `models.parquet`, in a study of several."""
    found = [OfModel(name, inputs, settings) for name in inputs.models]
    models = [model.data() for model in found]
    note = [ROUNDED]
    for model, data in zip(found, models, strict=True):
        said = model.notes(data)
        note += [f"{model.name}: {sentence}" for sentence in said] if len(models) > 1 else said
    title = settings.title if len(models) > 1 else f"{settings.title}: {models[0]['name']}"
    rows = [] if between is None else compare.overlap(artifacts.read_table(between))
    return {"version": VERSION, "title": title, "note": note, "models": models, "between": rows}


def page(inputs: Inputs, settings: Settings, between: str | None = None) -> str:
    """The file, of at most ``settings.megabytes`` million bytes; raises StudyError where it cannot be made so small."""
    return assembled(data_of(inputs, settings, between), settings.megabytes)


def assembled(data: dict[str, Any], megabytes: float) -> str:
    """The same of data that were gathered before."""
    parts = {name: (FOLDER / file).read_text() for name, file in PARTS.items()}
    template = (FOLDER / "page.html").read_text()
    used = sum(len(part.encode()) for part in (template, *parts.values()))
    return filled(template, data["title"], fitted(data, megabytes * MEGABYTE - used), parts)


def filled(template: str, title: str, data: str, parts: Mapping[str, str]) -> str:
    """The template with its markers replaced, each of which stands in it once; raises ValueError where one does not."""
    whole = {"title": escaped(title), "data": data, **parts}
    for name in whole:
        if template.count(f"{{{name}}}") != 1:
            raise ValueError(f"page.html holds {{{name}}} {template.count(f'{{{name}}}')} times, not once")
    return re.sub(f"{{({'|'.join(whole)})}}", lambda marker: whole[marker[1]], template)


def escaped(text: str) -> str:
    """A text as HTML holds it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
