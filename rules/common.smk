# Functions and names that the rules share. Parsed again inside every job: nothing heavy is imported here.
import ast
import functools
import hashlib
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

ROOT = Path(str(workflow.current_basedir)).parent
sys.path.insert(0, str(ROOT / "scripts"))

from atlas import settings
from atlas.errors import StudyError


def checked_config():
    """Validate the configuration before anything runs; one line names what is wrong."""
    try:
        validate(config, "../schemas/config.schema.yaml")
    except WorkflowError as error:
        if error.__context__ is None:
            raise
        raise WorkflowError(f"config: {settings.explain(error.__context__)}") from None
    try:
        settings.check(config)
    except StudyError as error:
        raise WorkflowError(f"config: {error}") from None


checked_config()

MODELS = config["study"]["models"]
MAIN_TASKS = config["study"]["tasks"]
MEMO = "results/memo"  # scores of evaluated circuits; no artifact, may be deleted at any time
ALL_TASKS = MAIN_TASKS + config["study"]["transfer_tasks"]


wildcard_constraints:
    model="|".join(map(re.escape, MODELS)),
    task="|".join(map(re.escape, ALL_TASKS)),


def library(script):
    """Content hash of a script and of the modules of scripts/atlas that it imports, directly or through others.

    As a param of a rule it makes an edit rerun the rules that use the edited file, and no others. Snakemake itself
    tracks the script only, and by its time, which any checkout changes; profiles/default switches that off.
    """
    seen, queue = {}, [ROOT / script]
    while queue:
        path = queue.pop()
        seen[path], imported = read_module(path)
        queue += [p for p in imported if p not in seen]
    return hashlib.sha256(
        repr(sorted((p.relative_to(ROOT).as_posix(), digest) for p, digest in seen.items())).encode()
    ).hexdigest()[:16]


@functools.cache
def read_module(path):
    """Content hash of a source file, and the atlas modules it imports anywhere, `from atlas import x` included."""
    source = path.read_text()
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    paths = [ROOT / "scripts" / f"{name.replace('.', '/')}.py" for name in sorted(names)]
    return hashlib.sha256(source.encode()).hexdigest(), [p for p in paths if p.is_file()]


def model_block(wildcards):
    return config["models"][wildcards.model]


def model_source(wildcards):
    """The leaves of a model's block that say where it comes from."""
    return {k: v for k, v in model_block(wildcards).items() if k in ("path", "hub", "revision")}


def model_files(wildcards):
    """Files of a local checkpoint, so that new weights rerun what depends on them."""
    block = model_block(wildcards)
    if "path" not in block:
        return []
    folder = ROOT / Path(block["path"]).expanduser()
    patterns = ("config.json", "tokenizer*", "*.safetensors", "pytorch_model*.bin")
    return sorted(str(file) for pattern in patterns for file in folder.glob(pattern))


def run_settings(wildcards):
    """How a model runs: device, dtype, batch_size, memory_mb."""
    return {k: model_block(wildcards)[k] for k in ("device", "dtype", "batch_size", "memory_mb")}


def task_settings(wildcards):
    """A task's block over the defaults of `prompts`, less what only later stages read."""
    block = settings.task_block(config, wildcards.task)
    return {k: v for k, v in block.items() if k not in ("filter", "allow_negative_clean")}


def task_files(wildcards):
    """Prompt files of a task, so that new prompts rerun what depends on them."""
    block = config["tasks"][wildcards.task].get("file", {})
    return [str(ROOT / block[k]) for k in ("clean", "corrupted") if k in block and (ROOT / block[k]).is_file()]


def gpu(wildcards):
    """One GPU where the model asks for one; `auto` takes what is there."""
    return 1 if model_block(wildcards)["device"] == "cuda" else 0


def task_table(name):
    """Input function: a table of every task of the wildcard's model."""
    return lambda wildcards: [f"results/{wildcards.model}/{task}/{name}" for task in ALL_TASKS]


def main_task_table(name):
    return lambda wildcards: [f"results/{wildcards.model}/{task}/{name}" for task in MAIN_TASKS]


def circuit_effects(wildcards):
    """Component effects of a circuit's task; of all main tasks for the shared circuit."""
    tasks = MAIN_TASKS if wildcards.circuit == "shared" else [wildcards.circuit]
    return expand("results/{model}/{task}/component_effects.parquet", model=wildcards.model, task=tasks)


def figures():
    """Every figure of the study."""
    names = ["clean_accuracy", "circuit_size", "survival", "overlap", "cross_matrix", "controls"]
    names += [f"{task}.dataset" for task in ALL_TASKS]
    names += [f"{task}.{figure}" for task in MAIN_TASKS for figure in ("component_effects", "search_trajectory")]
    names += [f"{circuit}.circuit_diagram" for circuit in [*MAIN_TASKS, "shared"]]
    return expand("results/figures/{model}/{model}.{name}.svg", model=MODELS, name=names)


def summary_pages():
    return expand("results/figures/{model}/{model}.{page}.html", model=MODELS, page=["summary", "tables"])
