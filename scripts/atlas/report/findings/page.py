"""The page of findings, in Markdown: a section is a function of the models' results, and every number is read there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

from atlas.core.multiple import ALPHA
from atlas.report import wording
from atlas.report.findings import claims
from atlas.report.findings.reading import (
    SHARED,
    Results,
    decision,
    heads,
    of_shared,
    random_sets,
    reported,
    rows,
    source_of,
)
from atlas.report.wording import interval, listing, number, p_of_tests, p_value, words

Models = Sequence[Results]
LISTED = 12  # heads of a model whose labels are told
HEAD = """# Findings

What models need to go on with a sequence of ordered members: {models}. `{command}` writes this page and its
figures from the tables of finished studies, so that no number here was typed. Brackets hold 95 % bootstrap intervals
over prompts, beside random sets the 2.5 and 97.5 percentiles of the sets; p-values are after Holm's correction for all
tests of one claim ([methods.md](methods.md#tests)), and a test whose random sets could decide nothing is called
untestable. Files are those below `results/` ([artifacts.md](artifacts.md)); what the numbers mean stands in
[methods.md](methods.md). Results are reported on prompts that the search never saw, of sequences that it never saw.
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


def corrected(tests: pd.DataFrame) -> list[str]:
    """A cell for each row of a table with verdicts: its p-value after Holm, or why it could not decide anything."""
    return [decision(row, name="") for _, row in tests.iterrows()]


def count_of(found: int, total: int) -> str:
    """`3 of 48`."""
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
            cells += [interval(kept.loc["percent_of_full"]), "yes" if results.passes(task) else "no"]
            cells += [interval(kept.loc["faithfulness"], 2)]
            body.append([*cells, random_sets(tests.loc[task]), p])
    header = ["model", "task", "heads", "MLPs", "% of full kept", "above the floor", "faithfulness"]
    header += ["random heads, same MLPs: % of full", "p"]
    files = "`<model>/comparison/membership.parquet`, `<model>/<task>/evaluation.parquet`, "
    return (
        "## Which heads and MLPs each task needs\n\n"
        f"![Heads of each task's circuit by layer]({figures}/circuits.svg)\n\n{table(header, body)}\n"
        "All else is ablated to its mean over corrupted prompts. Above the floor: more than "
        f"{_floors(models)} % of full on prompts and sequences that the search never saw; a circuit that is not there "
        f"explains less of its task than it promised ({files}`<model>/<task>/chosen.json`, "
        "`<model>/comparison/controls_summary.parquet`).\n"
    )


def _floors(models: Models) -> str:
    """The floors of the reported circuits, in percent of full."""
    return listing(dict.fromkeys(number(100 - results.threshold, 0) for results in models))


def shared(models: Models, figures: str) -> str:
    """What the searches of each task agree on, and what these cores share, beside chance and search by search."""
    out = [
        "## What is shared\n\n"
        "The *core* of a task is what at least 90 % of its searches keep, by several orders and on other prompts, so "
        "that no single search decides; what is contingent is in fewer, but in 10 % at least. MLPs are counted apart.\n"
    ]
    for results in models:
        found = rows(results.read("comparison/shared"), tasks=" ".join(results.main))
        for level, what in (("heads", "head"), ("mlps", "MLP")):
            core = rows(found, level=level, family="core").iloc[0]
            others = rows(found, level=level)["shared"][found["family"] != "core"]
            named = f": {listing(core['members'].split())}" if core["members"] else ""
            single = f"{others.min()} to {others.max()} in {len(others)} single searches" if len(others) else "untried"
            of_all = (
                f"`{results.model}`: the cores of all {len(results.main)} tasks share "
                f"{wording.count(core['shared'], what)}{named}"
            )
            chance = f"{number(core['expected'], 2)} by chance ({p_of_tests(core)}; smallest possible p: "
            chance += f"{p_value(core['p_smallest'], name='')})"
            out.append(f"- {of_all}; {chance}; {single} {cited(results.name_of('comparison/shared'))}.")
    of_cores = ["model", "task", "searches", "core: heads", "MLPs", "contingent: heads", "MLPs"]
    of_cores += ["core alone, % of full", "with contingent, % of full"]
    of_pairs = ["model", "cores of", "heads", "shared", "expected", "p"]
    tables = table(of_cores, map_rows(models, _core_rows)), table(of_pairs, map_rows(models, _pair_rows))
    said = "Expected: random heads with as many in every layer (`<model>/comparison/consensus.json`, "
    said += "`<model>/<task>/consensus_scores.parquet`, `<model>/comparison/shared.parquet`).\n"
    return "\n".join([*out, "", *tables, said])


def map_rows(models: Models, of: Callable[[Results], list[list[str]]]) -> list[list[str]]:
    """The rows of all models, one after another."""
    return [row for results in models for row in of(results)]


def _core_rows(results: Results) -> list[list[str]]:
    """A row a task: sizes and scores of what its searches agree on."""
    parts, body = results.read("comparison/consensus.json")["tasks"], []
    for task in results.main:
        cells = [results.model, words(task), str(results.searches(task))]
        cells += [f"{len(parts[task][kind][of])}" for kind in ("core", "contingent") for of in ("heads", "mlps")]
        kept = rows(reported(results.read("consensus_scores", task)), metric="percent_of_full").set_index("circuit")
        body.append([*cells, interval(kept.loc["core"]), interval(kept.loc["core and contingent"])])
    return body


def _pair_rows(results: Results) -> list[list[str]]:
    """A row for each pair of cores; of two tasks the one pair is all of them."""
    pairs = rows(results.read("comparison/shared"), family="core", level="heads")
    pairs = pairs[pairs["tasks"].str.count(" ") == 1]
    return [
        [
            results.model,
            listing(map(words, row["tasks"].split())),
            row["sizes"].replace(" ", ", "),
            f"{row['shared']:.0f}",
            number(row["expected"], 1),
            p_value(row["p_holm"], name=""),
        ]
        for _, row in pairs.iterrows()
    ]


def ablated(models: Models, figures: str) -> str:
    """What is left of every task, and of what is written, without the shared heads."""
    body, written = [], []
    for results in models:
        tests = of_shared(results)
        for (_, row), p in zip(tests.iterrows(), corrected(tests), strict=True):
            body.append([results.model, words(row["task"]), interval(row), random_sets(row), p])
        if not results.has("generation/summary"):
            continue
        tests = rows(results.read("generation/summary"), heads=SHARED, over="robust")
        tests = tests[tests["prompts"] > 0]
        for (_, row), p in zip(tests.iterrows(), corrected(tests), strict=True):
            cells = [results.model, words(row["set"]), f"{row['prompts']:.0f}", interval(row, 1, 100)]
            written.append([*cells, random_sets(row, 100), p])
    header = ["model", "task", "% of full left", "random heads in the same layers", "p"]
    of_text = ["model", "prompts", "used", "% still right", "random heads in the same layers", "p"]
    return (
        "## What is lost without the shared heads\n\n"
        f"![What is left of each task without the shared heads]({figures}/necessity.svg)\n\n"
        f"The heads that all cores share, ablated to their means in the full model "
        f"(`<model>/<task>/consensus_tests.parquet`):\n\n{table(header, body)}\n"
        f"While the model writes, the heads that all reported circuits share set to zero; of the prompts that it gets "
        f"right unablated, less those on which most random sets fail (`<model>/generation/summary.parquet`):\n\n"
        f"{table(of_text, written)}"
    )


def roles(models: Models, figures: str) -> str:
    """What the heads do that the cores of several tasks hold: labels, and what their ablation costs."""
    out = ["## What the shared heads do\n"]
    for results in models:
        holders = {name: [t for t, core in results.cores.items() if name in core] for name in _in_any_core(results)}
        named = [name for name in sorted(holders, key=wording.place) if len(holders[name]) > 1]
        common = sorted(named, key=lambda name: -len(holders[name]))[:LISTED]
        table_of, body = results.read("comparison/roles"), []
        for name in common:
            own = table_of[table_of["component"] == name]
            tasks_of = own.groupby("label", sort=False)["task"].agg(list)
            kinds = [f"{label} ({listing(map(words, tasks))})" for label, tasks in tasks_of.items()]
            spans = [_span(own["effect"]), _span(100 * own["attribution_share"])]
            body.append([name, count_of(len(holders[name]), len(results.main)), "; ".join(kinds) or "\u2013", *spans])
        said = f"`{results.model}`, the {len(common)} heads in most cores of the {len(named)} in two or more "
        said += cited(results.name_of("comparison/consensus.json"), results.name_of("comparison/roles"))
        header = ["head", "cores", "label (tasks)", "its ablation costs, points of % of full"]
        header.append("it writes itself, % of the logit difference")
        out.append(f"{said}:\n\n{table(header, body)}" if body else f"`{results.model}`: no head is in two cores.\n")
    return "\n".join(out)


def _span(values: pd.Series) -> str:
    """`1.2 to 3.4`, of what is known."""
    known = values.dropna()
    return f"{number(known.min(), 1)} to {number(known.max(), 1)}" if len(known) else "\u2013"


def _in_any_core(results: Results) -> frozenset[str]:
    return frozenset[str]().union(*map(heads, results.cores.values()))


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
        beyond = int((pairs["p_holm"] < ALPHA).sum())
        parts = (sizes, results.all_heads), (mlps, results.n_layers)
        shares = [f"{number(100 * min(x) / n, 0)} to {number(100 * max(x) / n, 0)}" for x, n in parts]
        cells = [results.model, str(len(results.main)), *shares, number(100 * late, 0)]
        body.append([*cells, f"{len(results.shared())}", count_of(beyond, len(pairs))])
    header = ["model", "tasks searched", "heads kept, %", "MLPs kept, %", "of these heads in the later half, %"]
    header += ["heads in all cores", "pairs of circuits that share more than chance"]
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
