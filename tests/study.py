"""The workflow as a user runs it: a copy of it in a folder of its own, and what a run or a dry run of it does."""

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from snakemake.utils import update_config

ROOT = Path(__file__).resolve().parent.parent
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--cores", "2"]
COPIED = (
    "Snakefile",
    "config.yaml",
    "rules",
    "scripts",
    "schemas",
    "presets",
    "profiles",
    "envs",
    "report",
    "resources",
)


NOT_CLONED = (
    ".git",
    ".venv",
    ".venv-site",
    ".snakemake",
    "results",
    "logs",
    "benchmarks",
    "htmlcov",
    "__pycache__",
    "data",
    "node_modules",
)


def clone(folder: Path) -> Path:
    """The whole project as `git clone` and `make` leave it, in a folder of its own, and ../shared beside it.

    Its .venv holds links to the environment that runs the tests, so nothing is installed.
    """
    made = folder / "circuit-atlas"
    shutil.copytree(ROOT, made, ignore=shutil.ignore_patterns(*NOT_CLONED, ".*_cache", ".hypothesis", ".coverage*"))
    (made / "results").mkdir()
    (made / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.name != "installed":
            (made / ".venv" / part.name).symlink_to(part)
    (made / ".venv" / "installed").touch()
    if (ROOT.parent / "shared").is_dir():
        (folder / "shared").symlink_to(ROOT.parent / "shared")
        (made / "data").mkdir()
        (made / "data" / "published").symlink_to(folder / "shared" / "published" / "prompts")
    return made


def in_clone(made: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in a clone with its .venv active, without a network where the libraries heed that."""
    line = f"source .venv/bin/activate && {command}"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(["bash", "-c", line], cwd=made, env=environment, capture_output=True, text=True)


class Study:
    """A copy of the workflow with the smoke preset as its configuration, and one transfer task.

    Results hold no path of a machine: studies have equal results, to the byte, wherever they run.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("node_modules"))
            else:
                shutil.copy(source, folder / name)
        self.config = yaml.safe_load((folder / "config.yaml").read_text())
        update_config(self.config, yaml.safe_load((folder / "presets" / "smoke.yaml").read_text()))
        self.config["study"]["transfer_tasks"] = ["days"]
        self.write_config(self.config)

    @property
    def model(self) -> Path:
        """The folder of its checkpoint."""
        return self.folder / "resources" / "models" / "ladder-6x8"

    def at(self, folder: Path) -> "Study":
        """The same study where its folder was copied or moved to."""
        moved = copy.copy(self)
        moved.folder = folder
        return moved

    def write_config(self, config):
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))

    def snakemake(self, *arguments, check=True, **options):
        done = subprocess.run([*SNAKEMAKE, *arguments], cwd=self.folder, capture_output=True, text=True, **options)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def would_run(self, *arguments, path=()) -> dict[str, int]:
        """Rule -> number of jobs that a dry run announces, without `all`; ``path``: folders to import from first."""
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))} if path else None
        done = self.snakemake("--dry-run", *arguments, env=environment)
        text = done.stdout + done.stderr
        stats = re.search(r"^job +count\n-+ +-+\n(.*?)\ntotal", text, re.MULTILINE | re.DOTALL)
        if stats is None:
            assert "Nothing to be done" in text, text
            return {}
        counts = dict(line.split() for line in stats[1].splitlines())
        return {rule: int(n) for rule, n in counts.items() if rule != "all"}

    def with_config(self, change) -> dict[str, int]:
        """What would run after ``change(config)``; the configuration is restored."""
        changed = copy.deepcopy(self.config)
        change(changed)
        self.write_config(changed)
        try:
            return self.would_run()
        finally:
            self.write_config(self.config)

    def with_edit(self, name) -> dict[str, int]:
        """What would run after a line is added to a file; the file is restored."""
        path = self.folder / name
        before = path.read_text()
        path.write_text(before + "\n# edited\n")
        try:
            return self.would_run()
        finally:
            path.write_text(before)


def artifacts_of(folder) -> dict[str, bytes]:
    """Path below a results folder -> content, of everything that a study declares; memo and hidden files are none."""
    files = [file for file in Path(folder).rglob("*") if file.is_file()]
    found = {file.relative_to(folder).as_posix(): file for file in files}
    return {
        name: file.read_bytes()
        for name, file in sorted(found.items())
        if not name.startswith("memo/") and not file.name.startswith(".")
    }


def unlike(folder, reference: dict[str, bytes]) -> list[str]:
    """The artifacts of a results folder whose content is not the reference's."""
    return [name for name, content in artifacts_of(folder).items() if reference.get(name) != content]
