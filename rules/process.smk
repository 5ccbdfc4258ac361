# How this process plans and its jobs compute. Nothing here changes a result, and a workflow that uses this one as a
# module does without it (Snakefile).
import functools
import gc
import os

import smart_open

# Jobs inherit these. By default glibc gives every freed tensor of some MB back to the system and faults its pages in
# again for the next one; keeping them halves the time that a study spends in the kernel, a tenth of all before.
for name, value in {"MMAP_MAX": 0, "TRIM_THRESHOLD": 2**32, "TOP_PAD": 2**26}.items():
    os.environ.setdefault(f"MALLOC_{name}_", str(value))

# Large studies are planned faster (docs/performance.md): Python looks for garbage less often among the millions of
# objects of a plan, and smart_open makes no new class each time that Snakemake asks it for the parts of a path.
gc.set_threshold(100_000, 50, 100)
smart_open.parse_uri = functools.cache(smart_open.parse_uri)
