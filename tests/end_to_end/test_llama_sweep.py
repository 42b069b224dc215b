"""The Llama sweep as a user runs it on a machine without a GPU: a tiny model, every phase."""

from __future__ import annotations

import json

import pytest
from machine import QUICK

from flopray import load_run
from flopray.records import PHASES

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
LLAMA = "llama_gpu.py"


def test_a_model_of_a_file_runs_the_whole_sweep_and_is_resumed_by_its_own_script(machine, standing):
    sizes = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "vocab_size": 128}
    file = machine.folder / "mine.json"
    file.write_text(json.dumps(sizes))
    line = f"--model {file} --batch 1 --tokens 8 16 --precision fp32 bf16 {QUICK.replace('--no-plots', '')} --name mine"
    code, output = machine.sweep(f"{line} {standing}", script=LLAMA)
    assert code == 0, output
    run = machine.run_path("mine")
    frame = load_run(run)
    phases = set(PHASES) - {"forward_backward"}
    assert len(frame) == 2 * 2 * len(phases)  # two precisions, two lengths
    assert set(frame.phase) == phases
    assert (frame.status == "ok").all(), frame.status_reason.dropna().tolist()
    assert (frame.time_s > 0).all()
    assert set(frame.model) == {"mine"}
    counted = frame[frame.phase != "optimizer_step"]
    assert (counted.dispatched_flops == counted.gemm_flops + counted.attention_flops).all()
    assert counted.attention_backend.notna().all()

    file.unlink()  # the run knows the sizes: nothing needs the file any more
    lines = (run / "journal.jsonl").read_text().splitlines(keepends=True)
    (run / "journal.jsonl").write_text("".join(lines[:-1]))
    (run / "records.parquet").unlink()
    code, output = machine.sweep(f"--resume {run} --no-plots")
    assert (code, f"resume {run}" in output) == (2, True)
    code, output = machine.sweep(f"--resume {run} --no-plots {standing}", script=LLAMA)
    assert code == 0, output
    assert set(load_run(run).trial_id) == set(frame.trial_id)
