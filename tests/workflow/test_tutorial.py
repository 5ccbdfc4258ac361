"""docs/tutorial.md works as it is written: its files, its commands in their order, its Python."""

import json
import re

import pandas as pd
import pytest

import documented
from study import in_clone

BLOCKS = [block for block in documented.blocks() if block.page == "docs/tutorial.md"]
INSTALLS = "pip install -e ."  # what needs a network; tests/workflow/test_install.py installs without one
COMMANDS = [
    documented.bare(line)
    for block in BLOCKS
    if block.language in documented.SHELL
    for line in block.text.splitlines()
    if documented.bare(line) not in ("", INSTALLS, "source .venv/bin/activate")  # `in_clone` does the latter
]


def test_it_has_a_study_commands_and_python():
    assert [block.language for block in BLOCKS].count("yaml") == 1 and len(COMMANDS) == 5
    assert [block.language for block in BLOCKS][-1] == "python"


@pytest.mark.slow
def test_it_works_as_it_is_written(cloned):
    (study,) = (block.text for block in BLOCKS if block.language == "yaml")
    (cloned / "my_tutorial.yaml").write_text(study)
    said = {}
    for command in COMMANDS:
        done = in_clone(cloned, command)
        assert done.returncode == 0, done.stdout + done.stderr
        said[command] = done.stdout + done.stderr
    data, quick, whole = (said[command] for command in COMMANDS[1:4])
    assert "ordinals: " in data and "first choice right" in data
    assert "search_nodes" in quick and "results/mine/first.html" in quick
    assert not re.search(r"^rule (search_nodes|choose_circuit|make_prompts):", whole, re.MULTILINE), "nothing twice"
    for page in (
        "results/figures/mine/mine.data.html",
        "results/mine/first.html",
        "results/mine/atlas.html",
        "results/report.html",
    ):
        assert (cloned / page).is_file()
    (code,) = (block.text for block in BLOCKS if block.language == "python")
    (cloned / "tutorial.py").write_text(code)
    done = in_clone(cloned, "PYTHONPATH=scripts python tutorial.py")
    assert done.returncode == 0, done.stderr
    folder = cloned / "results" / "mine"
    circuit = json.loads((folder / "comparison" / "circuits.json").read_text())["circuits"]["ordinals"]
    cross = pd.read_parquet(folder / "comparison" / "cross.parquet")
    kept = cross[(cross.circuit == "ordinals") & (cross.task == "ordinals") & (cross.metric == "percent_of_full")].iloc[
        0
    ]
    lines = done.stdout.splitlines()
    assert lines[0].endswith(", ".join([*circuit["heads"], *circuit["mlps"]]))
    assert f"{kept.value:.1f} % [{kept.ci_low:.1f}, {kept.ci_high:.1f}]" in lines[1]
    assert lines[2].split()[0] in circuit["heads"] and "answer" in lines[3]
