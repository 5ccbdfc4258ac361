"""Backup heads against hooks written out, and on planted heads whose change is known.

Tolerance 1e-4 on logits of order 10 in float32.
"""

import numpy as np
import pytest
import torch

from atlas.circuit.replacement import replacement
from atlas.core.components import Component
from atlas.core.statistics import Bootstrap
from atlas.heads import backup
from atlas.heads.attribution import attribute
from atlas.model import activations, models
from atlas.prompts.batch import Prompts
from atlas.proof import exact
from atlas.proof.planted import LOGIT
from head_prompts import study_task

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def prompts(config):
    return Prompts.from_frame(study_task(config, "number_words")[0], ["all"])


def substitute_for(model, prompts, kind="mean"):
    _, means = activations.collect(model, prompts.corrupted_tokens)
    return replacement(kind, model, prompts, {"corrupted": means, "groups": ["all"]}), means


def test_before_is_the_direct_attribution_of_heads(shipped_model, prompts):
    before, after = backup.before_and_after(shipped_model, prompts, substitute_for(shipped_model, prompts)[0], [])
    assert after == {}
    for keys, values in attribute(shipped_model, prompts):
        if keys["part"] == "head" and keys["head"] >= 0:
            assert np.abs(before.heads[:, keys["layer"], keys["head"]] - values).max() < TOLERANCE


@pytest.mark.parametrize("kind", ["mean", "zero", "resample"])
def test_after_equals_hooks_written_out(shipped_model, prompts, kind):
    """One head replaced at the last position and nowhere else; attribution from TransformerLens's cache."""
    substitute, means = substitute_for(shipped_model, prompts, kind)
    bridge, head = shipped_model.bridge, Component(1, 4)
    before, after = backup.before_and_after(shipped_model, prompts, substitute, [head])
    name = "blocks.1.attn.hook_z"
    _, corrupted = bridge.run_with_cache(prompts.corrupted_tokens, names_filter=name)
    value = {"mean": means["z"][1, 0, -1, 4], "zero": 0.0, "resample": corrupted[name][:, -1, 4]}[kind]

    def hook(z, hook):
        z[:, -1, 4] = value
        return z

    with torch.no_grad(), bridge.hooks(fwd_hooks=[(name, hook)]):
        logits, cache = bridge.run_with_cache(prompts.tokens)
    rows = torch.arange(len(prompts))
    direction = (bridge.W_U[:, prompts.answer] - bridge.W_U[:, prompts.incorrect]).T
    scale = cache["ln_final.hook_scale"][:, -1]
    for layer in range(shipped_model.n_layers):
        writes = torch.einsum("nhd,hdm->nhm", cache[f"blocks.{layer}.attn.hook_z"][:, -1], bridge.W_O[layer])
        normed = (writes - writes.mean(-1, keepdim=True)) / scale[:, None] * bridge.ln_final.weight
        expected = (normed * direction[:, None]).sum(-1).detach().numpy()
        assert np.abs(after[head].heads[:, layer] - expected).max() < TOLERANCE
    difference = (logits[rows, -1, prompts.answer] - logits[rows, -1, prompts.incorrect]).numpy()
    assert np.abs(after[head].logit_diff - difference).max() < TOLERANCE
    assert np.abs(after[head].scale - scale[:, 0].numpy()).max() < TOLERANCE
    assert np.abs(after[head].heads[:, 2:] - before.heads[:, 2:]).max() > 0.1, "later heads change"
    ratio = (before.scale / after[head].scale)[:, None, None]
    unchanged = np.delete(after[head].heads[:, :2] - before.heads[:, :2] * ratio, 4, axis=2)
    assert np.abs(unchanged).max() < TOLERANCE, "earlier heads change by the scale alone"


@pytest.mark.parametrize("family", exact.FAMILIES)
def test_a_planted_inhibitor_stops_when_what_it_reads_is_gone(family, tmp_path):
    """`cancelling`: 2.0 takes back what 1.2 leaves in `extra`, at the last position. Without 1.2: nothing, so that its
    part of the logit difference rises from -1 to 0 and the loss of 1.2 does not show."""
    fixture, head = exact.cancelling(family), Component(1, 2)
    model, prompts = models.load(fixture.build(tmp_path), device="cpu", batch_size=5), fixture.prompts()
    found = backup.before_and_after(model, prompts, substitute_for(model, prompts)[0], [head, Component(2, 3)])
    table = backup.table(*found, Bootstrap(100, 0)).set_index(["ablated", "layer", "head"])
    assert table.before[("1.2", 2, 0)] == pytest.approx(-LOGIT, abs=TOLERANCE)
    assert table.change[("1.2", 2, 0)] == pytest.approx(LOGIT, abs=TOLERANCE)
    assert table.change[("1.2", 1, 2)] == pytest.approx(-LOGIT, abs=TOLERANCE)
    changed = table[table.change.abs() > TOLERANCE].index.tolist()
    assert sorted(changed) == [("1.2", 1, 2), ("1.2", 2, 0), ("2.3", 2, 3)]
    assert table.logit_diff_change["1.2"].to_numpy() == pytest.approx(0, abs=TOLERANCE)
    assert table.scale_ratio.to_numpy() == pytest.approx(1, abs=1e-6), "a planted norm is the identity"
    assert np.allclose(table.after - table.before, table.change)
    assert table.p.isna().sum() == 2 and (table.tests == len(table) - 2).all(), "the ablated heads are no test"
    assert table.p_holm[("1.2", 2, 0)] < 0.05
    assert (table.change_ci_low <= table.change + 1e-9).all() and (table.change <= table.change_ci_high + 1e-9).all()


def test_prompts_that_end_elsewhere_are_refused(shipped_model, prompts):
    from dataclasses import replace

    moved = replace(prompts, position=torch.zeros(len(prompts), dtype=torch.long))
    with pytest.raises(ValueError, match="last token"):
        backup.before_and_after(shipped_model, moved, substitute_for(shipped_model, prompts)[0], [])


def test_a_circuit_without_heads_gives_an_empty_table_of_the_same_columns(shipped_model, prompts):
    substitute, bootstrap = substitute_for(shipped_model, prompts)[0], Bootstrap(20, 0)
    none = backup.table(*backup.before_and_after(shipped_model, prompts, substitute, []), bootstrap)
    one = backup.table(*backup.before_and_after(shipped_model, prompts, substitute, [Component(1, 4)]), bootstrap)
    assert none.empty and list(none.columns) == list(one.columns)
