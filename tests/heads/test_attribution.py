"""Direct logit attribution against the model's own logits, TransformerLens's tools, and planted writes.

Tolerances: 1e-4 on logit differences of order 10 in float32; 1e-9 in float64, but 1e-5 for Llama, whose norm rounds to
float32 (`random_models`).
"""

import numpy as np
import pandas as pd
import pytest
import torch

from atlas.core.errors import StudyError
from atlas.core.statistics import Bootstrap
from atlas.heads import attribution
from atlas.model import forward, models
from atlas.model.models import z_hook
from atlas.prompts.batch import Prompts
from atlas.prompts.tasks import Task, make_prompts
from atlas.prompts.tokens import encode_prompts
from atlas.proof import exact
from atlas.proof.planted import LOGIT
from atlas.study.settings import task_block
from conftest import SHIPPED, load_tokenizer
from random_models import EVERY, NORMED, VOCAB, build, load_random


@pytest.fixture(scope="module")
def prompts(config):
    block = task_block(config, "numerals") | {"per_template": 16, "held_out_share": 0}
    made = make_prompts(Task.from_config("numerals", block))
    return Prompts.from_frame(pd.DataFrame(encode_prompts(made, load_tokenizer("shipped"), False, "x").rows), ["all"])


@pytest.fixture(scope="module")
def found(shipped_model, prompts):
    return attribution.attribute(shipped_model, prompts)


def rows(found, part) -> dict:
    return {keys["name"]: values for keys, values in found if keys["part"] == part}


def logit_diff(logits, prompts):
    n = torch.arange(len(prompts))
    return (logits[n, prompts.answer] - logits[n, prompts.incorrect]).numpy()


# ---- sums ----------------------------------------------------------------------------------------------------
def check_sums(found, expected, tolerance):
    """Rows of each part sum to the logit difference on every prompt; partial sums are the accumulated residual."""
    for part in ("write", "head"):
        assert np.abs(sum(rows(found, part).values()) - expected).max() < tolerance
    accumulated, write = rows(found, "accumulated"), rows(found, "write")
    constants = write.pop("final norm bias") + write.pop("unembedding bias")
    assert np.abs(accumulated["resid_post"] + constants - expected).max() < tolerance
    start = write.pop("embed") + write.pop("positions", 0)
    assert np.abs(accumulated["resid_pre 0"] - start).max() < tolerance
    n_layers = sum(name.startswith("m") for name in write)
    for layer in range(n_layers):
        middle = accumulated[f"resid_pre {layer}"] + write[f"attn {layer}"] + write.get(f"bias {layer}", 0)
        assert np.abs(accumulated[f"resid_mid {layer}"] - middle).max() < tolerance
        after = accumulated["resid_post" if layer == n_layers - 1 else f"resid_pre {layer + 1}"]
        assert np.abs(after - middle - write[f"m{layer}"]).max() < tolerance


def test_rows_sum_to_the_logit_difference_of_every_prompt(shipped_model, prompts, found):
    expected = logit_diff(shipped_model.run(prompts.tokens), prompts)
    assert np.abs(expected).mean() > 1
    check_sums(found, expected, 1e-4)


@pytest.mark.parametrize("family", EVERY)
def test_rows_sum_in_every_family(family, tmp_path):
    torch.manual_seed(0)
    network = build(family)
    for name, parameter in network.named_parameters():
        if "norm" in name or "ln_" in name or name.endswith("bias"):
            torch.nn.init.normal_(parameter, mean=1, std=0.3)  # norms and biases that would show if left out
    network.save_pretrained(tmp_path)
    load_tokenizer("shipped").save_pretrained(tmp_path)
    model = models.load(tmp_path, device="cpu", dtype="float64", batch_size=3)
    tokens = torch.randint(VOCAB, (5, 7))
    random = Prompts(tokens, tokens, torch.arange(5), torch.arange(5) + 1, list(range(5)), torch.zeros(5))
    found = attribution.attribute(model, random)
    names = set(rows(found, "write"))
    assert ("positions" in names, "bias 0" in names) == (family == "gpt2", family != "llama")
    cap, logits = model.weights.logit_cap, model.run(tokens)
    logits = logits if cap is None else cap * torch.atanh(logits / cap)  # rows are of logits before the cap
    check_sums(found, logit_diff(logits, random), EVERY[family])


@pytest.mark.parametrize("family", NORMED)
def test_a_heads_share_goes_through_the_norm_behind_attention(family, tmp_path):
    """By hand: each head's write as that norm and the final one take it, at the scales that they have in the run."""
    model = load_random(family, tmp_path / "model")
    tokens = torch.randint(VOCAB, (5, 7), generator=torch.Generator().manual_seed(0))
    prompts = Prompts(tokens, tokens, torch.arange(5), torch.arange(5) + 1, list(range(5)), torch.zeros(5))
    seen, w, name = {}, model.weights, "blocks.1.hook_attn_out"
    model.run(tokens, [(hook, lambda x, hook: seen.update({hook.name: x})) for hook in (z_hook(1), name)])
    block, final = w.blocks[1], forward.final_residual(w, tokens)[:, -1]
    z, total = seen[z_hook(1)][:, -1], block.b_o + 0
    for head in range(model.n_heads):
        total = total + z[:, head] @ block.w_o[head]
    gain = block.norm_attn_out.weight / (total.pow(2).mean(-1, keepdim=True) + block.norm_attn_out.eps).sqrt()
    ends = w.norm_final.weight / (final.pow(2).mean(-1, keepdim=True) + w.norm_final.eps).sqrt()
    difference = w.w_u[prompts.answer] - w.w_u[prompts.incorrect]
    found = rows(attribution.attribute(model, prompts), "head")
    for head in range(model.n_heads):
        expected = (z[:, head] @ block.w_o[head] * gain * ends * difference).sum(-1)
        assert np.abs(found[f"1.{head}"] - expected.numpy()).max() < EVERY[family]
    everything = sum(found[f"1.{head}"] for head in range(model.n_heads)) + found["bias 1"]
    reached = (seen[name][:, -1] * ends * difference).sum(-1)
    assert np.abs(everything - reached.numpy()).max() < EVERY[family]


# ---- TransformerLens -----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def folded():
    """The shipped model as TransformerLens's tools want it: weights folded and centred, but heads keep their b_V."""
    bridge = models.load(SHIPPED, device="cpu").bridge
    bridge.enable_compatibility_mode(disable_warnings=True, fold_value_biases=False)
    return bridge


def test_every_map_equals_transformerlens(folded, prompts, found):
    """Accumulated residual, layers and heads by `logit_attrs`. There an attention layer's row includes its b_O."""
    with torch.no_grad():
        _, cache = folded.run_with_cache(prompts.tokens)
        stacks = {
            "accumulated": cache.accumulated_resid(incl_mid=True, pos_slice=-1),
            "write": cache.decompose_resid(pos_slice=-1),
            "head": cache.stack_head_results(pos_slice=-1),
        }
        expected = {
            part: cache.logit_attrs(stack, prompts.answer, prompts.incorrect, pos_slice=-1).numpy()
            for part, stack in stacks.items()
        }
    by_layer = rows(found, "write")
    layers = range(len(folded.blocks))
    both = [[by_layer[f"attn {i}"] + by_layer[f"bias {i}"], by_layer[f"m{i}"]] for i in layers]
    ours = {
        "accumulated": list(rows(found, "accumulated").values()),
        "write": [by_layer["embed"], by_layer["positions"], *(x for pair in both for x in pair)],
        "head": [values for keys, values in found if keys["part"] == "head" and keys["head"] >= 0],
    }
    for part, values in expected.items():
        assert np.abs(values).max() > 0.5
        assert np.stack(ours[part]).shape == values.shape
        assert np.abs(np.stack(ours[part]) - values).max() < 1e-4, part


# ---- planted writes ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", exact.FAMILIES)
@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("two_heads", {"2.2": 1}),
        ("head_and_mlp", {"m1": 1}),
        ("inhibitory", {"2.3": 1, "2.0": -0.5}),
        ("cancelling", {"1.2": 1, "2.3": 1, "2.0": -1}),
    ],
)
def test_planted_writes_are_found_with_their_signs(name, shares, family, tmp_path):
    fixture = next(f for f in exact.all_fixtures() if (f.name, f.family) == (name, family))
    model = models.load(fixture.build(tmp_path), device="cpu", batch_size=64)
    for row, values in rows(attribution.attribute(model, fixture.prompts()), "head").items():
        assert values == pytest.approx(shares.get(row, 0) * LOGIT, abs=1e-3 * LOGIT), row


# ---- the rest ------------------------------------------------------------------------------------------------
def test_edits_show_in_the_stream(shipped_model, prompts):
    """With a head's z set to zero its attribution is 0, and later writes change."""

    def zero(z, hook):
        z = z.clone()
        z[:, :, 2] = 0
        return z

    tokens, answer, incorrect = prompts.tokens[:4], prompts.answer[:4], prompts.incorrect[:4]
    readout = attribution.Readout.of(shipped_model)
    values = []
    for edits in ([], [(z_hook(1), zero)]):
        stream = attribution.read_stream(shipped_model, tokens, edits)
        attributor = attribution.Attributor.of(readout, stream.resid_post, answer, incorrect)
        values.append(attribution.head_attribution(shipped_model, stream.z, attributor))
    assert values[0][1, 2].abs().min() > 1e-4
    assert values[1][1, 2].abs().max() == 0
    assert (values[1][2:] - values[0][2:]).abs().max() > 1e-4


def test_a_sum_that_misses_something_is_refused():
    complete = [({"part": part}, torch.tensor([1.0, -2.0])) for part in ("write", "head")]
    attribution.refuse_a_remainder(complete, torch.tensor([1.0, -2.0]), torch.float32)
    with pytest.raises(StudyError, match=r"each head leave 0\.1 of a logit difference"):
        halved = [complete[0], ({"part": "head"}, torch.tensor([1.0, -2.1]))]
        attribution.refuse_a_remainder(halved, torch.tensor([1.0, -2.0]), torch.float32)


def test_the_table_has_one_row_per_part_and_name_with_its_interval(found):
    table = pd.DataFrame(attribution.attribution_rows(found, Bootstrap(200)))
    assert list(table) == attribution.COLUMNS
    assert not table.duplicated(["part", "name"]).any()
    assert ((table.ci_low <= table.value) & (table.value <= table.ci_high)).all()
    heads = table[(table.part == "head") & (table["head"] >= 0)]
    assert list(heads.name) == [f"{layer}.{head}" for layer, head in zip(heads.layer, heads["head"], strict=True)]
