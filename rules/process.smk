# How this process plans and its jobs compute. Nothing here changes a result, and a workflow that uses this one as a
# module does without it (Snakefile).
import contextlib
import functools
import gc
import os
import subprocess
import sys
import threading
import time

import smart_open
from snakemake.benchmark import BenchmarkTimer
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake.script import PythonScript

from atlas.store.forks import Forks

# Jobs inherit these. By default glibc gives every freed tensor of some MB back to the system and faults its pages in
# again for the next one; keeping them halves the time that a study spends in the kernel, a tenth of all before.
for name, value in {"MMAP_MAX": 0, "TRIM_THRESHOLD": 2**32, "TOP_PAD": 2**26}.items():
    os.environ.setdefault(f"MALLOC_{name}_", str(value))

# Large studies are planned faster (docs/performance.md): Python looks for garbage less often among the millions of
# objects of a plan, and smart_open makes no new class each time that Snakemake asks it for the parts of a path.
gc.set_threshold(100_000, 50, 100)
smart_open.parse_uri = functools.cache(smart_open.parse_uri)


waiting = set()  # delays after which Snakemake will look for jobs again


def look_again_once(scheduler, delay):
    """Look for jobs after some seconds. In the place of JobScheduler._schedule_reevalutation, by which every job that
    ends adds another look a second to those of its limit of job starts: a tenth of a study's CPU time."""

    def look():
        waiting.discard(delay)
        scheduler._open_jobs.release()

    if delay not in waiting:
        waiting.add(delay)
        timer = threading.Timer(delay, look)
        timer.daemon = True  # nothing waits for it at the end
        timer.start()


JobScheduler._schedule_reevalutation = look_again_once

# Jobs of one thread on this machine do not import anew what others imported (scripts/atlas/store/forks.py).
FORKS = Forks()
SECONDS = (
    5  # between looks at how much a job takes, less at first; Snakemake waits half a minute, and looks more at first
)
in_a_process_of_its_own = PythonScript.execute_script


@contextlib.contextmanager
def measured(record, pid):
    """Fill the record of a rule's benchmark, as Snakemake does, but to the end of the job."""
    begin, timer = time.time(), BenchmarkTimer(pid, record, SECONDS)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.work()
        record.running_time = time.time() - begin


def as_a_fork(script, file, edit=False):
    """Run a rule's script; raises CalledProcessError where it fails. In the place of PythonScript.execute_script."""
    if script.threads != 1 or any((script.conda_env, script.container_img, script.env_modules, script.shadow_dir)):
        return in_a_process_of_its_own(script, file, edit)
    names, folder = ("TMPDIR", "TMP", "TEMPDIR", "TEMP"), script.resources.get("tmpdir")
    record = script.bench_record
    watched = functools.partial(measured, record) if record else contextlib.nullcontext
    status = FORKS.run(file, dict.fromkeys(names, folder) if folder else {}, watched)
    if status:
        raise subprocess.CalledProcessError(status, [sys.executable, file])


# not where somebody else has replaced it before, as bench/architectures.py does
if sys.platform == "linux" and in_a_process_of_its_own.__module__.startswith("snakemake"):
    PythonScript.execute_script = as_a_fork
