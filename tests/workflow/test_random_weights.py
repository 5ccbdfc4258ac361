"""A preset without its checkpoint: the configuration, the model and the tokens are those of the real study."""

import copy
import json
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from snakemake.utils import update_config
from transformers import AutoConfig, AutoModelForCausalLM

from atlas.core.errors import StudyError
from atlas.model import families, models, random_models, source
from atlas.prompts import tokens
from atlas.prompts.making import prompts_of
from atlas.store import artifacts
from atlas.study import checks, settings
from atlas.study.random_weights import resolve
from conftest import ROOT, SHIPPED

PRESETS = {  # preset -> (tokenizer in ../shared/tokenizers, published number of parameters)
    "gpt2-small": ("gpt2", 124_439_808),
    "gpt2-medium": ("gpt2", 354_823_168),
    "pythia-160m": ("pythia", 162_322_944),
    "pythia-1.4b": ("pythia", 1_414_647_808),
    "llama-2-7b-chat": ("llama2", 6_738_415_616),
    "llama-small": ("llama2", None),
    "smollm2": ("llama2", 134_515_008),
    "gemma-3-270m": ("gpt2", 268_098_176),
}
FETCHED = ("smollm2", "gemma-3-270m")  # presets whose own tokenizers come with the packages of their weights


def preset(config, name, **keys):
    merged = copy.deepcopy(config)
    update_config(merged, yaml.safe_load((ROOT / "presets" / f"{name}.yaml").read_text()))
    return merged | keys


# ---- the configuration ---------------------------------------------------------------------------------------
def test_a_checkpoint_study_is_left_as_it_is(config):
    assert resolve(config) is config
    for key, value in (("layers", 2), ("tokenizer", "gpt2")):
        with pytest.raises(StudyError, match=f"{key}: {value!r} is read with weights: random only"):
            resolve(config | {key: value})


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_run_on_random_weights(config, name):
    before = preset(config, name, weights="random", layers=2, tokenizer="/folder")
    untouched = copy.deepcopy(before)
    after = resolve(before)
    checks.check(after)
    assert before == untouched, "a new configuration, the old one as it was"
    assert after["study"]["models"] == [f"{name}-random"] == list(after["models"])
    assert after["study"]["title"] == f"Random weights, no findings: {before['study']['title']}"
    block, before_it = after["models"][f"{name}-random"], before["models"][name]
    assert not {"path", "hub", "revision"} & set(block)
    assert (block["layers"], block["tokenizer"]) == (2, "/folder")
    assert (block["dtype"], block["prepend_bos"]) == (before_it["dtype"], before_it["prepend_bos"])
    assert after["search"]["orders"] == ["bisect"] and after["comparison"]["controls"] == 20
    assert (after["edges"]["start"], after["edges"]["path_patching"]) == ("circuit", "start")
    assert bool(after["edges"]["methods"]) == bool(before["edges"]["methods"])
    assert after["study"]["tasks"] == before["study"]["tasks"] and after["figures"] == before["figures"]


def test_no_task_keeps_a_filter_of_its_own(config):
    config = copy.deepcopy(config) | {"weights": "random"}
    config["tasks"]["days"] |= {"filter": {"probability_ratio": 2}, "allow_negative_clean": False, "per_template": 500}
    block = settings.task_block(resolve(config), "days")
    assert (block["filter"], block["allow_negative_clean"], block["per_template"]) == (None, True, 1)
    assert block["cyclic"], "what makes the task is kept"


def test_a_local_checkpoint_lends_its_config_and_tokenizer(config):
    block = resolve(config | {"weights": "random"})["models"]["ladder-6x8-random"]
    assert block["architecture"] == "resources/models/ladder-6x8/config.json"
    assert block["tokenizer"] == "resources/models/ladder-6x8"


def test_a_model_without_an_architecture_is_refused(config):
    bad = copy.deepcopy(config) | {"weights": "random"}
    bad["models"]["ladder-6x8"] = {"hub": "gpt2"}
    with pytest.raises(StudyError, match=r"models.ladder-6x8.architecture: missing"):
        resolve(bad)
    bad["models"]["ladder-6x8"] = {"architecture": "x.json"}
    with pytest.raises(StudyError, match=r"models.ladder-6x8.tokenizer: missing"):
        resolve(bad)


def test_an_architecture_alone_needs_random_weights(config):
    merged = preset(config, "llama-small", weights="checkpoint")
    with pytest.raises(StudyError, match=r"models\.llama-small: give `path`"):
        checks.check(resolve(merged))


# ---- the model -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [n for n, (_, size) in PRESETS.items() if size])
def test_the_configs_that_ship_have_the_published_number_of_parameters(name):
    config = random_models.read_config(name, ROOT / "presets" / "configs" / f"{name}.json", None)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == PRESETS[name][1]


def test_layers_are_cut_and_never_added():
    path = ROOT / "presets" / "configs" / "gpt2-small.json"
    assert random_models.read_config("x", path, 3).num_hidden_layers == 3
    with pytest.raises(StudyError, match="layers: 13, but x has 12"):
        random_models.read_config("x", path, 13)
    with pytest.raises(StudyError, match=r"models.x.architecture: .*nowhere.json is not there"):
        random_models.read_config("x", path.parent / "nowhere.json", None)


def test_what_a_config_says_of_each_layer_is_cut_with_them(tmp_path):
    path = ROOT / "presets" / "configs" / "gemma-3-270m.json"
    config = random_models.read_config("x", path, 7)
    assert config.layer_types == [*["sliding_attention"] * 5, "full_attention", "sliding_attention"]
    config.save_pretrained(tmp_path)  # refuses a list of another length


def test_a_random_model_is_a_checkpoint_of_its_own(tmp_path):
    """It loads as one, the seed decides its weights, and it is not the checkpoint whose config it took."""
    config = random_models.read_config("x", SHIPPED / "config.json", 2)
    found = {}
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        parameters = random_models.build("x", config, SHIPPED, tmp_path / folder, "float32", seed)
        found[folder] = source.describe("x", tmp_path / folder)
    assert found["a"]["weights"] == found["b"]["weights"] != found["c"]["weights"]
    assert found["a"]["weights"] != source.describe("x", SHIPPED)["weights"]
    assert found["a"]["tokenizer"] == source.describe("x", SHIPPED)["tokenizer"]
    assert (found["a"]["n_layers"], found["a"]["n_heads"]) == (2, 8)
    assert "Random weights" in (tmp_path / "a" / "README.md").read_text()
    assert parameters == sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(tmp_path / "a").parameters())
    model = models.load(tmp_path / "a", device="cpu")
    assert (model.n_layers, model.n_heads) == (2, 8)


@pytest.mark.parametrize(("named", "expected"), [("bfloat16", "bfloat16"), ("float64", "float32"), (None, "float32")])
def test_auto_draws_weights_in_the_half_that_the_config_names(tmp_path, named, expected):
    config = random_models.read_config("x", SHIPPED / "config.json", 1)
    config.dtype = named
    random_models.build("x", config, SHIPPED, tmp_path, "auto", 0)
    assert source.dtype_of(tmp_path, "auto") == expected


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path):
    config = AutoConfig.for_model("gpt2", vocab_size=50, n_embd=8, n_layer=1, n_head=2)
    with pytest.raises(StudyError, match=r"models.x.tokenizer: .* the architecture embeds 50"):
        random_models.build("x", config, SHIPPED, tmp_path, "float32", 0)


def test_a_tokenizer_out_of_reach_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StudyError, match=r"models.x.tokenizer: 'nobody/nothing' .* --config tokenizer=/folder"):
        random_models.tokenizer_folder("x", "nobody/nothing", tmp_path)
    assert random_models.tokenizer_folder("x", str(SHIPPED), tmp_path) == SHIPPED
    assert random_models.tokenizer_folder("x", "resources/models/ladder-6x8", ROOT) == SHIPPED


# ---- the tasks -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [name for name in PRESETS if name not in FETCHED])
def test_the_tasks_of_every_preset_fit_its_tokenizer(config, shared, name):
    """Every task of the preset itself (not cut for random weights): no prompt rejected, one layout, BOS as it says."""
    merged = preset(config, name)
    folder = shared / "tokenizers" / PRESETS[name][0]
    tokenizer, bos = tokens.load_tokenizer(str(folder)), merged["models"][name]["prepend_bos"]
    limit = json.loads((ROOT / "presets" / "configs" / f"{name}.json").read_text())
    longest = limit.get("n_positions") or limit["max_position_embeddings"]
    for task in [*merged["study"]["tasks"], *merged["study"]["transfer_tasks"]]:
        block = settings.task_block(merged, task) | {"per_template": 40}
        encoded, _ = prompts_of(task, block, tokenizer, bos, longest, ROOT)
        assert encoded.rows and not encoded.rejected, task
        assert all((row["tokens"][0] == tokenizer.bos_token_id) == bos for row in encoded.rows)
        assert len(encoded.layout["members"]) == 4


# ---- marks ---------------------------------------------------------------------------------------------------
def test_pages_of_a_random_model_say_so():
    from atlas.report import pages

    assert "random weights" in pages.warning({"random_weights": True}) and not pages.warning({"model": "x"})
    said = pages.tables_page({}, "T", pages.warning({"random_weights": True}), "")
    assert "This model has random weights" in said and "random" not in pages.tables_page({}, "T", "", "")


def test_no_effect_is_refused_unless_allowed(caplog):
    from atlas.circuit.evaluation import refuse_no_effect

    full, empty = torch.tensor([1e-4, 3e-4]), torch.zeros(2)
    with pytest.raises(StudyError, match="no effect to explain"):
        refuse_no_effect("t", full, empty)
    refuse_no_effect("t", full, empty, allow=True)
    assert "going on" in caplog.text
    with pytest.raises(StudyError):
        refuse_no_effect("t", full, full, allow=True)


def test_every_config_that_ships_belongs_to_a_preset_with_an_engine():
    for path in (ROOT / "presets" / "configs").glob("*.json"):
        assert path.stem in PRESETS and (ROOT / "presets" / f"{path.stem}.yaml").is_file()
        assert json.loads(path.read_text())["model_type"] in families.names()


# ---- the workflow --------------------------------------------------------------------------------------------
def run_random(folder, *options) -> str:
    """What Snakemake says of a study of one task on two random layers of the shipped architecture, in a folder."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--directory", folder, "-s", ROOT / "Snakefile"]
    command += [*options, "--configfile", ROOT / "presets" / "smoke.yaml", "--config", "weights=random", "layers=2"]
    command += ["published=gpt2-small"]
    command += ['study={"tasks": ["numerals"], "transfer_tasks": ["days"]}']
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def random_study(tmp_path_factory):
    """The results of such a study, finished."""
    folder = tmp_path_factory.mktemp("random")
    run_random(folder)
    return folder / "results"


@pytest.mark.slow
def test_a_copy_of_its_folder_reruns_nothing(random_study, tmp_path):
    """Results need not lie beside the workflow, and the model that was built goes with them."""
    shutil.copytree(random_study.parent, tmp_path / "copy")
    assert "Nothing to be done" in run_random(tmp_path / "copy", "--dry-run")


@pytest.mark.slow
def test_the_whole_path_runs_on_random_weights(random_study):
    """Every stage, with results that carry the mark and none that does not."""
    assert {p.name for p in random_study.iterdir()} >= {"ladder-6x8-random", "figures"}
    assert not (random_study / "ladder-6x8").exists()
    model = artifacts.read_json(random_study / "ladder-6x8-random" / "model.json")
    assert model["random_weights"] is True and model["n_layers"] == 2
    table = artifacts.read_table(random_study / "ladder-6x8-random" / "comparison" / "cross.parquet")
    assert set(table.model) == {"ladder-6x8-random"} and set(table.task) == {"numerals", "days"}
    pages = random_study / "figures" / "ladder-6x8-random"
    for page in ("summary", "tables"):
        text = (pages / f"ladder-6x8-random.{page}.html").read_text()
        assert "Random weights, no findings" in text and "This model has random weights" in text


@pytest.mark.slow
def test_published_figures_stand_beside_a_random_model_and_are_marked(random_study):
    """Every figure runs through, none is said to agree or not, and every value of ours says why."""
    table = artifacts.read_table(random_study / "ladder-6x8-random" / "comparison" / "published.parquet")
    assert set(table["status"]) == {"not comparable", "not computed"} and table["within"].isna().all()
    beside = table[table["status"] == "not comparable"]
    assert {"circuit", "cross", "single_head", "single_mlp", "removal", "ov_next", "patching_z"} <= set(
        beside["figure"]
    )
    assert beside["ours"].notna().all() and (set(beside["task"]) == {"numerals"})
    assert beside["note"].str.startswith("not comparable because the model has random weights; ").all()
    assert table[table["status"] == "not computed"]["note"].str.len().min() > 0
    pages = random_study / "figures" / "ladder-6x8-random"
    assert "Beside published figures" in (pages / "ladder-6x8-random.summary.html").read_text()
    assert (pages / "ladder-6x8-random.published.svg").stat().st_size > 0


@pytest.mark.slow
def test_the_search_of_a_random_model_keeps_what_is_never_tested(random_study):
    found = artifacts.read_json(random_study / "ladder-6x8-random" / "numerals" / "circuits.json")["circuits"]
    assert [(c["order"], c["threshold"]) for c in found] == [("bisect", 20)]
    assert "0.0" in found[0]["heads"] and "m0" in found[0]["mlps"]
