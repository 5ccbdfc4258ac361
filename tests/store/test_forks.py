"""Jobs as forks: each as in a process of its own, but for the time that imports take."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest

from atlas.store.forks import Forks
from conftest import ROOT

NOT_WATCHED = contextlib.nullcontext


@pytest.fixture(scope="module")
def forks():
    return Forks()


@pytest.fixture
def run(forks, tmp_path):
    """A function that runs a Python text as a job: its exit status, and what it wrote as JSON to `out`."""

    def run(text, watched=NOT_WATCHED, **environment):
        script = tmp_path / "script.py"
        script.write_text(f"import json, os, sys\nout = open({str(tmp_path / 'out')!r}, 'w')\n{text}")
        (tmp_path / "out").touch()
        status = forks.run(str(script), environment, watched)
        return status, (tmp_path / "out").read_text()

    return run


def test_a_job_is_told_what_a_script_of_its_own_is_told(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = "sys.argv, __name__, __file__, sys.path[0], os.getcwd(), os.environ['A'], sys.modules['__main__'].__file__"
    status, out = run(f"json.dump([{names}], out)", A="b")
    script, folder = str(tmp_path / "script.py"), str(tmp_path)
    assert status == 0 and json.loads(out) == [[script], "__main__", script, folder, folder, "b", script]


def test_jobs_share_no_state_but_modules(run):
    """A second job of the same script finds the module imported, as it was before the first one changed it."""
    text = "there = 'colorsys' in sys.modules\ncolorsys = __import__('colorsys')\n"
    text += "json.dump([there, hasattr(colorsys, 'mark')], out)\n"
    text += "colorsys.mark = os.environ['MARK'] = '1'"
    assert json.loads(run(text)[1]) == [False, False]
    assert json.loads(run(text)[1]) == [True, False]
    assert json.loads(run("json.dump('MARK' in os.environ, out)")[1]) is False


def test_a_script_finds_what_it_names_imported(run):
    """Also its first job; a name that is no module, or that cannot be imported, is left to the job."""
    text = "there = 'wave' in sys.modules\nimport wave\nfrom json import dumps\njson.dump(there, out)\nimport nowhere"
    assert run(text) == (1, "true")


@pytest.mark.parametrize(
    "end, status",
    [("sys.exit(7)", 7), ("sys.exit()", 0), ("sys.exit('no')", 1), ("1 / 0", 1), ("import nowhere", 1), ("x = (", 1)],
)
def test_the_exit_status_is_that_of_python(run, tmp_path, end, status):
    assert run(end)[0] == status
    alone = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True)
    assert alone.returncode == status


def test_what_fails_is_given_to_the_hook_of_the_script_and_what_runs_at_exit_runs(run):
    text = "import atexit\natexit.register(lambda: out.write(' bye'))\n"
    text += "sys.excepthook = lambda kind, error, trace: out.write(f'{kind.__name__}: {error}')\n"
    assert run(f"{text}raise ValueError('odd')") == (1, "ValueError: odd bye")


def test_a_killed_job_is_an_error_and_the_next_one_runs(run):
    with pytest.raises(ChildProcessError, match="was killed"):
        run("os.kill(os.getpid(), 9)")
    assert run("json.dump(1, out)") == (0, "1")


def test_an_interrupt_ends_jobs_and_not_what_forks_them(run):
    """As Ctrl-C on a terminal does, which all processes get."""
    text = "import signal, time\nos.kill(os.getppid(), signal.SIGINT)\n"
    text += (
        "sys.excepthook = lambda kind, error, trace: out.write(kind.__name__)\nos.kill(os.getpid(), signal.SIGINT)\n"
    )
    assert run(f"{text}time.sleep(60)") == (1, "KeyboardInterrupt")
    assert run("json.dump(1, out)") == (0, "1")


def test_an_interrupted_job_of_the_study_says_so_in_one_line(run, tmp_path):
    log = tmp_path / "job.log"
    text = "import signal, time\nfrom types import SimpleNamespace\nfrom atlas.store import job\n"
    text += f"job.start(SimpleNamespace(log=[{str(log)!r}]))\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)"
    assert run(text)[0] == 1
    (line,) = log.read_text().splitlines()
    assert line.endswith(" interrupted; run again to go on, what was computed stays")


def test_a_watched_job_runs_to_its_end_before_its_eyes(run):
    """The process is there when it begins to be watched and when that ends, so that no second of it is missed."""
    seen = []

    @contextlib.contextmanager
    def watched(pid):
        seen.append(os.path.exists(f"/proc/{pid}"))
        yield
        with open(f"/proc/{pid}/stat") as file:
            seen.append(int(file.read().rpartition(")")[2].split()[11]) / os.sysconf("SC_CLK_TCK"))

    status, out = run("while os.times().user < 0.3:\n    pass\njson.dump(os.times().user, out)", watched)
    assert status == 0 and seen[0] and seen[1] >= json.loads(out) - 0.02  # the clock's tick


def test_several_at_once(forks, tmp_path):
    """Two that wait for each other end, so they run side by side."""
    statuses = {}
    for own, other in ("ab", "ba"):
        text = f"import pathlib, time\npathlib.Path({str(tmp_path / own)!r}).touch()\n"
        text += f"while not pathlib.Path({str(tmp_path / other)!r}).exists():\n    time.sleep(0.01)"
        (tmp_path / f"{own}.py").write_text(text)

    def one(name):
        statuses[name] = forks.run(str(tmp_path / f"{name}.py"), {}, NOT_WATCHED)

    threads = [threading.Thread(target=one, args=name, daemon=True) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert statuses == {"a": 0, "b": 0}


ALONE = """
import contextlib, os, resource, signal, sys
sys.path.append({scripts!r})
from atlas.store.forks import Forks
Forks().run({script!r}, {{}}, contextlib.nullcontext)
{end}
"""


def test_the_time_of_jobs_counts_as_that_of_whoever_started_them(tmp_path):
    """So `time make run` tells all of it."""
    (tmp_path / "script.py").write_text("import os\nwhile os.times().user < 0.4:\n    pass\n")
    text = ALONE.format(scripts=str(ROOT / "scripts"), script=str(tmp_path / "script.py"), end="")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run([sys.executable, "-c", text], check=True)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before > 0.38


def test_nothing_is_left_where_whoever_started_it_was_killed(tmp_path):
    (tmp_path / "script.py").write_text(f"import os\nopen({str(tmp_path / 'parent')!r}, 'w').write(str(os.getppid()))")
    end = "os.kill(os.getpid(), signal.SIGKILL)"
    text = ALONE.format(scripts=str(ROOT / "scripts"), script=str(tmp_path / "script.py"), end=end)
    assert subprocess.run([sys.executable, "-c", text]).returncode == -signal.SIGKILL
    server = (tmp_path / "parent").read_text()
    deadline = time.monotonic() + 60
    while os.path.exists(f"/proc/{server}") and time.monotonic() < deadline:
        with open(f"/proc/{server}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] == "Z":  # where nobody adopts and buries it
                break
        time.sleep(0.05)
    else:
        assert not os.path.exists(f"/proc/{server}")


@pytest.mark.skipif(not os.path.exists("/dev/nvidia0"), reason="there is no GPU")
def test_a_job_can_use_a_gpu_whatever_was_imported_before(run):
    for _ in range(2):
        text = "import torch, transformers\nx = torch.ones(3, device='cuda').sum().item()\njson.dump(x, out)"
        assert run(text) == (0, "3.0")
