"""Python programs in processes of their own, forked from one that has imported torch already.

Half of the tests that need a process need it for its end, its signals or its output, and would spend seconds on the
imports of torch. A server of the test session imports them once. Each program is a fork of it, with the arguments, the
folder, the environment and the files of whoever asks, and ends as any Python does. What a test says about imports
themselves needs a fresh interpreter instead.

    python tests/warm_python.py SOCKET      the server; it ends with its standard input
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Mapping, Sequence
from pathlib import Path

#: Where processes that tests start find the server.
ADDRESS = "FLOPRAY_TEST_WARM_PYTHON"

#: What the server imports; optimizers import `torch._dynamo` at their first use.
WARM = ("torch._dynamo", "pandas", "matplotlib.figure", "flopray.measurement.counting.worker")


class WarmProcess:
    """A running program; it is killed when this process ends.

    Args:
        address: of the server.
        arguments: of `python`: `-c CODE`, `-m MODULE` or a file, and what the program is given.
        cwd: its folder; this process's unless given.
        env: its environment; this process's unless given.
        files: its standard input, output and error.
    """

    def __init__(
        self,
        address: str,
        arguments: Sequence[str],
        *,
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        files: Sequence[int] = (0, 1, 2),
    ) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(address)
        job = {
            "arguments": list(arguments),
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
        }
        socket.send_fds(self._connection, [b"\n"], list(files))
        self._connection.sendall(json.dumps(job).encode() + b"\n")
        self._answers = self._connection.makefile()
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Exit code (negative: the signal that ended it), or None while it runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self) -> int:
        """Exit code, once there is one."""
        if self.returncode is None:
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.returncode

    def kill(self) -> None:
        """End it with SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


class WarmPython:
    """The server, which ends with `stop` or with this process.

    Attributes:
        address: of its socket.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.address = str(Path(self._folder.name) / "socket")
        self._server = subprocess.Popen(
            [sys.executable, __file__, self.address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n"

    def run(
        self, *arguments: str, cwd: Path | str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run([sys.executable, *arguments], capture_output=True, text=True)` gives."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, Path(os.devnull).open() as none:
            files = (none.fileno(), out.fileno(), err.fileno())
            code = WarmProcess(self.address, arguments, cwd=cwd, env=env, files=files).wait()
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())
        return subprocess.CompletedProcess(arguments, code, *texts)

    def stop(self) -> None:
        """End it."""
        self._server.communicate()
        self._folder.cleanup()


def _serve(address: str) -> list[str]:
    """Fork for each job. Returns only in the forks, with the arguments of `python`."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    print("ready", flush=True)
    while listening in select.select([listening, sys.stdin], [], [])[0]:
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            return _keep(connection)
        connection.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    with contextlib.suppress(ChildProcessError):
        while os.wait():
            pass
    os._exit(0)


def _keep(connection: socket.socket) -> list[str]:
    """Fork once more and watch that process; this returns in that process."""
    _, files, *_ = socket.recv_fds(connection, 1, 3)
    job = json.loads(connection.makefile().readline())
    pid = os.fork()
    if pid:
        for file in files:
            os.close(file)
        connection.sendall(f"{pid}\n".encode())
        # What is readable now is the end of whoever asked.
        if connection in select.select([os.pidfd_open(pid), connection], [], [])[0]:
            os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(f"{code}\n".encode())
        os._exit(0)
    connection.close()
    for standard, file in enumerate(files):
        os.dup2(file, standard)
        os.close(file)
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    return job["arguments"]


def _start(arguments: list[str]) -> None:
    """Do what `python ARGUMENTS` does."""
    kind, *rest = arguments
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [path for path in paths if path] + [path for path in sys.path if path not in paths]
    if kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.path.insert(0, "")
        sys.modules["__main__"] = module = types.ModuleType("__main__")  # which has none of the names of this one
        exec(compile(rest[0], "<string>", "exec"), vars(module))
    elif kind == "-m":
        sys.argv = ["-m", *rest[1:]]
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(kind).parent))
        runpy.run_path(kind, run_name="__main__")


def _run(arguments: list[str]) -> int:
    """Do what `python ARGUMENTS` does and give its exit code."""
    try:
        _start(arguments)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def _end(code: int) -> None:
    """End as Python does, but leave it to the system to free the modules, which takes a second."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    for name in WARM:
        importlib.import_module(name)
    del sys.path[0]
    gc.freeze()  # so that a fork does not copy what its collector looks at
    _end(_run(_serve(sys.argv[1])))
