"""Gather the tests of all tasks' circuits, and correct those that are read together."""

import pandas as pd

from atlas.circuit import cells, doubts
from atlas.compare import specificity
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

tests, members, controls = (artifacts.read_tables(inputs[name]) for name in ("tests", "members", "unseen"))
elsewhere, own, shared = (artifacts.read_tables(inputs[name]) for name in ("elsewhere", "own", "shared"))
own = pd.concat([own[own["circuit"] == own["task"]], shared[shared["circuit"] == "shared"]], ignore_index=True)
found = pd.DataFrame(specificity.rows_of(own, elsewhere, p.unrelated), columns=list(specificity.COLUMNS))
found.insert(0, "model", snakemake.wildcards.model)

provenance = job.provenance(snakemake)
artifacts.write_table(doubts.decided(tests), out.tests, provenance)
artifacts.write_table(members, out.members, provenance)
artifacts.write_table(cells.summary(controls, p.main_tasks), out.unseen, provenance)
artifacts.write_table(specificity.decided(found), out.specificity, provenance)
