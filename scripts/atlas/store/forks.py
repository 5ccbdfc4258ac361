"""Jobs of one machine as forks of a process that holds what jobs before them imported.

Most jobs of a study are short, and to import torch, pandas or matplotlib takes longer than what they do with them. The
process that jobs are forked from imports what a job's script names, before it forks it; and a job that ends says which
other modules it had, so that the next one finds them too. The process imports and forks; it computes nothing, and
touches no GPU. It ends with the process that started it; jobs on their way then go on, as others do.

Linux only: elsewhere the libraries of the system do not stand a fork.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, NoReturn, TextIO

from atlas.store import sources

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# One thread; and where a module that is imported asks whether there is a GPU, torch may not touch it to find out:
# what is forked afterwards could not use it
ENVIRONMENT = dict.fromkeys(THREADS, "1") | {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
START = "import sys; sys.path.append({path!r}); from atlas.store import forks; forks.serve({descriptor})"

Watched = Callable[[int], AbstractContextManager[Any]]  # of the id of a process


# ---- where jobs are asked for --------------------------------------------------------------------------------
class Forks:
    """Runs scripts as forks of one process, which starts with the first of them; may be asked by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None  # of the process that forks
        self._modules: list[str] = []  # what jobs had that ended since the last one was asked for

    def run(
        self, script: str, environment: dict[str, str], watched: Callable[[int], AbstractContextManager[Any]]
    ) -> int:
        """Run a Python file, here, on one thread; its exit status.

        ``environment``: variables beside those of this process when the first script ran. ``watched`` is given the
        id of the script's process and entered for as long as it runs. Raises ChildProcessError where that is killed.
        """
        job = {"script": script, "folder": os.getcwd(), "environment": environment}
        ours, theirs = socket.socketpair()
        with ours, ours.makefile("rw") as job_end:
            with theirs, self._lock:
                self._control = self._control or self._start()
                socket.send_fds(self._control, [b"1"], [theirs.fileno()])
                job["modules"], self._modules = self._modules, []
            _say(job_end, job)
            pid = _heard(job_end)
            with watched(pid):
                answer = _heard(job_end)
        status, modules = answer
        with self._lock:
            self._modules += modules
        return int(status)

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            start = START.format(path=str(sources.SCRIPTS), descriptor=theirs.fileno())
            command = [sys.executable, "-P", "-c", start]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=os.environ | ENVIRONMENT)

        def end() -> None:
            """Let it end and wait for it, so that the time of its jobs counts with that of this process."""
            ours.close()
            process.wait()

        atexit.register(end)
        return ours


def _say(end: TextIO, content: object) -> None:
    end.write(json.dumps(content) + "\n")
    end.flush()


def _heard(end: TextIO) -> Any:
    line = end.readline()
    if not line:
        raise ChildProcessError("a job's process was killed, perhaps for want of memory")
    return json.loads(line)


# ---- the process that jobs are forked from -------------------------------------------------------------------
def serve(descriptor: int) -> None:
    """Fork a job for each socket that arrives, until the other end is closed; the body of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it goes to jobs as well, which end by it
    control = socket.socket(fileno=descriptor)
    while received := socket.recv_fds(control, 1, 1)[1]:
        with socket.socket(fileno=received[0]) as connection, connection.makefile("rw") as job_end:
            job = _heard(job_end)
            _import([*job["modules"], *_named(job["script"])])
            if not os.fork():
                control.close()
                _run(job, job_end)
        _wait_for(os.WNOHANG)
    _wait_for(0)


def _wait_for(options: int) -> None:
    """For jobs, which say themselves how they end: only so does their time count as that of this process."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, options)[0]:
            pass


def _named(script: str) -> list[str]:
    """What a script's import statements name, modules and what lies in them; of a file that is no Python nothing."""
    try:
        with open(script, encoding="utf-8") as file:
            return sorted(sources.imports(file.read()))
    except (OSError, ValueError, SyntaxError):  # which the job meets as well, and says
        return []


def _import(names: list[str]) -> None:
    """Import those names that are modules. Of those that jobs had some are made by others, and cannot be asked for."""
    missing = [name for name in names if name not in sys.modules]
    for name in missing:
        with contextlib.suppress(Exception):  # a job that needs it says what is wrong
            importlib.import_module(name)
    if missing:
        gc.collect()
        gc.freeze()  # so that a fork's search for garbage writes to no page that it shares


# ---- a job ---------------------------------------------------------------------------------------------------
def _run(job: dict[str, Any], job_end: TextIO) -> NoReturn:
    """Run a script as `python script` does, less the time that an interpreter takes to forget its modules."""
    _say(job_end, os.getpid())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(job["folder"])
    os.environ.update(job["environment"])
    script, status = job["script"], 0
    sys.argv, main = [script], ModuleType("__main__")
    sys.path.insert(0, os.path.dirname(script))
    main.__file__, sys.modules["__main__"] = script, main
    try:
        with open(script, "rb") as file:
            source = file.read()
        exec(compile(source, script, "exec"), vars(main))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    atexit._run_exitfuncs()
    vars(main).clear()
    gc.collect()  # what the script held open is written
    with contextlib.suppress(OSError):  # nobody reads any more
        sys.stdout.flush()
        sys.stderr.flush()
        _say(job_end, (status, list(sys.modules)))
        job_end.readline()  # until it is closed: whoever watches this process has seen it to its end
    os._exit(status)
