"""Summary page of one model: sentences chosen by rule from the numbers, beside the tables they rest on."""

import json
from collections.abc import Callable

from atlas.report import pages
from atlas.report.cards import cards
from atlas.report.pages import Section
from atlas.report.sections import (
    circuits,
    consensus,
    controls,
    directions,
    edges,
    evaluation,
    features,
    full_model,
    generation,
    heads,
    left_out,
    neurons,
    overlap,
    positions,
    probes,
    published,
    shapes,
    stability,
    steering,
    successors,
    transfer,
    trust,
    tuned_lens,
)
from atlas.report.sections.study import Study
from atlas.report.wording import count, words


def settings_shown(study: Study) -> Section:
    """The settings of the study."""
    rows = [[words(key), _plain(value)] for key, value in study.settings.items() if key != "note"]
    return Section(title="Settings", table={"header": ["setting", "value"], "rows": rows})


def provenance_shown(study: Study) -> Section:
    """The model, and where the tables come from."""
    content = {"model": study.model, "tables": study.provenance}
    return Section(title="Provenance", pre=json.dumps(content, indent=1, ensure_ascii=False))


# In the order of the page; a section without content is left out
SECTIONS: dict[str, Callable[[Study], Section]] = {
    "full model": full_model.section,
    "circuits": circuits.section,
    "consensus": consensus.section,
    "edges": edges.section,
    "evaluation": evaluation.section,
    "positions": positions.section,
    "heads": heads.section,
    "successors": successors.section,
    "shapes": shapes.section,
    "probes": probes.section,
    "tuned lens": tuned_lens.section,
    "directions": directions.section,
    "neurons": neurons.section,
    "features": features.section,
    "steering": steering.section,
    "overlap": overlap.section,
    "edge overlap": edges.shared,
    "transfer": transfer.section,
    "stability": stability.section,
    "controls": controls.section,
    "trust": trust.section,
    "generation": generation.section,
    "published": published.section,
    "left out": left_out.section,
    "prompts left out": left_out.prompts,
    "settings": settings_shown,
    "provenance": provenance_shown,
}
# The short version at the top has the first sentence of each of these, in this order
SHORT: tuple[str, ...] = (
    "full model",
    "circuits",
    "controls",
    "consensus",
    "trust",
    "overlap",
    "transfer",
    "edges",
    "edge overlap",
    "evaluation",
    "positions",
    "heads",
    "successors",
    "shapes",
    "features",
    "steering",
)
SHORT += ("left out", "stability", "generation", "published")

# What the page of tables shows, in its order; other tables are long, or in figures
LISTED: tuple[str, ...] = (
    "clean",
    "faithfulness",
    "choice",
    "consensus",
    "shared",
    "consensus_scores",
    "consensus_tests",
    "evaluation",
    "completeness",
    "minimality",
    "positions",
    "stability_summary",
)
LISTED += ("edge_areas", "edge_scores", "attribution", "lens", "lens_increments", "overlap", "typology", "cross")
LISTED += (
    "controls_summary",
    "hypotheses",
    "member_tests",
    "unseen",
    "specificity",
    "detectors",
    "roles",
    "generation",
    "published",
)
LISTED += ("shape_patches", "tuned_lens_training", "direction_ablations", "neuron_sets", "neurons")
LISTED += ("features", "feature_tests", "feature_effects", "steering_side_effects", "steering_samples")


def page(study: Study) -> str:
    """The findings of one model: cards that fit one screen, and below them every sentence and table, folded."""
    made, model = {name: section(study) for name, section in SECTIONS.items()}, study.model
    atlas = f"../../{model['model']}/atlas.html"
    return pages.page(
        title=f"{study.settings['title']}: {model['model']}",
        warning=pages.warning(model),
        lead=f"{model['architecture']}, {model['n_layers']} layers of {count(model['n_heads'], 'head')} and one MLP. "
        f"{study.settings['note']}.",
        short=[made[name].first for name in SHORT if made[name].first],
        sections=[section for section in made.values() if section.shown],
        fold=True,
        cards=[(card.link(atlas), card) for card in cards(study)],
        reading="Brackets hold 95 % bootstrap intervals over prompts (without width where all prompts agree); those "
        "behind \u201crandom sets\u201d the middle 95 % of these. p-values, and what surely differs, are corrected for "
        "the tests made together. Maps: a row a layer, the first on top; a column a head, the MLP at the right. "
        "Sentences are chosen by rule from the numbers.",
    )


def tables_page(study: Study) -> str:
    """The tables behind the summary; of the scores of edges the largest."""
    tables = {name: study.tables[name] for name in LISTED if name in study.tables}
    if "edge_scores" in tables:
        tables["edge_scores"] = pages.strongest_edges(tables["edge_scores"])
    title = f"{study.settings['title']}: tables of {study.model['model']}"
    return pages.tables_page(tables, title, pages.warning(study.model), study.settings["note"])


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {content}" for key, content in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
