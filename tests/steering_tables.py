"""Synthetic tables of steering, as docs/artifacts.md says, for the figure and the section."""

import numpy as np

from atlas.geometry import steering, steering_effects

PAIRS = (("numerals", "number_words"), ("number_words", "number_words_decreasing"))
LAYERS, COEFFICIENTS, PROMPTS, DRAWS = (0, 2, 4), (0.5, 1, 2), 8, 99


def made(layers=LAYERS, coefficients=COEFFICIENTS, texts=("repeated_words",), member=0.0, empty=False):
    """``member``: share of prompts on which the vector puts the right member on top, in the first pair."""
    rng = np.random.default_rng(0)
    rows, effects, samples = [], [], []
    for source, target in () if empty else PAIRS:
        key = {"source": source, "target": target}
        metrics = [m for m in steering.METRICS if source == "numerals" or m != "class_top1"]
        best = (layers[1], coefficients[1])

        def add(
            method, values, cell=(-1, 0.0), side="held_out", heads=0, drawn=False, key=key, metrics=metrics, best=best
        ):
            for metric in metrics:
                value = values.get(metric, 0.1)
                tested = drawn and metric in steering.TESTED
                row = {**key, "method": method, "layer": cell[0], "coefficient": float(cell[1]), "split": side}
                row |= {"chosen": method == steering.MEANS and cell == best, "heads": heads, "metric": metric}
                row |= {"value": value, "ci_low": max(0, value - 0.1), "ci_high": min(1, value + 0.1)}
                row |= {"prompts": PROMPTS, "draws": DRAWS if tested else 0}
                numbers = (0.05, 0.2, 0.01 if value > 0.2 else 1.0, 0.02, 0.1, 0.05)
                nothing = (np.nan,) * len(numbers)
                rows.append(row | dict(zip(steering.CONTROLS[1:], numbers if tested else nothing, strict=True)))

        add(steering.UNSTEERED, {"top1": 0, "class_top1": 0})
        add(steering.TARGET, {"top1": 0.9 if source == "numerals" else 0.2, "class_top1": 1})
        for side in ("search", "held_out"):
            for layer in layers:
                for c in coefficients:
                    cell = (layer, c)
                    values = {"top1": member if source == "numerals" else 0, "class_top1": 1.0 if cell == best else 0.3}
                    add(steering.MEANS, values, cell, side, drawn=(cell, side) == (best, "held_out"))
        add(steering.RESIDUAL, {"top1": 0.7, "class_top1": 1}, (best[0], 1.0))
        add(steering.CIRCUIT, {"top1": 0.8, "class_top1": 1}, heads=5, drawn=True)
        add(steering.ALL_HEADS, {"top1": 0.9, "class_top1": 1}, heads=48)
        for text in texts:
            for c in coefficients:
                for metric in steering_effects.EFFECTS:
                    value, chosen = 0.1 * c + 0.01 * rng.uniform(), c == best[1]
                    row = {**key, "layer": best[0], "coefficient": float(c), "chosen": chosen, "text": text}
                    row |= {"metric": metric, "value": value, "ci_low": 0.8 * value, "ci_high": 1.3 * value}
                    row |= {"prompts": 24, "draws": 20 if chosen else 0}
                    controls = (0.02, 0.06, 0.05) if chosen else (np.nan,) * 3
                    effects.append(row | dict(zip(("random_mean", "random_hi", "p"), controls, strict=True)))
        row = {**key, "layer": best[0], "coefficient": float(best[1]), "prompt": "Cup in 1.\nHat in"}
        samples.append(row | {"expected": "two", "unsteered": " 2.", "steered": " two."})
    tables = {"steering": steering.table(rows)} | steering_effects.tables(effects, samples)
    return {name: table.assign(model="m") for name, table in tables.items()}
