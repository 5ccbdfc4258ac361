# The study that is configured: checked, and what of it the rules share. Parsed again inside every job: nothing heavy is
# imported here.
import os
import re
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.utils import update_config

ROOT = Path(str(workflow.current_basedir)).parent
sys.path.insert(0, str(ROOT / "scripts"))

from atlas.edges.methods import preferred_scores
from atlas.core.errors import StudyError
from atlas.report import shown
from atlas.study import config_text, settings, validation


def checked_config():
    """Check the configuration before anything runs; one line names what is wrong.

    The default configuration is laid under it: a workflow that uses this one as a module gives only what it changes.
    """
    whole = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(whole, config)
    schema = yaml.safe_load((ROOT / "schemas" / "config.schema.yaml").read_text())
    try:
        config_text.refuse_changed_text(map(Path, workflow.configfiles), config)
        said = workflow.config_settings.config
        config.update(validation.validated(whole, schema, ROOT / "resources" / "published", said))
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
UNRELATED_TASKS = config["study"]["unrelated_tasks"]  # circuits are ablated and kept there, and nothing else is done
EXPLAINED_TASKS = settings.of_one_token(config, ALL_TASKS)  # what heads do is read at one answer token
EXPLAINED_MAIN = settings.of_one_token(config, MAIN_TASKS)
ANALYSES = config["heads"]["analyses"] if EXPLAINED_TASKS else []  # what is found out about heads
GENERATION = settings.generation_prompt_sets(config)  # prompt sets for generation under ablation
PUBLISHED = ROOT / "resources" / "published" / str(config["published"])  # read where config["published"] names it
WITH_EDGES = bool(config["edges"]["methods"])

# Settings that several rules take
STATISTICS = {key: config["statistics"][key] for key in ("bootstrap", "seed")}
REPORTED = {key: config["comparison"][key] for key in ("order", "threshold")}  # the node circuits that are compared
CANDIDATES = ("relative_tolerance", "never_test", "visit", "batch", "check_in_float32", "annealed_evaluations")
CANDIDATES = {key: config["search"][key] for key in CANDIDATES}
LARGEST_K = max(config["heads"]["ov"]["k"])

# Analyses of order that are of answers of main tasks; those are one token, or there is nothing to analyse
OF_ANSWERS = ("tuned_lens", "directions", "neurons", "features", "steering")

STUDY = shown.Study(  # what decides which figures and pages there are
    models=MODELS,
    main_tasks=MAIN_TASKS,
    tasks=ALL_TASKS,
    explained=EXPLAINED_TASKS,
    analyses=ANALYSES,
    has=frozenset(
        part
        for part, there in (
            (shown.EDGES, WITH_EDGES),
            (shown.ESTIMATES, config["scores"]["attribution"]),
            (shown.EDGE_ROLES, WITH_EDGES and config["edges"]["roles"]["method"]),
            (shown.GENERATION, GENERATION),
            (shown.PUBLICATION, config["published"]),
            *((name, EXPLAINED_MAIN or name not in OF_ANSWERS) for name in config["geometry"]["analyses"]),
        )
        if there
    ),
    settings=config
    | {
        "derived": {
            "tasks": ALL_TASKS,
            "explained_main_tasks": EXPLAINED_MAIN,
            # the method whose scores edge_membership.parquet holds
            "edge_score_method": preferred_scores(config["edges"]["methods"]),
            "largest_k": LARGEST_K,
        }
    },
)

ORDER = [name for name in config["geometry"]["analyses"] if name in STUDY.has]  # what is found out about order


wildcard_constraints:
    model="|".join(map(re.escape, MODELS)),
    task="|".join(map(re.escape, ALL_TASKS + UNRELATED_TASKS)),
