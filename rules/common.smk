# Functions that the rules share, on top of the study (study.smk).
import functools

from snakemake.settings.types import DeploymentMethod

from atlas.circuit.kinds import KINDS
from atlas.prompts import generator
from atlas.prompts.tasks import expand_members
from atlas.proof import board_parts
from atlas.report import captions, contents
from atlas.report.atlas.tables import FIRST as IN_FIRST_PAGE, TABLES as IN_ATLAS
from atlas.report.shown import EXPLAINED, EXPLAINED_MAIN as ON_MAIN, MAIN, MODEL, OWN, TASK, Table
from atlas.store import places, sources

ATLAS = "scripts/atlas/report/atlas"  # where the template of its page and what it is filled with lie


# ---- what every rule states ----------------------------------------------------------------------------------
def library(*paths):
    """Content hash of a script and of the modules of scripts/atlas that it imports, directly or through others, with
    the versions of the packages that these import (with `--sdm conda`: the environment's file). Modules that it finds
    by name are given beside it.

    As a param of a rule it makes an edit, or another version, rerun the rules that use it, and no others. Snakemake
    itself tracks the script only, and by its time, which any checkout changes, and the place of a conda environment;
    profiles/default switches both off.
    """
    return sources.of(*paths).digest(conda_environment())


def library_of_task(script):
    """The same of a script that makes prompts, with the generator of the task, which no import statement names."""
    return lambda wildcards: library(script, generator.source_of(config["tasks"][wildcards.task]))


@functools.cache
def conda_environment():
    """What the jobs' environment is made from, where Snakemake makes one; else None."""
    if DeploymentMethod.CONDA not in workflow.deployment_settings.deployment_method:
        return None
    return (ROOT / "envs" / "environment.yaml").read_text()


def needs(memory, minutes, gpu=False):
    """Resources of a job: MB and minutes, which grow with each attempt at a job that failed (`retries` of a profile);
    and, of a job that runs the model, a GPU where the model asks for one (`auto` takes what is there)."""
    grown = {"mem_mb": lambda wildcards, attempt: memory * attempt}
    grown |= {"runtime": lambda wildcards, attempt: minutes * attempt}
    wanted = {"gpu": lambda wildcards: 1 if model_block(wildcards)["device"] == "cuda" else 0}
    return grown | (wanted if gpu else {})


def filled(folder, **names):
    """Outputs in a folder, none of which may be empty."""
    return {key: ensure(f"{folder}/{name}", non_empty=True) for key, name in names.items()}


def made(folder, *tables):
    """The same of tables that not every study makes: those that this one makes; all of them where it makes none, and
    nothing asks for them."""
    files = {name: f"{name}.json" if name == "patterns" else f"{name}.parquet" for name in tables}
    own = {name: file for name, file in files.items() if shown.MADE_BY[name] in ANALYSES}
    return filled(folder, **(own or files))


def each(kind, name):
    """Input function: a file of every task of a kind, of the wildcard's model."""
    return lambda wildcards: [f"results/{wildcards.model}/{task}/{name}" for task in STUDY.tasks_of(kind)]


def as_made(tables):
    """Input function: those of the tables that the study makes."""
    return lambda wildcards: shown.places(shown.made(tables, STUDY), STUDY, wildcards.model)


def one_of(names):
    """Pattern of a wildcard that is one of these; of none it matches nothing."""
    return "|".join(map(re.escape, names)) or r"(?!)"


# ---- figures and pages (scripts/atlas/report/contents.py) ----------------------------------------------------
def in_report(row):
    """The file of a figure or page, with its place in the report."""
    return report(row.path, caption=f"../{row.caption_file}", category=row.category, labels=row.labels)


def figure_files(rows):
    """What a drawing job leaves: figures, each with its PNG and PDF, and pages."""
    kinds = [[] if row.page else [row.path.replace(".svg", kind) for kind in (".png", ".pdf")] for row in rows]
    return [file for row, beside in zip(rows, kinds, strict=True) for file in (in_report(row), *beside)]


def said_of(rows):
    """Param function: title and caption of each figure, which its files hold."""
    return lambda wildcards: {row.name: captions.of(row, ROOT, wildcards, config) for row in rows if not row.page}


def pages(rule):
    """What a rule of pages writes, those that the study has; the first in any case, as a rule needs an output."""
    rows = contents.BY_RULE[rule]
    return {row.name: in_report(row) for row in rows if row.is_shown(STUDY) or row is rows[0]}


def tables_of(rule):
    """Input function: the tables that a rule's figures and pages show, for pages those of them that the study makes."""
    tables = {}
    for row in contents.BY_RULE[rule]:
        tables |= shown.made(row.tables, STUDY) if row.page else row.tables | shown.made(row.also, STUDY)
    return lambda wildcards: shown.places(tables, STUDY, **dict(wildcards.items()))


def shown_with(rows):
    """The settings that a rule's figures show, and no others."""
    return {name: STUDY.setting(key) for row in rows for name, key in row.settings.items()}


def figure_code(rows):
    """As `library`, of figures, whose modules scripts/plot.py finds by their names."""
    return library("scripts/plot.py", *(f"scripts/atlas/report/figures/{row.name}.py" for row in rows))


def drawn_for(row):
    """Constraints of the rule's wildcard, where not every task has the figure."""
    if row.of == shown.CIRCUIT:
        return {"circuit": one_of([*MAIN_TASKS, shown.SHARED])}
    return {"task": one_of(EXPLAINED_MAIN)} if row.of == ON_MAIN else {}


def of_job(row, folder, suffix):
    """Log, or benchmark, of a rule that draws."""
    of = f"{{{row.wildcard}}}/" if row.wildcard else ""
    return f"{folder}/{{model}}/{of}{row.made_by}.{suffix}"


def figures_and_pages():
    """Every figure and page of the study."""
    return [file for row in contents.SHOWN for file in row.files(STUDY)]


def atlas_page(model):
    return f"results/{model}/atlas.html"


def atlas_in_report(page, of):
    """An atlas page with its place in the report, beside the summary, whose cards lead into it."""
    labels = {"model": of, "page": "atlas"}
    return report(page, caption="../report/atlas.rst", category=contents.SUMMARY, labels=labels)


def atlas_pages():
    """The atlas page of each model, and of a study of several one of them all."""
    return [*map(atlas_page, MODELS), *(["results/atlas.html"] if len(MODELS) > 1 else [])]


def atlas_tables(wildcards):
    """What an atlas page shows: of a model, or of all, under each name the files of its models and their tasks."""
    tables, models = shown.made(IN_ATLAS, STUDY), [dict(wildcards.items())["model"]] if wildcards else MODELS
    found = {name: [] for name in tables}
    for model in models:
        for name, files in shown.places(tables, STUDY, model).items():
            found[name] += [files] if isinstance(files, str) else files
    return found


def first_tables(wildcards):
    """What the first page of a model shows: of the first task, as soon as its circuit is chosen."""
    return shown.places(
        {name: Table(table.file, MODEL if table.of == MODEL else OWN) for name, table in IN_FIRST_PAGE.items()},
        STUDY,
        wildcards.model,
        MAIN_TASKS[0],
    )


PARTS_OF_ATLAS = [f"{ATLAS}/{part}" for part in ("bundle.js", "page.css")]
# What an atlas page is written with, beside its tables
SHOWN_IN_ATLAS = {
    "code": library("scripts/write_atlas.py", *PARTS_OF_ATLAS),
    "title": config["study"]["title"],
    "tasks": {kind: STUDY.tasks_of(kind) for kind in (TASK, MAIN, EXPLAINED)},
    "kind": config["ablation"]["kind"],
    "threshold": config["comparison"]["threshold"],
    "thresholds": config["search"]["thresholds"],
    "orders": list(settings.order_names(config["search"]["orders"])),
    "labels": config["heads"]["labels"],
    "k": LARGEST_K,
    "megabytes": config["atlas"]["megabytes"],
}


def scores_of_components(wildcards):
    """What a task's prompts lose by single ablations: of main tasks."""
    file = f"results/{wildcards.model}/{wildcards.task}/component_scores.parquet"
    return {"scores": file} if wildcards.task in MAIN_TASKS else {}


EXPORTED = {"study": "circuit.study.json", "graph": "circuit.graph.json", "dot": "circuit.dot"}
EXPORTED |= {"attribution": "circuit.attribution.json", "tensors": "circuit.graph.pt"} if WITH_EDGES else {}


def exports():
    """The reported circuits in the formats of other tools; and, in a study of several models, their comparison."""
    files = expand("results/{model}/{task}/{name}", model=MODELS, task=MAIN_TASKS, name=EXPORTED.values())
    return files + (["results/comparison/models.parquet"] if len(MODELS) > 1 else [])


# ---- models --------------------------------------------------------------------------------------------------
def model_block(wildcards):
    return config["models"][wildcards.model]


def prepend_bos(wildcards):
    return model_block(wildcards)["prepend_bos"]


def model_source(wildcards):
    """Where a model of the hub comes from, or the content of a GGUF; of a local checkpoint, its files: new weights rerun
    what depends on them."""
    block = model_block(wildcards)
    if "gguf" in block and "path" not in block:
        return places.gguf_source(block)
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


# ---- tasks and their data ------------------------------------------------------------------------------------
def of_task(key):
    """Param function: a key of a task's block over the defaults of `prompts`."""
    return lambda wildcards: settings.task_block(config, wildcards.task)[key]


def fits_constants(wildcards):
    """Param function: whether a stage reads constants of optimal ablation on a task's prompts."""
    kinds = [config["ablation"]["kind"], *(config["scores"]["kinds"] if wildcards.task in MAIN_TASKS else [])]
    return any(KINDS[kind].fitted for kind in kinds)


def task_settings(wildcards):
    """A task's block over the defaults of `prompts`, less what only later stages read and where its files are."""
    block = places.without_places(settings.task_block(config, wildcards.task))
    return {k: v for k, v in block.items() if k not in ("filter", "allow_negative_clean")}


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


# ---- circuits, edges, generation, publications ---------------------------------------------------------------
def computed_from(**more):
    """What a task's jobs compute from: the model, the prompts, clean scores and activations, and what is named."""
    names = {"prompts": "prompts.parquet", "clean": "clean.parquet", "means": "means.pt"}
    names |= {"activations": "activations.pt"} | more
    inputs = {key: f"results/{{model}}/{{task}}/{name}" for key, name in names.items()}
    return {"model": "results/{model}/model.json"} | inputs


def edge_tables(wildcards):
    """What the edge search of a task leaves, for rules that use edges; nothing in a study without edges."""
    folder = f"results/{wildcards.model}/{wildcards.task}"
    files = {"edge_circuits": f"{folder}/edge_circuits.json", "edge_scores": f"{folder}/edge_scores.parquet"}
    return files if WITH_EDGES else {}


def all_edge_tables(wildcards):
    """The same of every main task."""
    names = {"edge_circuits": "edge_circuits.json", "edge_scores": "edge_scores.parquet"}
    return {key: each(MAIN, name)(wildcards) for key, name in names.items()} if WITH_EDGES else {}


def own_circuits():
    """Name -> what is chosen from its file, and the file's content, of the user's circuits."""
    return {
        name: {"select": block.get("select"), "file": places.contents([places.below_root(block["file"])])}
        for name, block in config["circuits"].items()
    }


def own_circuits_of_task(wildcards):
    """The same of those that are assessed on a task."""
    tasks = {name: block.get("tasks", MAIN_TASKS) for name, block in config["circuits"].items()}
    return {name: block for name, block in own_circuits().items() if wildcards.task in tasks[name]}


def named_components():
    """Key of the configuration -> the components that it names."""
    own = {f"generation.own.{name}": heads for name, heads in config["generation"]["own"].items()}
    return {"search.never_test": config["search"]["never_test"]} | own


def generated_texts(wildcards):
    """What the model wrote, where completions were published and the study generates; else nothing."""
    names = [f"results/{wildcards.model}/generation/{name}.parquet" for name in ("prompts", "outputs")]
    return {"generated": names} if GENERATION and (PUBLISHED / "completions.json").is_file() else {}


def published_files():
    """Content of the files of the publication that the study is compared with."""
    return places.contents(PUBLISHED / name for name in ("study.json", "values.csv", "completions.json"))


def published_settings(wildcards):
    """Main task -> dotted key -> value: what decides whether published figures can be compared."""
    bos = prepend_bos(wildcards)
    return {task: settings.comparable(config, task) | {"model.prepend_bos": bos} for task in MAIN_TASKS}


def autoencoder_files():
    """Content of the autoencoder that is loaded; nothing where one is trained."""
    path = config["geometry"]["features"]["path"]
    folder = places.below_root(path) if path else None
    return places.contents([folder / "cfg.json", folder / "sae_weights.safetensors"]) if folder else None


# ---- the leaderboard (fixtures.smk) ---------------------------------------------------------------------------
BOARD_MODELS = board_parts.models_of(config["real"])
BOARD_PARTS = [*board_parts.PLANTED, *BOARD_MODELS]


@functools.cache
def board_task(part):
    """What a part of the leaderboard without a truth is made of: a model's block and a task's, from the default
    configuration or its preset, whatever study is configured; empty for planted models."""
    tried = BOARD_MODELS.get(part)
    if tried is None:
        return {}
    found = yaml.safe_load((ROOT / "config.yaml").read_text())
    if tried.preset:
        update_config(found, yaml.safe_load((ROOT / tried.preset).read_text()))
    update_config(found, {"prompts": dict(tried.prompts)})
    schema = yaml.safe_load((ROOT / "schemas" / "config.schema.yaml").read_text())
    found = validation.validated(found, schema, ROOT / "resources" / "published")
    model, task = found["models"][tried.model], settings.task_block(found, tried.task)
    return {"name": tried.model, "model_block": model, "task": tried.task, "block": task}


def library_of_board(part):
    """What a part is measured by, with the generator of its task."""
    task = board_task(part)
    return library("scripts/measure_board.py", *([generator.source_of(task["block"])] if task else []))


def board_files(part):
    """What stands for the content of its model's files."""
    block = board_task(part).get("model_block", {})
    if not block or "path" in block:
        return places.contents(places.checkpoint_files(block))
    return places.gguf_source(block)
