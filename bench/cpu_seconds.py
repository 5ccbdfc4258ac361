"""CPU seconds of a finished study by rule, as a table in Markdown; of two studies side by side, with their ratio.

python bench/cpu_seconds.py CLONE [CLONE], where the study ran in each (`benchmarks/` holds what Snakemake measured of
every job). A job is measured every half second at first, then every half minute: of a job in a process of its own the
end is missed, of a forked one nothing. What no job is told of, Snakemake's own time and that of imports which jobs
share, is in what `time make run CORES=2` says of all processes (user + sys).
"""

import argparse
import csv
from collections import Counter
from pathlib import Path


def by_rule(clone: Path) -> tuple[Counter[str], Counter[str]]:
    """Rule -> jobs, rule -> CPU seconds of all of them; a job too short to be measured counts as none."""
    jobs: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for path in sorted((clone / "benchmarks").rglob("*.tsv")):
        with open(path) as file:
            (row,) = csv.DictReader(file, delimiter="\t")
        jobs[path.stem] += 1
        seconds[path.stem] += 0.0 if row["cpu_time"] in ("NA", "-") else float(row["cpu_time"])
    return jobs, seconds


def table(clones: list[Path]) -> str:
    """A row for each rule, the dearest of the first clone first, and one for all of them."""
    found = [by_rule(clone) for clone in clones]
    rules = sorted(set().union(*(jobs for jobs, _ in found)), key=lambda rule: -found[0][1][rule])
    lines = [f"| rule | {' | '.join('jobs | CPU s' for _ in clones)} |{' ratio |' if clones[1:] else ''}"]
    lines.append(f"|---|{'---|---|' * len(clones)}{'---|' if clones[1:] else ''}")
    for name in [*rules, "all"]:
        own = [(sum(j.values()), sum(s.values())) if name == "all" else (j[name], s[name]) for j, s in found]
        shown = " | ".join(f"{jobs} | {seconds:.1f}" for jobs, seconds in own)
        ratio = f" {own[1][1] / own[0][1]:.2f} |" if clones[1:] and own[0][1] else " |" if clones[1:] else ""
        lines.append(f"| {'all' if name == 'all' else f'`{name}`'} | {shown} |{ratio}")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clones", nargs="+", type=Path)
    print(table(parser.parse_args().clones[:2]))
