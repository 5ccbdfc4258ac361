"""Kill a study at random moments, resume it, and hold what it leaves against an uninterrupted run.

`make soak` does it a hundred times and writes docs/soak.md; tests/workflow/test_kills.py a few times.
"""

import argparse
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from study import ROOT, SNAKEMAKE, Study, artifacts_of, unlike

STARTED = re.compile(r"^Job (\d+): (.*)$", re.MULTILINE)
FINISHED = re.compile(r"^Finished jobid: (\d+) ", re.MULTILINE)


PAGE = """# Killed runs

Made by `make soak`: the smoke study is killed (SIGKILL to Snakemake and all its jobs) at random moments, resumed, and
killed again until it is done; then the next one starts from nothing. After every kill each artifact that is there must
have the very bytes of an uninterrupted run; at the end all must be there, and nothing else, no temporary file either. A
job that had finished must not run again. The first violation stops the soak, so this page exists only where there was
none. A killed Snakemake leaves its lock on the folder; `make resume` (or `snakemake --unlock`) takes it away.

{kills} kills in {studies} studies of {jobs} jobs each (seed {seed}); {planning} kills came before the first job of a
start. {repeated} jobs ran again, all of them on their way when a kill came. The uninterrupted study took
{seconds:.0f} s; Python {python}, {cores} cores.

| study | kill | seconds after start | jobs done in this start | on their way when killed |
|---|---|---|---|---|"""


@dataclass
class Run:
    """One start of the workflow, killed or not; jobs go by their messages, which name rule, model and task."""

    killed: bool
    seconds: float
    started: set[str] = field(default_factory=set)
    finished: set[str] = field(default_factory=set)


def run(study: Study, seconds: float | None = None, until=None, arguments=()) -> Run:
    """Start the workflow; after ``seconds``, or once ``until()`` is true, SIGKILL it and all its jobs."""
    log = study.folder / "run.log"
    with open(log, "w") as file:
        process = subprocess.Popen(
            [*SNAKEMAKE, *arguments], cwd=study.folder, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    begin, killed = time.monotonic(), False
    while process.poll() is None:
        waited = time.monotonic() - begin
        if (seconds is not None and waited >= seconds) or (until is not None and until()):
            os.killpg(process.pid, signal.SIGKILL)
            killed = True
            break
        time.sleep(0.02)
    process.wait()
    while killed and group_lives(process.pid):
        time.sleep(0.02)
    text = log.read_text()
    assert killed or process.returncode == 0, text
    names = dict(STARTED.findall(text))
    finished = {names[i] for i in FINISHED.findall(text) if i in names}  # the target `all` has no message
    return Run(killed, time.monotonic() - begin, set(names.values()), finished)


def group_lives(group: int) -> bool:
    """Whether a process of the group is left that is not merely waiting to be collected."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rsplit(")", 1)[1].split()[:3]
        except (OSError, IndexError):
            continue
        if int(its_group) == group and state != "Z":
            return True
    return False


def clear(study: Study) -> None:
    """Back to before the first run."""
    for name in ("results", "logs", "benchmarks", ".snakemake"):
        shutil.rmtree(study.folder / name, ignore_errors=True)


@dataclass
class Round:
    """A study that was killed, resumed, killed again, ... until it was done."""

    kills: list[Run]
    last: Run
    repeated: list[str]  # jobs that ran again, each of them on its way when a kill came


def killed_study(study: Study, reference: dict[str, bytes], moments, targets=()) -> Round:
    """Kill and resume a study from its beginning; ``moments`` yields seconds from each start to its kill.

    ``targets``: the artifacts to make, where that is not the whole study.

    Raises AssertionError where an artifact is half-written or another than the reference's, a finished job runs
    again, or the end is not the uninterrupted run's.
    """
    clear(study)
    kills, done, begun, repeated = [], set(), set(), []
    results = study.folder / "results"
    for seconds in moments:
        found = run(study, seconds, arguments=targets)
        again = found.started & done
        assert not again, f"finished jobs ran again: {sorted(again)}"
        repeated += sorted(found.started & begun)
        begun |= found.started
        done |= found.finished
        assert not unlike(results, reference), f"half-written or changed: {unlike(results, reference)}"
        if not found.killed:
            break
        kills.append(found)
        shutil.rmtree(study.folder / ".snakemake" / "locks", ignore_errors=True)  # as snakemake --unlock does
    else:
        raise AssertionError("the moments ran out before the study was done")
    wanted = set(targets) or {f"results/{name}" for name in reference}
    missing = wanted - {f"results/{name}" for name in artifacts_of(results)}
    assert not missing, f"missing: {sorted(missing)}"  # what is not the reference's was refused above
    left = [file.name for file in results.rglob(".*.tmp")]
    assert not left, f"left over: {left}"
    return Round(kills, found, repeated)


def soak(study: Study, kills: int, seed: int, longest: float):
    """Yield rounds until so many kills are made; the reference is made first, and yielded as a Run.

    A kill comes evenly up to ``longest`` seconds after a start: long enough for the longest job, which could not be
    done otherwise, and short enough for many kills on the way.
    """
    clear(study)
    first = run(study)
    reference = artifacts_of(study.folder / "results")
    yield first
    rng, made = random.Random(seed), 0
    while made < kills:
        found = killed_study(study, reference, iter(lambda: rng.uniform(0, longest), None))
        made += len(found.kills)
        yield found


def page(first: Run, rounds: list[Round], seed: int) -> str:
    """The log, in Markdown."""
    kills = [kill for one in rounds for kill in one.kills]
    repeated = [job for one in rounds for job in one.repeated]
    lines = [
        PAGE.format(
            kills=len(kills),
            studies=len(rounds),
            jobs=len(first.started),
            seed=seed,
            planning=sum(not kill.started for kill in kills),
            repeated=len(repeated),
            seconds=first.seconds,
            python=platform.python_version(),
            cores=os.cpu_count(),
        )
    ]
    for number, one in enumerate(rounds, start=1):
        for i, kill in enumerate([*one.kills, one.last], start=1):
            way = "; ".join(sorted(kill.started - kill.finished)) or "–"
            what = i if kill.killed else "done"
            lines.append(f"| {number} | {what} | {kill.seconds:.1f} | {len(kill.finished)} | {way} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=15, help="seconds from a start to its kill, at most")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "soak.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder) / "study")
        study.config["study"]["transfer_tasks"] = []  # the smoke preset as it is
        study.write_config(study.config)
        stream, rounds = soak(study, options.kills, options.seed, options.longest), []
        first = next(stream)
        print(f"uninterrupted: {first.seconds:.0f} s, {len(first.started)} jobs", flush=True)
        for found in stream:
            rounds.append(found)
            print(f"study {len(rounds)}: {len(found.kills)} kills, {len(found.repeated)} jobs again", flush=True)
            options.page.write_text(page(first, rounds, options.seed))


if __name__ == "__main__":
    main()
