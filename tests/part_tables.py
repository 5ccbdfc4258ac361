"""Tables of parts of components, directions and neurons, as small as figures and sentences need them."""

import numpy as np
import pandas as pd

TASKS = ["months", "numerals"]
CLASSES = ["months", "number_words"]
N_DIRECTIONS, OF, LEAD = 5, 16, 2  # LEAD: the direction, and the neuron, that carries what its component does


def spread(value, width=0.1):
    return {"value": value, "ci_low": value - width, "ci_high": value + width}


def direction_tables(sure=True):
    """Head 1.2 is worth 2 logits, of which direction 2 carries 1.8; MLP m2 is worth 1."""
    components = [("1.2", 1, 2, 2.0), ("m2", 2, -1, 1.0)]
    ablated, read, following = [], [], []
    for component, layer, head, worth in components:
        key = {"component": component, "layer": layer, "head": head}
        for task in TASKS:
            for rank, (j, part) in enumerate([(-1, 1.0), (LEAD, 0.9), (0, 0.1)]):
                tested = rank == 1
                row = {"task": task, **key, "direction": j, "rank": rank, **spread(part * worth), "share": part}
                row |= {"attribution": part, "attribution_share": part, "prompts": 12, "full": 5.0, "random": 0.05}
                row |= {"random_low": -0.1, "random_high": 0.2, "draws": 99, "claim": task, "tests": 2}
                p = (0.02 if sure else 0.5) if tested else np.nan
                ablated.append(row | {"p": p, "p_holm": p})
        for j in (0, 1, LEAD):
            for sign in "+-":
                row = key | {"direction": j, "singular_value": 3.0 - j, "share": 0.3, "sign": sign}
                row |= {"reads": "May  June  July" if head >= 0 else "", "read_label": "months" if head >= 0 else None}
                row |= {"read_share": 1.0, "read_base": 0.1, "read_p": 0.001, "read_p_holm": 0.01 if sure else 1.0}
                row |= {"writes": "June  $  \ufffd  July", "label": "mixed" if j else "next member"}
                row |= {"label_share": 0.6, "label_base": 0.1, "label_p": 0.01, "label_p_holm": 0.02 if sure else 1.0}
                read.append(row)
        for name in CLASSES if head >= 0 else ():
            values = np.array([0.1, 0.0, 0.8, 0.1, -0.1])
            for j, value in [(-1, values.sum()), *enumerate(values)]:
                p = 0.001 if sure and name == "months" and j in (-1, LEAD) else 0.4
                row = key | {"direction": j, "class": name, "members": 12, "value": value, "share": value / 0.9}
                p = p if j in (-1, LEAD) else np.nan
                following.append(row | {"p": p, "claim": "c", "tests": 2, "p_holm": p})
    return {
        "directions": pd.DataFrame(read),
        "direction_next": pd.DataFrame(following),
        "direction_ablations": pd.DataFrame(ablated),
    }


def neuron_tables(sure=True):
    """m2 of 16 neurons: of each task number 2 carries 1.8 of 2 logits; m1 has no effect."""
    sets, single, members = [], [], []
    for task in TASKS:
        for mlp, worth in (("m1", 0.0), ("m2", 2.0)):
            key = {"task": task, "component": mlp, "layer": int(mlp[1])}
            of = {"of": OF, "prompts": 12, "full": 5.0}

            def row(name, n, part, random=np.nan, draws=0, p=np.nan, key=key, of=of, worth=worth):
                found = key | {"set": name, "neurons": n, **of, **spread(part * worth, 0.05), "share": part}
                found |= {"random": random, "random_low": random - 0.1, "random_high": random + 0.1}
                return found | {"draws": draws, "p": p, "claim": "c", "tests": 2, "p_holm": p}

            sets.append(row("whole", OF, 1.0))
            sets += [row("curve", n, 1 - 0.1 / n, worth * n / OF, 5) for n in (1, 2, 4, 8, OF)]
            if worth:
                sets += [row("smallest", 1, 0.9, 0.1, 99, 0.02 if sure else 0.4), row("rest", OF - 1, 0.2)]
            for rank, j in enumerate((LEAD, 7), 1):
                value = worth * (0.9 if j == LEAD else 0.0)
                found = key | {"neuron": j, "rank": rank, "attribution": value, "attribution_share": 0.5}
                found |= {**spread(value), "share": 0.9, "activation": 0.1, "ablated": 1.0, "by_answer": 0.8}
                found |= {"p": 0.001, "p_holm": 0.01 if sure and j == LEAD else 0.3, "writes": "June  July"}
                found |= {"label": "months", "label_share": 1.0, "label_base": 0.1, "label_p": 0.001}
                single.append(found | {"label_p_holm": 0.01 if sure else 0.5, "prompts": 12, "full": 5.0})
                answers = enumerate(("March", "April", "May"))
                shared = {"rank": rank, "ablated": 1.0, "prompts": 4}
                members += [key | shared | {"neuron": j, "answer": a, "place": i, "value": 0.2 * i} for i, a in answers]
    return {
        "neurons": pd.DataFrame(single),
        "neuron_sets": pd.DataFrame(sets),
        "neuron_members": pd.DataFrame(members),
    }
