"""`flopray evaluate MODEL [MODEL ...] --tasks TASK [TASK ...]`: scores of language models, and their cost.

A run like that of a sweep: models, precisions and tasks are its axes, each of their combinations is a point and a trial
of Ray Tune, and an interrupted one goes on with `flopray resume`. EleutherAI's lm-evaluation-harness runs the tasks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from flopray.cli.axes import dest_of
from flopray.cli.flags import SETTINGS, add_field, add_setting
from flopray.cli.main import sweep_command
from flopray.cli.parser import OneLineParser
from flopray.cli.request import Request, request_of
from flopray.errors import InputError
from flopray.mappings import Values
from flopray.settings import settings_of
from flopray.sweep.limits import Limits
from flopray.sweep.space import COMMON
from flopray.workloads.base import Workload
from flopray.workloads.evaluation.tasks import GLUE
from flopray.workloads.evaluation.workload import EVALUATION, Evaluation

_TEXT = f"""\
Evaluate causal language models on tasks of EleutherAI's lm-evaluation-harness:
the score with its standard error, and the joules and seconds that the answers
took, of a sample and of a point of the score. Needs the extra
`pip install 'flopray[evaluate]'`.

  MODEL   a folder of save_pretrained (config.json, safetensors, tokenizer), or
          a hub id. Code that comes with a model is never run.
  TASK    a name of the harness, such as rte, hellaswag, arc_easy or gsm8k; a
          group or tag, such as mmlu or glue, stands for its tasks.
          Without --tasks: {" ".join(GLUE)}

Every combination of the models, precisions and tasks is evaluated, and is a row
of the run, which flopray.load_run reads; the figure sets scores against energy,
with the front of those that no other beats."""
_EXAMPLES = """\
examples:
  flopray evaluate Qwen/Qwen2.5-0.5B --tasks rte sst2
      two tasks of GLUE, on every type of GPU here, or on the CPU
  flopray evaluate out/step-1000 out/step-2000 --tasks arc_easy --limit 200
      which of two checkpoints answers better, by the first 200 samples
  flopray evaluate A B C --tasks hellaswag --precision bf16 fp16 --batch-size 64
      three models at two precisions
  flopray evaluate MODEL --tasks mine --include-path my/tasks
      a task of your own: my/tasks/mine.yaml, its data beside it (docs/evaluate.md)
  flopray resume results/RUN
      after Ctrl-C, a kill or a lost node: finished evaluations are kept
  flopray scores results/RUN results/OTHER
      the figure and the table again, also of several runs

what the columns are:
  score, score_stderr    the task's first metric, and its standard error over the samples
  energy_per_sample_j    joules of the whole device while the model answers / samples
  energy_per_point_j     joules / (100 * score); of a score of 0.62 there are 62 points
  time_per_sample_s, time_per_point_s   the same with seconds
  Loading the model, writing the prompts and scoring are not in them. Without an
  energy counter joules are missing, with energy_reason, and never 0.

exit codes: as of a sweep; 2 bad input, such as a task whose data is not here
while the hub cannot be reached (nothing was started)."""
#: Settings that an evaluation has, by the headings of `--help`.
_GROUPS: dict[str, tuple[str, ...]] = {
    "where it runs": ("precision", "device_type", "gpu_type", "wait_s", "address", "cpus_per_trial", "strict"),
    "measuring": ("seed", "cooldown_c"),
    "when something fails": tuple(settings_of(Limits)),
    "run and results": ("name", "storage", "log_to", "quiet", "json", "plots", "dry_run"),
}
_WHAT = "what is evaluated"
#: Fixed settings of an evaluation: it is run once, so nothing is repeated or compared.
_FIXED: Values = {"phases": (EVALUATION,), "sentinel_every_s": 0.0, "trial": "point"}


def build_parser(workload: Workload) -> argparse.ArgumentParser:
    """The command line."""
    parser = OneLineParser(
        prog="flopray evaluate",
        usage="flopray evaluate MODEL [MODEL ...] [--tasks TASK [TASK ...]] [flags]",
        description=_TEXT,
        epilog=_EXAMPLES,
    )
    what = parser.add_argument_group(_WHAT)
    taken: set[str] = set()
    for field in workload.fields:
        if field.name == "model":
            what.add_argument("models", nargs="*", metavar="MODEL", help=field.doc)
        else:
            add_field(what, workload, field, taken)
    for title, names in _GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names:
            add_setting(group, workload, SETTINGS[name])
    return parser


def parse(workload: Workload, argv: Sequence[str] | None = None) -> Request:
    """What the words of a command line ask for.

    Raises:
        InputError: no model is named, or a value cannot be.
        SystemExit: after `--help` and after words that are no flags.
    """
    given = {name: value for name, value in vars(build_parser(workload).parse_args(argv)).items() if value is not None}
    models = given.pop("models", [])
    if not models:
        raise InputError("name the models first, before --tasks: flopray evaluate MODEL --tasks rte")
    axes: dict[str, Sequence[Any]] = {"model": models}
    axes |= {f.name: given.pop(dest_of(f)) for f in workload.fields if dest_of(f) in given}
    axes |= {name: given.pop(name) for name in COMMON if name in given}
    return request_of(workload, axes, {**_FIXED, **given})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return sweep_command(Evaluation(), argv, parse)
