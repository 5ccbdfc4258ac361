# Functions and names that the rules share. Parsed again inside every job: nothing heavy is imported here.
import functools
import gc
import os
import re
import sys
from pathlib import Path

import smart_open
import yaml
from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod
from snakemake.utils import update_config

ROOT = Path(str(workflow.current_basedir)).parent
sys.path.insert(0, str(ROOT / "scripts"))

from atlas.circuit.chosen import EDGE_SCORES
from atlas.core.errors import StudyError
from atlas.prompts import generator
from atlas.prompts.tasks import expand_members
from atlas.store import places, sources
from atlas.study import config_text, settings, validation

# Only where this workflow runs by itself: one that imports it as a module is left as it is.
if workflow.modifier.is_main_snakefile():
    # Jobs inherit these. By default glibc gives every freed tensor of some MB back to the system and faults its pages
    # in again for the next one; keeping them halves the time that a study spends in the kernel, a tenth of all before.
    for name, value in {"MMAP_MAX": 0, "TRIM_THRESHOLD": 2**32, "TOP_PAD": 2**26}.items():
        os.environ.setdefault(f"MALLOC_{name}_", str(value))

    # Large studies are planned faster (docs/performance.md): Python looks for garbage less often among the millions of
    # objects of a plan, and smart_open makes no new class each time that Snakemake asks it for the parts of a path.
    gc.set_threshold(100_000, 50, 100)
    smart_open.parse_uri = functools.cache(smart_open.parse_uri)


def checked_config():
    """Check the configuration before anything runs; one line names what is wrong.

    The default configuration is laid under it: a workflow that uses this one as a module gives only what it changes.
    """
    whole = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(whole, config)
    schema = yaml.safe_load((ROOT / "schemas" / "config.schema.yaml").read_text())
    try:
        config_text.refuse_changed_text(map(Path, workflow.configfiles), config)
        config.update(validation.validated(whole, schema, ROOT / "resources" / "published"))
    except StudyError as error:
        raise WorkflowError(f"config: {error}") from None


def refuse_read_only(*folders):
    """One line where something cannot be written, before anything runs: Snakemake itself would show a traceback."""
    for folder in folders:
        place = next(p for p in (Path(folder).absolute(), *Path(folder).absolute().parents) if p.exists())
        if not os.access(place, os.W_OK):
            raise WorkflowError(f"{place}: cannot be written; make it writable, or run in another folder")


checked_config()
refuse_read_only(".snakemake")

MODELS = config["study"]["models"]
RANDOM = config["weights"] == "random"  # models are built here, and every result is marked
MAIN_TASKS = config["study"]["tasks"]
ALL_TASKS = MAIN_TASKS + config["study"]["transfer_tasks"]
EXPLAINED_TASKS = settings.of_one_token(config, ALL_TASKS)  # what heads do is read at one answer token
EXPLAINED_MAIN = settings.of_one_token(config, MAIN_TASKS)
ANALYSES = config["heads"]["analyses"] if EXPLAINED_TASKS else []  # what is found out about heads
GENERATION = settings.generation_prompt_sets(config)  # prompt sets for generation under ablation
PUBLISHED = ROOT / "resources" / "published" / str(config["published"])  # read where config["published"] names it


wildcard_constraints:
    model="|".join(map(re.escape, MODELS)),
    task="|".join(map(re.escape, ALL_TASKS)),


@functools.cache
def library(script, *others):
    """Content hash of a script (and other files) and of the modules of scripts/atlas that it imports, directly or through others, with
    the versions of the packages that these import (with `--sdm conda`: the environment's file).

    As a param of a rule it makes an edit, or another version, rerun the rules that use it, and no others. Snakemake
    itself tracks the script only, and by its time, which any checkout changes, and the place of a conda environment;
    profiles/default switches both off.
    """
    return sources.of(script, *others).digest(conda_environment())


def library_of_task(script):
    """The same of a script that makes prompts, with the generator of the task, which no import statement names."""
    return lambda wildcards: library(script, generator.source_of(config["tasks"][wildcards.task]))


@functools.cache
def conda_environment():
    """What the jobs' environment is made from, where Snakemake makes one; else None."""
    if DeploymentMethod.CONDA not in workflow.deployment_settings.deployment_method:
        return None
    return (ROOT / "envs" / "environment.yaml").read_text()


def model_block(wildcards):
    return config["models"][wildcards.model]


def model_source(wildcards):
    """Where a model of the hub comes from; of a local checkpoint, its files: new weights rerun what depends on them."""
    block = model_block(wildcards)
    hub = {k: v for k, v in block.items() if k in ("hub", "revision")}
    return {"files": places.contents(places.checkpoint_files(block))} if "path" in block else hub


def checkpoint(wildcards):
    """The folder of a model that is built here."""
    return [f"results/{wildcards.model}/checkpoint"] if RANDOM else []


def random_source(wildcards):
    """What determines a model's random weights: size, dtype, and the files of its architecture and tokenizer."""
    block = model_block(wildcards)
    files = places.contents([places.below_root(block["architecture"])])
    tokenizer = places.matching(places.below_root(block["tokenizer"]), places.TOKENIZER)
    source = {"tokenizer": places.contents(tokenizer) if tokenizer else block["tokenizer"], "architecture": files}
    return source | {k: block[k] for k in ("layers", "dtype")}


def run_settings(wildcards):
    """How a model runs: device, dtype, batch_size, memory_mb."""
    return {k: model_block(wildcards)[k] for k in ("device", "dtype", "batch_size", "memory_mb")}


def task_settings(wildcards):
    """A task's block over the defaults of `prompts`, less what only later stages read and where its files are."""
    block = places.without_places(settings.task_block(config, wildcards.task))
    return {k: v for k, v in block.items() if k not in ("filter", "allow_negative_clean")}


def allow_negative_clean(wildcards):
    return settings.task_block(config, wildcards.task)["allow_negative_clean"]


def data_settings():
    """Task -> what a look at its data needs to know of its block."""
    blocks = {task: settings.task_block(config, task) for task in ALL_TASKS}
    keys = ("filter", "allow_negative_clean")
    return {task: {key: block[key] for key in keys} | {"file": "file" in block} for task, block in blocks.items()}


def task_files(wildcards):
    """Content of a task's prompt files, so that new prompts rerun what depends on them."""
    files = places.prompt_files(config["tasks"][wildcards.task])
    return {key: places.contents([file]) for key, file in files.items()}


def words_of_tasks():
    """Task -> its members in order, of the explained tasks whose members stand in the configuration."""
    blocks = {task: config["tasks"][task] for task in EXPLAINED_TASKS}
    return {task: list(expand_members(block["members"])) for task, block in blocks.items() if "members" in block}


def growing(amount):
    """A resource that grows with each attempt at a job that failed (`retries` of a profile)."""
    return lambda wildcards, attempt: amount * attempt


def gpu(wildcards):
    """One GPU where the model asks for one; `auto` takes what is there."""
    return 1 if model_block(wildcards)["device"] == "cuda" else 0


def task_table(name):
    """Input function: a table of every task of the wildcard's model."""
    return lambda wildcards: [f"results/{wildcards.model}/{task}/{name}" for task in ALL_TASKS]


def one_of(tasks):
    """Pattern of a wildcard that is one of these tasks; of none it matches nothing."""
    return "|".join(map(re.escape, tasks)) or r"(?!)"


def main_task_table(name):
    return lambda wildcards: [f"results/{wildcards.model}/{task}/{name}" for task in MAIN_TASKS]


def explained_table(name):
    """Input function: a table of every task whose answers are one token."""
    return lambda wildcards: [f"results/{wildcards.model}/{task}/{name}" for task in EXPLAINED_TASKS]


def explained_main_table(name):
    return lambda wildcards: [f"results/{wildcards.model}/{task}/{name}" for task in EXPLAINED_MAIN]


# Table of what heads do -> the analysis that makes it
HEAD_TABLES = {name: name for name in ("patching", "attribution", "ov", "backup")}
HEAD_TABLES |= dict.fromkeys(("attention", "attention_members", "patterns"), "attention")
HEAD_TABLES |= dict.fromkeys(("lens", "lens_tokens", "lens_lead", "lens_increments"), "lens")


def made(names):
    """Those of the tables of what heads do that the study's `heads.analyses` make."""
    return [name for name in names if HEAD_TABLES[name] in ANALYSES]


def head_table(name):
    return f"{name}.json" if name == "patterns" else f"{name}.parquet"


def with_analyses(*names):
    """Outputs of a task: the tables that the study makes; all of them where it makes none, and nothing asks for them."""
    files = {name: f"results/{{model}}/{{task}}/{head_table(name)}" for name in made(names) or names}
    return {name: ensure(file, non_empty=True) for name, file in files.items()}


def head_inputs(tasks, *names):
    """Input function: the tables of what heads do, of all these tasks, and the model's detectors, as far as made."""

    def found(wildcards):
        folder = f"results/{wildcards.model}"
        files = {name: [f"{folder}/{task}/{head_table(name)}" for task in tasks] for name in made(names)}
        return files | ({"detectors": f"{folder}/detectors.parquet"} if "detectors" in ANALYSES else {})

    return found


def head_findings(wildcards):
    """Tables of what heads do that the summary shows; none in a study whose main tasks all have longer answers."""
    if not (EXPLAINED_MAIN and ANALYSES):
        return {}
    names = ("patching", "attribution", "lens", "lens_lead", "lens_increments", "backup")
    found = head_inputs(EXPLAINED_MAIN, *names)(wildcards)
    return found | {"roles": f"results/{wildcards.model}/comparison/roles.parquet"}


def edge_tables(wildcards):
    """What the edge search of a task leaves, for rules that use edges; nothing in a study without edges."""
    folder = f"results/{wildcards.model}/{wildcards.task}"
    files = {"edge_circuits": f"{folder}/edge_circuits.json", "edge_scores": f"{folder}/edge_scores.parquet"}
    return files if config["edges"]["methods"] else {}


def all_edge_tables(wildcards):
    """The same of every main task."""
    names = {"edge_circuits": "edge_circuits.json", "edge_scores": "edge_scores.parquet"}
    found = {key: main_task_table(name)(wildcards) for key, name in names.items()}
    return found if config["edges"]["methods"] else {}


def with_edges(**names):
    """Output tables that exist in a study with edges only."""
    if not config["edges"]["methods"]:
        return {}
    return {key: ensure(f"results/{{model}}/{{task}}/{name}", non_empty=True) for key, name in names.items()}


def own_circuits(wildcards):
    """Name -> what is chosen from its file, and the file's content, of the user's circuits assessed on a task."""
    chosen = {n: b for n, b in config["circuits"].items() if wildcards.task in b.get("tasks", MAIN_TASKS)}
    return {
        name: {"select": block.get("select"), "file": places.contents([places.below_root(block["file"])])}
        for name, block in chosen.items()
    }


def circuit_effects(wildcards):
    """Component effects of a circuit's task; of all main tasks for the shared circuit."""
    tasks = MAIN_TASKS if wildcards.circuit == "shared" else [wildcards.circuit]
    return expand("results/{model}/{task}/component_effects.parquet", model=wildcards.model, task=tasks)


def edge_findings(wildcards):
    """Tables of edges that the summary shows; nothing in a study without edges."""
    found = all_edge_tables(wildcards)
    return found | {"edge_areas": main_task_table("edge_areas.parquet")(wildcards)} if found else {}


def edge_score_method():
    """The method whose scores edge_membership.parquet holds; None without one."""
    return next((m for m in EDGE_SCORES if m in config["edges"]["methods"]), None)


def generation_tables(wildcards):
    """What the summary reads of generation under ablation; nothing in a study without it."""
    return {"generation": f"results/{wildcards.model}/generation/summary.parquet"} if GENERATION else {}


def generated_texts(wildcards):
    """What the model wrote, where completions were published and the study generates; else nothing."""
    names = [f"results/{wildcards.model}/generation/{name}.parquet" for name in ("prompts", "outputs")]
    return {"generated": names} if GENERATION and (PUBLISHED / "completions.json").is_file() else {}


def published_files():
    """Content of the files of the publication that the study is compared with."""
    return places.contents(PUBLISHED / name for name in ("study.json", "values.csv", "completions.json"))


def published_settings(wildcards):
    """Main task -> dotted key -> value: what decides whether published figures can be compared."""
    bos = model_block(wildcards)["prepend_bos"]
    return {task: settings.comparable(config, task) | {"model.prepend_bos": bos} for task in MAIN_TASKS}


def published_table(wildcards):
    """What the summary reads of the comparison with published figures; nothing in a study without it."""
    return {"published": f"results/{wildcards.model}/comparison/published.parquet"} if config["published"] else {}


def figures():
    """Every figure of the study."""
    names = ["clean_accuracy", "circuit_size", "positions", "evaluation", "stability", "methods"]
    names += ["overlap", "cross_matrix", "controls"]
    if EXPLAINED_MAIN:
        names += ["patching_scatter"] if "patching" in ANALYSES else []
        names += [
            name for name in ("attribution", "lens", "attention", "detectors", "ov", "backup") if name in ANALYSES
        ]
    names += [f"{task}.{figure}" for task in ALL_TASKS for figure in ("dataset", "tokens")]
    names += [f"{task}.{figure}" for task in MAIN_TASKS for figure in ("component_effects", "search_trajectory")]
    names += [f"{task}.patching" for task in EXPLAINED_MAIN if "patching" in ANALYSES]
    names += [f"{circuit}.circuit_diagram" for circuit in [*MAIN_TASKS, "shared"]]
    if config["edges"]["methods"]:
        names += ["edge_curves", *(f"{circuit}.edge_diagram" for circuit in [*MAIN_TASKS, "shared"])]
    if GENERATION:
        names += ["generation"]
    if config["published"]:
        names += ["published"]
    return expand("results/figures/{model}/{model}.{name}.svg", model=MODELS, name=names)


def exports():
    """The reported circuits in the formats of other tools; and, in a study of several models, their comparison."""
    names = ["circuit.study.json", "circuit.graph.json"]
    files = expand("results/{model}/{task}/{name}", model=MODELS, task=MAIN_TASKS, name=names)
    return files + (["results/comparison/models.parquet"] if len(MODELS) > 1 else [])


HEAD_PAGES = {"patterns": "attention", "lens_tokens": "lens"}  # page beside the cards of heads -> its analysis


def head_page(page, **how):
    """Output of a page about heads, where the study makes its analysis; ``how``: arguments of `report`."""
    file = report(f"results/figures/{{model}}/{{model}}.{page}.html", **how)
    return {page: file} if HEAD_PAGES[page] in ANALYSES else {}


def summary_pages():
    """Every page of the study; one job writes those about heads."""
    pages = ["data", "summary", "tables"]
    if EXPLAINED_MAIN and ANALYSES:
        pages += ["heads", *(page for page, key in HEAD_PAGES.items() if key in ANALYSES)]
    return expand("results/figures/{model}/{model}.{page}.html", model=MODELS, page=pages)
