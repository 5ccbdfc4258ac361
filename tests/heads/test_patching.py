"""Activation patching against TransformerLens's own tools, against hooks, and on planted mechanisms.

Tolerances: 1e-4 on logit differences of order 10 in float32 (a forward pass rounds at about 1e-5); in float64 those of
`random_models`, for the same reasons.
"""

import numpy as np
import pandas as pd
import pytest
import torch

from atlas.core.errors import StudyError
from atlas.core.statistics import Bootstrap
from atlas.heads import patching
from atlas.heads.patching import BY_HEAD, BY_POSITION, Patch
from atlas.model import models
from atlas.prompts.batch import Prompts
from atlas.prompts.tasks import Task, make_prompts
from atlas.prompts.tokens import encode_prompts
from atlas.proof import exact, fixtures
from atlas.proof.planted import LOGIT
from atlas.study.settings import task_block
from conftest import every_other, load_tokenizer
from random_models import EVERY, VOCAB, build, save

N, S = 5, 7
OTHERS = sorted({*EVERY} - {"gpt2", "gemma3"})  # families


@pytest.fixture(scope="module")
def prompts(config):
    """Four prompts of the shipped task: members at different tokens, the rest of each pair of runs alike."""
    block = task_block(config, "number_words") | {"per_template": 16, "held_out_share": 0}
    made = make_prompts(Task.from_config("number_words", block))
    rows = encode_prompts(made, load_tokenizer("shipped"), False, "number_words").rows
    return Prompts.from_frame(pd.DataFrame(rows[::13]), ["all"])


@pytest.fixture(scope="module")
def patched(shipped_model, prompts):
    return patching.patch_all(shipped_model, prompts)


def cells(patched, site, direction):
    """(layer, head or position) -> logit differences [N] of a site."""
    found = zip(patched.patches, patched.values[direction], strict=True)
    return {(p.layer, max(p.head, p.position)): values for p, values in found if p.site == site}


# ---- against TransformerLens ---------------------------------------------------------------------------------
TOOLS = {site: f"get_act_patch_{site}" for site in BY_POSITION} | {
    site: f"get_act_patch_attn_head_{'out' if site == 'z' else site}_all_pos" for site in BY_HEAD
}


@pytest.mark.parametrize("site", every_other(TOOLS))
def test_every_map_equals_transformerlens_patching(shipped_model, prompts, patched, site):
    from transformer_lens import patching as tools

    bridge, rows = shipped_model.bridge, torch.arange(len(prompts))

    def metric(logits):
        return (logits[rows, -1, prompts.answer] - logits[rows, -1, prompts.incorrect]).mean()

    with torch.no_grad():
        _, clean = bridge.run_with_cache(prompts.tokens)
        expected = getattr(tools, TOOLS[site])(bridge, prompts.corrupted_tokens, clean, metric)
    found = cells(patched, site, "denoising")
    assert len(found) == expected.numel()
    for (layer, index), values in found.items():
        assert values.mean() == pytest.approx(float(expected[layer, index]), abs=1e-4)


def test_noising_swaps_the_runs(shipped_model, prompts, patched):
    swapped = Prompts(
        prompts.corrupted_tokens, prompts.tokens, prompts.answer, prompts.incorrect, prompts.prompt, prompts.group
    )
    other = patching.patch_all(shipped_model, swapped)
    assert np.abs(patched.values["noising"] - other.values["denoising"]).max() < 1e-4
    assert np.array_equal(patched.clean, other.corrupted)


# ---- against hooks, in every family --------------------------------------------------------------------------
@pytest.mark.parametrize("family", ["gpt2", "gemma3", *(pytest.param(f, marks=pytest.mark.slow) for f in OTHERS)])
def test_the_engine_equals_hooks(family, tmp_path):
    torch.manual_seed(0)
    network = build(family)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(tmp_path)
    load_tokenizer("shipped").save_pretrained(tmp_path)
    model = models.load(tmp_path, device="cpu", dtype="float64", batch_size=3)
    tokens, corrupted = torch.randint(VOCAB, (N, S)), torch.randint(VOCAB, (N, S))
    corrupted[:, [0, 1, 4]] = tokens[:, [0, 1, 4]]  # positions where a patch at the first layer changes nothing
    random = Prompts(tokens, corrupted, torch.arange(N), torch.arange(N) + 1, list(range(N)), torch.zeros(N))
    found, expected = (patching.patch_all(model, random, use_engine=e) for e in (True, False))
    assert sum(p.site == "k" for p in found.patches) == 3 * {"llama": 2, "gemma2": 1, "gemma3": 2, "olmo2": 2}.get(
        family, 4
    )
    assert found.patches == expected.patches
    for name in ("clean", "corrupted"):
        assert np.abs(getattr(found, name) - getattr(expected, name)).max() < EVERY[family]
    alike = [
        family != "olmo2" or p.site not in "qk" for p in found.patches
    ]  # there hooks patch before a norm of all heads
    for direction, values in found.values.items():
        assert np.abs(values - expected.values[direction])[alike].max() < EVERY[family], direction
        assert np.abs(values - (found.corrupted if direction == "denoising" else found.clean)).max() > 0.1


# ---- planted mechanisms --------------------------------------------------------------------------------------
def planted(name, family, folder):
    fixture = next(f for f in exact.all_fixtures() if (f.name, f.family) == (name, family))
    model = models.load(fixture.build(folder), device="cpu", batch_size=64)
    return fixture, patching.patch_all(model, fixture.prompts())


@pytest.mark.parametrize("family", exact.FAMILIES)
@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("two_heads", {"0.1": 1, "2.2": 1}),
        ("induction", {"0.2": 0, "1.1": 1}),  # 0.2 alone makes 1.1 look for a token that is not there
        ("inhibitory", {"0.1": 1, "2.3": 2, "2.0": -1}),
    ],
)
def test_patched_heads_restore_what_they_were_planted_to_do(name, shares, family, tmp_path):
    """Shares of the logit difference that z of each head restores; all others restore nothing, nor does any pattern."""
    fixture, found = planted(name, family, tmp_path)
    full = fixture.full
    assert found.clean == pytest.approx(full, abs=1e-3 * LOGIT)
    assert found.corrupted == pytest.approx(0, abs=1e-3 * LOGIT)
    for (layer, head), values in cells(found, "z", "denoising").items():
        assert values == pytest.approx(shares.get(f"{layer}.{head}", 0) * full, abs=1e-3 * LOGIT)
    for values in cells(found, "pattern", "denoising").values():
        assert values == pytest.approx(0, abs=1e-3 * LOGIT)


def test_the_residual_carries_the_answer_from_the_last_member_to_the_last_position(tmp_path):
    """In `two_heads` it sits at the last member before layer 0, and at the last position ever after."""
    fixture, found = planted("two_heads", "gpt2", tmp_path)
    last = len(fixture.slots)  # BOS stands at 0
    member = max(i for i, slot in enumerate(fixture.slots, 1) if slot != fixtures.FILLER)
    for direction, there, elsewhere in (("denoising", fixture.full, 0), ("noising", 0, fixture.full)):
        for (layer, position), values in cells(found, "resid_pre", direction).items():
            carries = position == (member if layer == 0 else last)
            assert values == pytest.approx(there if carries else elsewhere, abs=1e-3 * LOGIT), (direction, layer)


# ---- tables --------------------------------------------------------------------------------------------------
def test_both_directions_are_measured_from_the_corrupted_to_the_clean_run():
    patches = [Patch("z", 0, head=1), Patch("resid_pre", 0, position=1)]
    clean, corrupted = np.array([4.0, 6.0]), np.array([-1.0, 1.0])  # means 5 and 0
    values = {"denoising": np.array([[1.0, 2.0], [4.0, 6.0]]), "noising": np.array([[4.0, 6.0], [-1.0, 1.0]])}
    rows = patching.patching_rows(
        patching.Patched(patches, clean, corrupted, values), ["separators", "last"], Bootstrap(200)
    )
    assert list(rows[0]) == patching.COLUMNS
    assert [(r["direction"], r["role"], round(r["value"], 9)) for r in rows] == [
        ("denoising", "all", 0.3),
        ("denoising", "last", 1.0),
        ("noising", "all", 1.0),
        ("noising", "last", 0.0),
    ]
    assert all(r["ci_low"] <= r["value"] <= r["ci_high"] for r in rows)


def test_runs_that_do_not_differ_are_refused():
    same = np.array([2.0, 3.0])
    with pytest.raises(StudyError, match=r"heads\.patching_corruption or prompts\.corruption"):
        patching.patching_rows(patching.Patched([], same, same, {}), [], Bootstrap(200))


def test_runs_that_hardly_differ_are_refused_unless_that_is_allowed(caplog):
    """`allow_negative_clean` turns the refusal into a warning, as for ablation; but not where there is no effect."""
    clean, corrupted = np.array([1.0002, 1.0002]), np.array([1.0, 1.0])
    patched = patching.Patched([Patch("z", 0, 0)], clean, corrupted, {"denoising": [np.array([1.0001, 1.0001])]})
    with pytest.raises(StudyError, match="has nothing to restore"):
        patching.patching_rows(patched, [], Bootstrap(50))
    (row,) = patching.patching_rows(patched, [], Bootstrap(50), allow_no_effect=True)
    assert row["value"] == pytest.approx(0.5, rel=1e-9) and "as allow_negative_clean says" in caplog.text
    with pytest.raises(StudyError, match="has nothing to restore"):
        patching.patching_rows(patching.Patched([], clean, clean, {}), [], Bootstrap(50), allow_no_effect=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_takes_its_softmax_in_float32(tmp_path, dtype, heads):
    """As the plain forward pass does: against a softmax in float64 of the same scores, rounded once."""
    save("llama", tmp_path / "m")
    block = models.load(tmp_path / "m", device="cpu").weights.blocks[0]
    rng = torch.Generator().manual_seed(0)
    q, k = (8 * torch.randn(2, n, 6, 4, generator=rng) for n in (4, heads))
    q, k = q.to(dtype), k.to(dtype)
    found = block.pattern(q, k)
    read = k.repeat_interleave(4 // heads, 1)
    scores = (q @ read.transpose(-1, -2) / 2).double()
    expected = scores.masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf).softmax(-1)
    assert found.dtype == dtype and (found.double() - expected).abs().max() <= torch.finfo(dtype).eps / 2
