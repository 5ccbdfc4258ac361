"""Tables of a study made from published values themselves, for tests of the comparison."""

import json

import pandas as pd

from conftest import ROOT

FOLDER = ROOT / "resources" / "published" / "gpt2-small"
ABOUT = json.loads((FOLDER / "study.json").read_text())
VALUES = pd.read_csv(FOLDER / "values.csv", dtype={"item": str})
TASKS = {"numerals": "numerals", "numwords": "number_words", "months": "months", "notebook": "numerals"}
LAYERS, HEADS = 12, 12


def values(figure: str) -> pd.DataFrame:
    """task (our name), item, value and an interval of one around it."""
    found = VALUES[VALUES["figure"] == figure].drop(columns="figure").reset_index(drop=True)
    found["task"] = found["task"].map(TASKS)
    return found.assign(ci_low=found["value"] - 1, ci_high=found["value"] + 1)


def places(table: pd.DataFrame, sign: str = ".") -> pd.DataFrame:
    """`9.1` or `9@3` as columns of numbers."""
    parts = table["item"].str.split(sign, expand=True).astype(int)
    return table.assign(first=parts[0], second=parts[1])


def study_tables() -> dict:
    """What a study would hold that computed exactly the published values, in the form of its own tables."""
    circuit, cross, given = (values(name) for name in ("circuit", "cross", "given_circuit"))
    percent = values("percent_of_full").assign(split="search", metric="percent_of_full", reported=True, threshold=20)
    other = percent.assign(value=50.0, reported=False)
    evaluation = pd.concat(
        [
            percent.assign(circuit="nodes"),
            given.assign(
                circuit="published_" + given["item"].map(TASKS | {"months_keep_mlp11": "months_keep_m11"}),
                metric="percent_of_full",
            ),
            given.assign(circuit="nodes", metric="faithfulness", value=-1.0),
        ]
    )
    removal = values("removal")
    whole = percent.set_index("task")["value"]
    lost = removal["task"].map(whole) - removal["value"]
    minimality = removal.assign(circuit="nodes", name=removal["item"], value=lost, ci_low=lost - 1, ci_high=lost + 1)
    single = pd.concat([places(values("single_head")), values("single_mlp").assign(second=-1)])
    effects = single.assign(component=single["item"], head=single["second"], kind="mean", metric="percent_of_full")
    clean = values("clean_logit_diff").assign(run="clean")
    ratio = values("corrupted_over_clean").set_index("task")["value"]
    rows = [clean, *(pd.DataFrame({"task": [t], "value": [10.0], "run": "clean"}) for t in ratio.index[1:])]
    clean = pd.concat(rows, ignore_index=True)
    corrupted = clean.assign(value=clean["value"] * clean["task"].map(ratio), run="corrupted")
    clean = pd.concat([clean, corrupted], ignore_index=True).assign(split="all", metric="logit_diff")
    nothing = float("nan")
    for key in ("ci_low", "ci_high"):
        clean[key] = clean[key].fillna(nothing)
    lens = values("lens_increment")
    lens = lens.assign(share=lens["value"] / 100, ci_low=0.0, ci_high=1.0, lens="raw", from_point=18, to_point=20)
    return {
        "membership": pd.DataFrame({"circuit": circuit["task"], "component": circuit["item"]}),
        "cross": cross.assign(circuit=cross["item"].map(TASKS), metric="percent_of_full"),
        "choice": pd.concat([percent, other]),
        "evaluation": evaluation,
        "minimality": minimality,
        "effects": pd.concat([effects, effects.assign(kind="zero", value=0.0)]),
        "clean": clean,
        "ov": ov_table(),
        "lens_increments": pd.concat(
            [lens.drop(columns="value"), lens.drop(columns="value").assign(lens="norm", share=0.5)]
        ),
        "attribution": attribution_table(),
        "patching": patching_table(),
    }


def ov_table() -> pd.DataFrame:
    rows = []
    for score in ("copy", "next"):
        found = values(f"ov_{score}").set_index(["task", "item"])["value"]
        for task in found.index.get_level_values(0).unique():
            for layer in range(LAYERS):
                for head in range(HEADS):
                    value = found.get((task, f"{layer}.{head}"), 0.0) / 100
                    row = {"task": task, "layer": layer, "head": head, "score": score, "value": value}
                    rows += [row | {"norm": "block1", "k": 5}, row | {"norm": "own", "k": 5, "value": 0.5}]
                    rows.append(row | {"norm": "block1", "k": 1, "value": 0.5})
    return pd.DataFrame(rows).assign(ci_low=0.0, ci_high=1.0)


def attribution_table() -> pd.DataFrame:
    """A layer's published attention write is split into what its heads write and its bias: 0.25 of the sum is bias."""
    parts = {"attribution_points": "accumulated", "attribution_writes": "write", "attribution_heads": "head"}
    table = pd.concat([values(figure).assign(part=part) for figure, part in parts.items()], ignore_index=True)
    attn = (table["part"] == "write") & table["item"].str.startswith("attn")
    bias = table[attn].assign(item=table["item"].str.replace("attn", "bias"), value=0.25 * table["value"])
    table.loc[attn, "value"] *= 0.75
    return pd.concat([table, bias], ignore_index=True).rename(columns={"item": "name"})


def patching_table() -> pd.DataFrame:
    rows = []
    for site in ("resid_pre", "attn_out", "mlp_out"):
        table = places(values(f"patching_{site}"), "@")
        rows.append(table.assign(site=site, layer=table["first"], head=-1, position=table["second"]))
    for site in ("z", "v", "pattern"):
        table = places(values(f"patching_{site}"))
        rows.append(table.assign(site=site, layer=table["first"], head=table["second"], position=-1))
    table = pd.concat(rows, ignore_index=True)
    return pd.concat([table.assign(direction="denoising"), table.assign(direction="noising", value=9.0)])
