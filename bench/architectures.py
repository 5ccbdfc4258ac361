"""Try architectures with tiny random models: a whole study of each, to its report or to the line that refuses it.

Writes docs/architectures.md. Before its study each model runs through TransformerLens hooks, with no engine, and is
held against the Hugging Face model: the logits, then the logits with one head and with one MLP set to zero, there by
hooks on the modules themselves. Outcomes are kept in .snakemake/architectures, family by family, so that a run that was
stopped goes on; remove that folder to start anew. Several runs share the work: `--part 0/3`, `1/3`, `2/3`.
Run: make families (about half an hour on 2 cores).

Snakemake and the scripts of its jobs run in forks of this process, which has their libraries loaded: that takes most of
the time of a small study otherwise. Benchmarks of jobs are left empty, since nothing measures a fork.
"""

import argparse
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
import warnings
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot  # noqa: F401, so that forks have it
import pandas  # noqa: F401
import snakemake.benchmark
import snakemake.script
import torch
import transformer_lens.model_bridge  # noqa: F401
from snakemake.cli import main as snakemake_main

import families
from atlas.circuit import hooks
from atlas.circuit.replacement import Replacement
from atlas.core.components import Component, all_components
from atlas.heads import analyses
from atlas.model import models
from families import HEADS, LAYERS, ROOT, Outcome

DONE = ROOT / ".snakemake" / "architectures"
TOLERANCE = 1e-4  # of logits of order 1 in float32


# ---- one family ------------------------------------------------------------------------------------------------
def node_level(family: str, folder: Path) -> str:
    """What is wrong with ablation on the bridge, or nothing."""
    try:
        original = families.build(family, folder)
        model = models.load(folder, device="cpu")
        if families.submodule(families.first_layer(original), families.ATTENTION) is None:
            return "has no attention heads"
        return compare(original, model)
    except Exception as error:  # a table of what fails, whatever the reason
        return brief(error)


def compare(original, model) -> str:
    """Logits, and logits without a head and without an MLP, of the bridge against hooks on the original's modules."""
    tokens = torch.randint(2, families.WORDS, (3, 9), generator=torch.Generator().manual_seed(0))
    everything = frozenset(all_components(model.n_layers, model.n_heads))
    shapes = {"z": (LAYERS, 1, 1, HEADS, model.d_head), "mlp_out": (LAYERS, 1, 1, model.d_model)}
    nothing = Replacement(*(torch.zeros(s) for s in shapes.values()), torch.zeros(3, dtype=torch.long))
    with torch.no_grad():
        clean = original(tokens).logits[:, -1]
    for what, component in (("logits", None), ("head", Component(0, 1)), ("MLP", Component(0))):
        circuit = everything - {component}
        try:
            wanted = families.zeroed(original, tokens, component) if component else clean
            found = model.run(tokens, hooks.edits(model, circuit, nothing), on_bridge=True)
        except Exception as error:
            return f"{what}: {brief(error)}"
        difference = (wanted - found).abs().max().item()
        if not difference < TOLERANCE:
            return f"{what}: logits differ by {difference:.2g}"
        if component and (wanted - clean).abs().max() < 10 * TOLERANCE:
            return f"{what}: ablating it changes nothing"
    return ""


def brief(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:110].replace("|", "/")


# ---- whole studies in forks ------------------------------------------------------------------------------------
def forked(work) -> bool:
    """Whether ``work()`` ends without an error, in a fork of this process."""
    process = os.fork()
    if process:
        return os.waitpid(process, 0)[1] == 0
    code = 1
    try:
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        sys.excepthook(*sys.exc_info())  # what a script says of its errors goes into its log
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def execute_script(self, file, edit=False) -> None:
    """In place of Snakemake's own, which starts a new Python for each script."""

    def run() -> None:
        sys.path.insert(0, str(Path.cwd() / "scripts"))
        runpy.run_path(file, run_name="__main__")

    if not forked(run):
        raise subprocess.CalledProcessError(1, file)


def in_a_fork(study) -> bool:
    """Run a study to its report, with what it prints in a file beside it."""

    def run() -> None:
        os.chdir(study.folder)
        with open("output.txt", "w") as output:
            for stream in (1, 2):
                os.dup2(output.fileno(), stream)
        for name in [name for name in sys.modules if name == "atlas" or name.startswith("atlas.")]:
            del sys.modules[name]  # the copy's own are imported
        sys.path.insert(0, str(study.folder / "scripts"))
        snakemake_main(["--cores", "1"])

    return forked(run)


# ---- the page --------------------------------------------------------------------------------------------------
INTRODUCTION = """\
# Architectures

Made by `bench/architectures.py` (`make families`): models of {layers} layers of {heads} heads with random weights,
built from the stock configuration of each family, norms and biases perturbed. For each a whole small study runs to its
report; where it is refused at its start, it runs again without what the refusal names. Before that the model runs
through TransformerLens hooks and is held against the Hugging Face model: the logits, and the logits with a head and
with an MLP of the first layer set to zero by hooks on the model's own modules (difference below {tolerance:g}).
{versions}.
{whole}

Node level: circuits of heads and MLPs, their evaluation, controls and stability, overlap, generation. Edges need the
live engine, which families with a file in `scripts/atlas/model/families` have; the others take hooks for the rest: the
same numbers, more slowly. Analyses are those of `heads.analyses`. What a family is not served is found out on the model
itself, before anything is searched. Options of its configuration count too: a model of a listed family can be served
less than the stock one here.

| family (`model_type`) | node level | edges | analyses of heads that ran | what is refused at the start, and why |
|---|---|---|---|---|"""


def page(found: dict[str, dict]) -> str:
    versions = f"transformer_lens {version('transformer_lens')}, transformers {version('transformers')}"
    whole = f"{sum(bool(r['ran']) for r in found.values())} of {len(found)} families run to their report."
    lines = [INTRODUCTION.format(layers=LAYERS, heads=HEADS, tolerance=TOLERANCE, versions=versions, whole=whole)]
    return "\n".join([*lines, *(row(family, outcome) for family, outcome in found.items())]) + "\n"


def row(family: str, outcome: dict) -> str:
    """The line of the table for one family."""
    heads = [name for name in outcome["ran"] if name != analyses.EDGES]
    listed = "all" if len(heads) == len(analyses.HEADS) else ", ".join(heads) or "none"
    why = outcome["refused"].partition(": ")[2].partition("; set ")[0].replace("|", "/")
    said = "; ".join(filter(None, (outcome["node"], outcome["problem"], why)))
    nodes, edges = outcome["ran"] and not outcome["node"], analyses.EDGES in outcome["ran"]
    return f"| `{family}` | {'yes' if nodes else 'no'} | {'yes' if edges else 'no'} | {listed} | {said} |"


def main() -> None:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", default="0/1", help="which share of the families, as in 1/3")
    parser.add_argument("--only", nargs="+", choices=families.FAMILIES, help="these families")
    parser.add_argument("--done", type=Path, default=DONE, help="the folder of outcomes")
    given = parser.parse_args()
    share, shares = map(int, given.part.split("/"))
    torch.set_num_threads(1)
    snakemake.script.PythonScript.execute_script = execute_script
    snakemake.benchmark.write_benchmark_records = lambda records, path, *_: Path(path).touch()
    given.done.mkdir(parents=True, exist_ok=True)
    for family in given.only or list(families.FAMILIES)[share::shares]:
        file = given.done / f"{family}.json"
        if not file.is_file():
            with tempfile.TemporaryDirectory() as folder:
                node = node_level(family, Path(folder) / "alone")
                try:
                    outcome = families.attempt(family, Path(folder), in_a_fork)
                except Exception as error:  # a table of what fails, whatever the reason
                    outcome = Outcome(problem=brief(error))
            file.write_text(json.dumps(asdict(outcome) | {"node": node}, indent=1))
        print(family, file.read_text(), flush=True)
    found = {family: given.done / f"{family}.json" for family in families.FAMILIES}
    if not given.only and all(file.is_file() for file in found.values()):
        text = page({family: json.loads(file.read_text()) for family, file in found.items()})
        (ROOT / "docs" / "architectures.md").write_text(text)


if __name__ == "__main__":
    main()
