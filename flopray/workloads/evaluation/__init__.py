"""The workload `evaluation`: a language model's score on a task, and what the answers cost.

`workload` has its fields and columns, `tasks` and `models` refuse before a run what is missing, `harness` answers the
task's requests by EleutherAI's lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness, an extra),
and `scores` makes columns of what it returns. `flopray.watching.evaluator` measures it.
"""
