"""The study of a summary from synthetic tables."""

import pandas as pd

import head_tables
from atlas.report.sections.study import Study

NOTE = "Node circuits: T = 20 %, order layers"


def tables_of(study) -> dict[str, pd.DataFrame]:
    """All tables of a study by the names that the jobs of its pages read."""
    made = {name: table for name, table in vars(study).items() if isinstance(table, pd.DataFrame)}
    made |= {name: pd.concat(vars(study)[name].values()) for name in ("prompts", "effects")}
    return made | {"attention_members": study.members}


def summary_of(study) -> Study:
    layers, heads = (study.effects[study.main[0]][key].max() + 1 for key in ("layer", "head"))
    model = {"model": study.model, "architecture": "GPT2LMHeadModel", "n_layers": int(layers), "n_heads": int(heads)}
    return Study(
        tables=tables_of(study),
        info=study.info,
        circuits=study.edge_circuits,
        model=model | {"compared": {"dtypes": ["float32"], "tokens": 128}},
        left_out={},
        settings={
            "title": "A & B",
            "tasks": study.tasks,
            "main_tasks": study.main,
            "threshold": study.threshold,
            "order": study.order,
            "note": NOTE,
            "labels": head_tables.THRESHOLDS,
        },
        provenance={},
    )
