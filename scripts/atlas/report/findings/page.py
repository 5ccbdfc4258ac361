"""The page of findings, in Markdown: a section is a function of the models' results, and every number is read there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

from atlas.core.chance import tail
from atlas.report import wording
from atlas.report.findings import claims
from atlas.report.findings.reading import SHARED, Results, heads, reported, rows, source_of
from atlas.report.wording import interval, listing, number, p_value, words

Models = Sequence[Results]
HEAD = """# Findings

What {models} need to go on with a sequence of ordered members. `{command}` writes this page and its figures from
the tables of finished studies, so that no number here was typed. Brackets hold 95 % bootstrap intervals over prompts,
beside random sets the 2.5 and 97.5 percentiles of the sets; p-values of a table are corrected for its tests of one
model (Holm). Files are those below `results/` ([artifacts.md](artifacts.md)); what the numbers mean stands in
[methods.md](methods.md). Results are reported on prompts that the search never saw.
"""


def page(models: Models, command: str, figures: str) -> str:
    """The whole page; ``command``: what writes it. ``figures``: the folder of its figures, as the page links it."""
    head = HEAD.format(models=listing(f"`{results.model}`" for results in models), command=command)
    return "\n".join([head, *(section(models, figures) for section in SECTIONS)])


# ---- parts of a page -----------------------------------------------------------------------------------------
def table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def cited(*files: str) -> str:
    """Names of files, each once, for the end of a sentence."""
    return f"({', '.join(f'`{name}`' for name in dict.fromkeys(files))})"


def random_sets(row: pd.Series, factor: float = 1) -> str:
    """Median and spread of a row's random sets; a dash where there are none."""
    if not row["controls"]:
        return "\u2013"
    low, high = (number(factor * row[key], 1) for key in ("control_low", "control_high"))
    return f"{number(factor * row['control_median'], 1)} [{low}, {high}]"


def corrected(table: pd.DataFrame) -> list[str]:
    """The p-values of a table's rows after Holm; a dash where a row has no random sets. Names the smallest that their
    number allows where p is that."""
    tested = table["controls"] > 0
    values = iter(claims.holm(list(table.loc[tested, "p"])))
    out = []
    for has, p, n in zip(tested, table["p"], table["controls"], strict=True):
        floor = " (p is the smallest possible)" if has and p <= 1 / (1 + n) else ""
        out.append(f"{p_value(next(values), name='')}{floor}" if has else "\u2013")
    return out


def count_of(found: int, total: int) -> str:
    return f"{found} of {total}"


# ---- sections ------------------------------------------------------------------------------------------------
def studied(models: Models, figures: str) -> str:
    """Which models, and what they get right."""
    out = ["## What was studied, and what the models get right\n"]
    body = []
    for results in models:
        out.append(f"- `{results.model}`: {source_of(results.description)} {cited(results.name_of('model.json'))}.")
        for task in results.tasks:
            clean = rows(results.read("clean_summary", task), split="all", run="clean").set_index("metric")
            right = clean.loc["top1"]
            cells = [results.model, words(task), "searched" if task in results.main else "evaluated"]
            cells += [f"{right['prompts']:.0f}", interval(right, 1, 100), number(100 * right["share_kept"], 0)]
            body.append([*cells, interval(clean.loc["logit_diff"], 2)])
    header = ["model", "task", "circuit", "prompts", "answer is first choice, %", "kept, %", "logit difference"]
    said = "Before any filter, over all prompts; `kept` is the share that passed it "
    return "\n".join([*out, "", table(header, body), f"{said}(`<model>/<task>/clean_summary.parquet`).\n"])


def needed(models: Models, figures: str) -> str:
    """Size and score of every circuit, beside random heads in the same layers."""
    body = []
    for results in models:
        summary = results.read("comparison/controls_summary")
        tests = rows(summary, question="sufficiency").set_index("task").reindex(results.main)
        for task, p in zip(results.main, corrected(tests), strict=True):
            circuit = results.circuits[task]
            kept = reported(rows(results.read("evaluation", task), circuit="nodes")).set_index("metric")
            own = heads(circuit)
            cells = [results.model, words(task), count_of(len(own), results.all_heads)]
            cells += [count_of(len(circuit) - len(own), results.n_layers)]
            cells += [interval(kept.loc["percent_of_full"]), interval(kept.loc["faithfulness"], 2)]
            body.append([*cells, random_sets(tests.loc[task]), p])
    header = ["model", "task", "heads", "MLPs", "% of full kept", "faithfulness", "random heads, same MLPs", "p"]
    files = "`<model>/comparison/membership.parquet`, `<model>/<task>/evaluation.parquet`, "
    return (
        "## Which heads and MLPs each task needs\n\n"
        f"![Heads of each task's circuit by layer]({figures}/circuits.svg)\n\n{table(header, body)}\n"
        f"All else is ablated to its mean over corrupted prompts. MLPs are counted apart, since nearly all of them are "
        f"in every circuit ({files}`<model>/comparison/controls_summary.parquet`).\n"
    )


def shared(models: Models, figures: str) -> str:
    """Heads that circuits share, pair by pair and all together, beside chance and over other searches."""
    out, body = ["## What is shared\n"], []
    for results in models:
        common = results.shared()
        profiles = [claims.profile(heads(c), results.n_layers) for c in results.circuits.values()]
        chance = claims.in_all(results.n_heads, profiles)
        mean, low, high = claims.mean_and_span(chance)
        sizes = [len(frozenset.intersection(*by_task.values())) for by_task in results.runs(results.main).values()]
        mlps = frozenset.intersection(*results.circuits.values()) - common
        files = results.name_of("comparison/membership"), results.name_of("stability.json", "<task>")
        out.append(
            f"- `{results.model}`: {len(common)} heads are in the circuits of all {len(results.main)} tasks"
            + (f": {listing(sorted(common, key=wording.place))}" if common else "")
            + f". By chance it were {number(mean, 2)} [{low}, {high}] with the heads per layer held "
            f"({p_value(tail(chance, len(common)))}); over {len(sizes)} searches by other orders or on other "
            f"prompts it is {min(sizes)} to {max(sizes)}. Beside them {len(mlps)} of {results.n_layers} MLPs are in "
            f"all circuits {cited(*files)}."
        )
        pairs = rows(results.read("comparison/overlap"), level="heads")
        for (_, row), p in zip(pairs.iterrows(), claims.holm(list(pairs["p_layer_matched"])), strict=True):
            cells = [results.model, f"{words(row['circuit_a'])}, {words(row['circuit_b'])}"]
            cells += [f"{row['size_a']:.0f}, {row['size_b']:.0f}", f"{row['shared']:.0f}", number(row["expected"], 1)]
            body.append([*cells, number(row["jaccard"], 2), p_value(p, name="")])
    header = ["model", "circuits", "heads", "shared", "expected", "Jaccard index", "p"]
    said = "Expected: random heads with as many in every layer (`<model>/comparison/overlap.parquet`).\n"
    return "\n".join([*out, "", table(header, body), said])


def ablated(models: Models, figures: str) -> str:
    """What is left of every task, and of what is written, without the shared heads."""
    body, written = [], []
    for results in models:
        tests = rows(results.read("comparison/controls_summary"), question="necessity", circuit=SHARED)
        if tests.empty:
            continue
        for (_, row), p in zip(tests.iterrows(), corrected(tests), strict=True):
            body.append([results.model, words(row["task"]), interval(row), random_sets(row), p, row["note"] or ""])
    for results in models:
        if not results.has("generation/summary"):
            continue
        tests = rows(results.read("generation/summary"), heads=SHARED, over="robust")
        tests = tests[tests["prompts"] > 0]
        for (_, row), p in zip(tests.iterrows(), corrected(tests), strict=True):
            cells = [results.model, words(row["set"]), f"{row['prompts']:.0f}", interval(row, 1, 100)]
            written.append([*cells, random_sets(row, 100), p])
    header = ["model", "task", "% of full left", "random heads in the same layers", "p", ""]
    of_text = ["model", "prompts", "used", "% still right", "random heads in the same layers", "p"]
    return (
        "## What is lost without the shared heads\n\n"
        f"![What is left of each task without the shared heads]({figures}/necessity.svg)\n\n"
        f"The heads that all circuits share, ablated to their means in the full model "
        f"(`<model>/comparison/controls_summary.parquet`):\n\n{table(header, body)}\n"
        f"While the model writes, the same heads set to zero; of the prompts that it gets right unablated, less those "
        f"on which most random sets fail (`<model>/generation/summary.parquet`):\n\n{table(of_text, written)}"
    )


def roles(models: Models, figures: str) -> str:
    """What each shared head is called on every task, with what its ablation costs."""
    out = ["## What the shared heads do\n"]
    for results in models:
        common = sorted(results.shared(), key=wording.place)
        table_of = results.read("comparison/roles")
        body = []
        for name in common:
            own = table_of[table_of["component"] == name]
            tasks_of = own.groupby("label", sort=False)["task"].agg(list)
            kinds = [f"{label} ({listing(map(words, tasks))})" for label, tasks in tasks_of.items()]
            costs = own.set_index("task")["effect"].dropna()
            span = f"{number(costs.min(), 1)} to {number(costs.max(), 1)}" if len(costs) else "\u2013"
            shares = own.set_index("task")["attribution_share"].dropna()
            direct = f"{number(100 * shares.min(), 0)} to {number(100 * shares.max(), 0)}" if len(shares) else "\u2013"
            body.append([name, "; ".join(kinds), span, direct])
        said = f"`{results.model}` {cited(results.name_of('comparison/roles'))}:"
        header = ["head", "label (tasks)", "its ablation costs, points of % of full", "it writes, % of the difference"]
        out.append(f"{said}\n\n{table(header, body)}" if body else f"{said} no head is in all circuits.\n")
    return "\n".join(out)


def beside(models: Models, figures: str) -> str:
    """The models beside each other, in shares, since their layers and heads differ."""
    body = []
    for results in models:
        sizes = [len(heads(circuit)) for circuit in results.circuits.values()]
        mlps = [len(circuit) - len(heads(circuit)) for circuit in results.circuits.values()]
        everywhere = [wording.place(name)[0] for circuit in results.circuits.values() for name in heads(circuit)]
        half = results.n_layers / 2
        late = sum(layer >= half for layer in everywhere) / max(1, len(everywhere))
        pairs = rows(results.read("comparison/overlap"), level="heads")
        beyond = sum(p < claims.ALPHA for p in claims.holm(list(pairs["p_layer_matched"])))
        parts = (sizes, results.all_heads), (mlps, results.n_layers)
        shares = [f"{number(100 * min(x) / n, 0)} to {number(100 * max(x) / n, 0)}" for x, n in parts]
        cells = [results.model, str(len(results.main)), *shares, number(100 * late, 0)]
        body.append([*cells, f"{len(results.shared())}", count_of(beyond, len(pairs))])
    header = ["model", "tasks searched", "heads kept, %", "MLPs kept, %", "of these heads in the later half, %"]
    header += ["heads in all circuits", "pairs that share more than chance"]
    said = "From the tables of the sections above; heads of different models have no counterparts.\n"
    return f"## The models beside each other\n\n{table(header, body)}\n{said}"


def published(models: Models, figures: str) -> str:
    """Every published claim in every model; then those that do not hold once more."""
    found = [(claim, [claim(results) for results in models]) for claim in claims.CLAIMS]
    out = ["## Which published claims hold\n"]
    out.append("Of arXiv 2311.04131, on other models. Each has a rule that decides it, which stands below its name.\n")
    for claim, verdicts in found:
        name = verdicts[0].claim
        out += [f"### {name[0].upper()}{name[1:]}\n", " ".join((claim.__doc__ or "").split()) + "\n"]
        for verdict in verdicts:
            said = f"- `{verdict.model}`: **{verdict.verdict}**. {_sentence(verdict.effect)}"
            said += f" Control: {_sentence(verdict.control)}" if verdict.control else ""
            out.append(f"{said} {cited(*verdict.files)}" if verdict.files else said)
        out.append("")
    failed = [v for _, verdicts in found for v in verdicts if v.verdict == claims.FAILS]
    out.append("## What does not hold\n")
    out += [f"- `{v.model}`: {v.claim}: not by the rule above. {_sentence(v.effect)}" for v in failed]
    out += [] if failed else ["Every claim that could be tested holds by its rule in every model."]
    return "\n".join([*out, ""])


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


SECTIONS: tuple[Callable[[Models, str], str], ...] = (studied, needed, shared, ablated, roles, beside, published)


def write(models: Models, page_file: Path, images: Path, command: str) -> None:
    """Write the page and its figures; raises StudyError, before anything is written, where a table is missing."""
    from atlas.report.findings import figures

    text = page(models, command, images.relative_to(page_file.parent).as_posix())
    drawn = figures.drawn(models)
    images.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        figures.save(figure, images / f"{name}.svg")
    page_file.write_text(text)
