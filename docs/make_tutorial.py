"""Runs the commands of docs/tutorial.md in order, and writes below each command what it prints.

python docs/make_tutorial.py            write the outputs into the page
python docs/make_tutorial.py --check    write nothing; exit code 1 when the outputs on the page differ
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = Path(__file__).with_name("tutorial.md")
#: A block of code, and directly below it a block with its output.
_BLOCK = re.compile(r"```(bash|python)\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)
_ROOT = PAGE.parents[1]
#: Blocks with this are not run: the environment exists already.
_SETS_UP = "pip install"


def python(arguments: list[str], folder: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS` in a folder."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def run(language: str, code: str, folder: str) -> str:
    """The output of a block, run in a folder and without a GPU.

    Raises:
        RuntimeError: a command fails.
    """
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "100", "NO_COLOR": "1"}
    environment["PYTHONPATH"] = f"{_ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    commands = [["-c", code]]
    if language == "bash":
        lines = code.replace("\\\n", " ").splitlines()
        words = [shlex.split(line, comments=True) for line in lines]
        commands = [["-m", *line] for line in words if line]
    printed = ""
    for command in commands:
        done = python(command, folder, environment)
        if done.returncode:
            raise RuntimeError(f"python {shlex.join(command)}: {done.stderr}")
        printed += done.stdout + done.stderr
    return "\n".join(line.rstrip() for line in printed.splitlines()) + "\n"


def written(text: str) -> str:
    """The page with the outputs of its blocks; blocks without an output on the page are run too."""
    with tempfile.TemporaryDirectory() as folder:

        def replaced(match: re.Match[str]) -> str:
            language, code, output = match.groups()
            if _SETS_UP in code:
                return match[0]
            printed = run(language, code, folder)
            return match[0] if output is None else f"```{language}\n{code}```\n\n```text\n{printed}```\n"

        return _BLOCK.sub(replaced, text)


def main() -> int:
    """Write or check the page; returns the exit code."""
    text = PAGE.read_text(encoding="utf-8")
    new = written(text)
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(new, encoding="utf-8")
        return 0
    return int(new != text)


if __name__ == "__main__":
    sys.exit(main())
