"""Models compared by the cost of a token: grouping, failed rows by name, energy or otherwise time."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

from flopray.cli.compare_gpus import main
from flopray.records import PhaseRecord
from flopray.report.gpus.data import load_runs
from flopray.report.gpus.model_files import page_text, write_models
from flopray.report.gpus.model_lines import apart, draw_models
from flopray.report.gpus.models import models_csv, models_of, models_table
from flopray.report.gpus.types import rows_of_types
from flopray.store.run import RunFolder
from flopray.sweep.manifest import described
from flopray.workloads.registry import find_workload, make_point

#: Parameters, model FLOPs of a token, joules of a token.
SIZES = {"gpt2": (124e6, 250e6, 0.5e-3), "llama-3.2-1b": (1.24e9, 2.6e9, 4e-3), "mixtral-tiny": (1.4e6, 4e6, 1e-4)}
TOKENS = 512


def record(model, *, phase="inference", device="H100", precision="bf16", joules=True, batch_size=1, **further):
    point = make_point(
        *("causal_lm",),
        **{"device_type": device, "precision": precision, "model": model, "weights": "random", "attention": "auto"},
        **{"routing": "uniform", "checkpointing": False, "batch_size": batch_size, "sequence_length": 512},
    )
    parameters, flops, energy_j = SIZES[model]
    columns = {"tokens_per_iteration": TOKENS, "parameters": int(parameters), "model_flops": int(flops * TOKENS)}
    columns |= {"time_s": 1e-3, "time_rel_error": 0.01, "device_name": f"NVIDIA {device}"}
    energy = {"energy_j": energy_j * TOKENS, "energy_rel_error": 0.02, "energy_status": "ok"}
    energy |= {"energy_per_token_j": energy_j}
    columns |= energy if joules else {"energy_status": "no_energy_source", "energy_reason": "no counter here"}
    head = {"run": "r", "trial_id": point.id, "phase": phase, **point.fields()}
    return PhaseRecord.of(**{**head, **columns, **further})


def models_in(folder, *records):
    made = RunFolder.create(folder, "r", {"sweep": {"workload": "causal_lm"}, **described(find_workload("causal_lm"))})
    with made.writer() as writer:
        writer.append([one if isinstance(one, list) else [one] for one in records])
    return models_of(rows_of_types(load_runs([made.path]))[0])


def lines_of(axes):
    return [line for line in axes.lines if line.get_gid() == "line"]


def test_a_line_a_gpu_and_precision_over_both_sizes(tmp_path):
    found = [record(m, device=d, precision=p) for m in SIZES for d in ("H100", "H200") for p in ("bf16", "fp16")]
    (models,) = models_in(tmp_path, *found)
    assert models.names == ["mixtral-tiny", "gpt2", "llama-3.2-1b"]
    figure = draw_models(models)
    left, right = figure.axes[0], next(axes for axes in figure.axes if "FLOPs" in axes.get_xlabel())
    assert (left.get_xscale(), left.get_yscale()) == ("log", "log")
    for axes, place in ((left, 0), (right, 1)):
        assert len(lines_of(axes)) == 4
        for line in lines_of(axes):
            assert sorted(line.get_xdata()) == pytest.approx(sorted(size[place] for size in SIZES.values()))
            assert sorted(line.get_ydata()) == pytest.approx(sorted(size[2] for size in SIZES.values()))


def test_every_model_is_named_at_its_own_place(tmp_path):
    found = [[record(m, phase=p) for p in ("inference", "decode")] for m in ("gpt2", "llama-3.2-1b")]
    # in the first phase this one was not measured
    (models,) = models_in(tmp_path, *found, record("mixtral-tiny", phase="decode"))
    figure = draw_models(models)
    left = figure.axes[0]
    assert {text.get_text() for text in left.texts} == {"gpt2", "llama-3.2-1b", "mixtral-tiny"}
    low, high = np.log(left.get_xlim())
    places = [line.get_xdata()[0] for line in left.lines if line.get_gid() == "name"]
    sizes = sorted(SIZES[model][0] for model in ("gpt2", "llama-3.2-1b", "mixtral-tiny"))
    assert places == pytest.approx((np.log(sizes) - low) / (high - low))


def test_names_that_are_too_close_move_apart_and_keep_their_order():
    moved = apart([0.1, 0.5, 0.51, 0.52, 0.9], 0.06)
    assert np.diff(moved).min() >= 0.06 - 1e-12
    assert (moved[0], moved[2], moved[4]) == pytest.approx((0.1, 0.51, 0.9))


def test_the_figure_has_one_unit_for_all_phases(tmp_path):
    joules = {m: {"energy_j": 1e3 * SIZES[m][2] * TOKENS, "energy_per_token_j": 1e3 * SIZES[m][2]} for m in SIZES}
    both = [[record(m), record(m, phase="decode", **joules[m])] for m in SIZES]
    (models,) = models_in(tmp_path, *both)
    labels = [axes.get_ylabel() for axes in draw_models(models).axes if axes.get_ylabel()]
    assert len(labels) == 2
    assert len({label.splitlines()[-1] for label in labels}) == 1


def test_models_compete_only_where_they_did_the_same(tmp_path):
    groups = models_in(tmp_path, *(record(m, batch_size=b) for m in ("gpt2", "llama-3.2-1b") for b in (1, 8)))
    assert [group.title for group in groups] == ["1 × 512, eager", "8 × 512, eager"]
    assert len({group.folder for group in groups}) == 2
    assert models_in(tmp_path / "alone", record("gpt2"), record("llama-3.2-1b", batch_size=2)) == []


def test_what_failed_is_named_and_leaves_a_hole(tmp_path):
    gone = dict.fromkeys(("time_s", "energy_j", "energy_per_token_j", "time_rel_error", "energy_rel_error"))
    failed = record("llama-3.2-1b", status="out_of_memory", status_reason="16 GB", energy_status="failed", **gone)
    (models,) = models_in(tmp_path, record("gpt2"), record("mixtral-tiny"), failed)
    assert "inference of llama-3.2-1b on H100 bf16: out of memory" in models.missing()
    assert "out of memory" in models_table(models).to_markdown()
    figure = draw_models(models)
    assert [c for c in figure.axes[0].collections if c.get_gid() == "hole"]
    legend = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert any("llama-3.2-1b bf16 on H100: out of memory (1)" in text for text in legend)


def test_a_model_without_model_flops_stands_on_parameters_alone(tmp_path):
    odd = record("mixtral-tiny", model_flops=None, model_flops_reason="no closed form of routed experts")
    (models,) = models_in(tmp_path, record("gpt2"), record("llama-3.2-1b"), odd)
    assert any("mixtral-tiny has no model FLOPs" in line and "routed experts" in line for line in models.missing())
    figure = draw_models(models)
    right = next(axes for axes in figure.axes if "FLOPs" in axes.get_xlabel())
    assert len(lines_of(figure.axes[0])[0].get_xdata()) == 3
    assert len(lines_of(right)[0].get_xdata()) == 2


def test_without_energy_it_is_time_and_said_so(tmp_path):
    (models,) = models_in(tmp_path, *(record(m, device="CPU", precision="fp32", joules=False) for m in SIZES))
    assert models.why_time() == "no energy was measured, time instead: no counter here"
    assert models.why_time() in models_table(models).notes
    figure = draw_models(models)
    assert "time per token" in figure.axes[0].get_ylabel()
    assert any("no energy was measured" in text.get_text() for text in figure.texts)
    assert models_csv([models])["energy_per_token_j"].isna().all()
    assert np.allclose(models_csv([models])["time_per_token_s"], 1e-3 / TOKENS)


@pytest.mark.extras("html")
def test_the_page_has_every_row_and_reason(tmp_path):
    (models,) = models_in(tmp_path, *(record(m) for m in SIZES))
    paths = write_models([models], tmp_path / "t", tmp_path / "o", ("png",), html=True)
    assert {path.name for path in paths} == {"models.csv", "models.md", "1x512-eager.png", "models.html"}
    data = json.loads(re.search(r'\{"metrics":.*?\}\]\}\]\}', page_text([models]))[0])
    (group,) = data["groups"]
    assert {row["model"]: row["values"]["energy_per_token"]["value"] for row in group["rows"]} == {
        model: pytest.approx(size[2]) for model, size in SIZES.items()
    }


@pytest.mark.slow
def test_the_command_writes_it_beside_the_comparisons(tmp_path, capsys):
    models_in(tmp_path, *(record(m) for m in SIZES))
    out = tmp_path / "out"
    assert main([str(tmp_path / "r"), "--out", str(out), "--tables", str(out), "--no-html"]) == 0
    assert "A token by model" in capsys.readouterr().out
    assert len(pd.read_csv(out / "models.csv")) == 3
    assert (out / "gpus" / "models" / "1x512-eager.png").stat().st_size > 10_000


def of_execution(model, execution, **further):
    """A row of an execution; `record` makes those of `eager`."""
    point = make_point(
        *("causal_lm",),
        **{"device_type": "H100", "precision": "bf16", "model": model, "weights": "random", "attention": "auto"},
        **{"routing": "uniform", "checkpointing": False, "batch_size": 1, "sequence_length": 512},
        execution=execution,
    )
    return record(model, execution=execution, trial_id=point.id, **further)


GONE = dict.fromkeys(("time_s", "energy_j", "energy_per_token_j", "time_rel_error", "energy_rel_error"))
REFUSED = {"status": "unsupported", "status_reason": "its masks come from the host", "energy_status": "failed", **GONE}


class TestWhereAnExecutionIsRefused:
    def models(self, tmp_path, *others):
        """Two models as graphs, and one that cannot be captured, with its rows of other executions."""
        small = (of_execution(model, "compile_graph") for model in ("gpt2", "mixtral-tiny"))
        refused = of_execution("llama-3.2-1b", "compile_graph", **REFUSED)
        groups = models_in(tmp_path, *small, refused, *others)
        return next(group for group in groups if "compile_graph" in group.title)

    def test_what_was_measured_in_another_one_is_shown_and_marked(self, tmp_path):
        models = self.models(tmp_path, of_execution("llama-3.2-1b", "compile"), of_execution("llama-3.2-1b", "graph"))
        assert models.title == "1 × 512, compile_graph"
        (row,) = models.rows[models.rows["model"] == "llama-3.2-1b"].to_dict("records")
        assert (row["execution"], row["instead_of"], row["status"]) == ("compile", "compile_graph", "ok")
        said = "as compile, since compile_graph is unsupported: its masks come from the host"
        assert models.missing() == [f"inference of llama-3.2-1b on H100 bf16: {said}"]
        table = models_table(models)
        assert [cells[0] for _, rows in table.sections for cells in rows][-1] == "llama-3.2-1b (compile)"
        figure = draw_models(models)
        left = figure.axes[0]
        assert not [c for c in left.collections if c.get_gid() == "hole"]
        (mark,) = [line for line in left.lines if line.get_gid() == "other execution"]
        assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (SIZES["llama-3.2-1b"][0], SIZES["llama-3.2-1b"][2])
        # it is on no line of the others
        assert [sorted(line.get_xdata()) for line in lines_of(left)] == [[1.4e6, 124e6]]
        legend = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        assert "square: llama-3.2-1b as compile, compile_graph has no value" in legend
        csv = models_csv([models]).set_index("model")["instead_of"]
        assert csv.to_dict() == {"gpt2": "", "mixtral-tiny": "", "llama-3.2-1b": "compile_graph"}

    def test_only_the_same_work_stands_in(self, tmp_path):
        others = [
            of_execution("llama-3.2-1b", "compile", phase="decode"),
            of_execution("llama-3.2-1b", "graph", precision="fp16"),
            of_execution("llama-3.2-1b", "eager", batch_size=8),
            of_execution("llama-3.2-1b", "eager", adapter="lora:8"),
        ]
        models = self.models(tmp_path, *others)
        assert models.missing() == ["inference of llama-3.2-1b on H100 bf16: unsupported"]
        assert [c for c in draw_models(models).axes[0].collections if c.get_gid() == "hole"]

    def test_a_value_of_its_own_stays(self, tmp_path):
        own = of_execution("llama-3.2-1b", "compile_graph", energy_per_token_j=5e-3)
        small = of_execution("gpt2", "compile_graph")
        groups = models_in(tmp_path, small, own, of_execution("llama-3.2-1b", "compile"))
        (models,) = groups
        assert list(models.rows["instead_of"]) == ["", ""]
        assert models.rows["energy_per_token_j"].max() == 5e-3

    @pytest.mark.extras("html")
    def test_the_page_says_the_execution(self, tmp_path):
        models = self.models(tmp_path, of_execution("llama-3.2-1b", "eager"))
        data = json.loads(re.search(r'\{"metrics":.*?\}\]\}\]\}', page_text([models]))[0])
        rows = {row["model"]: row["instead"] for row in data["groups"][0]["rows"]}
        assert rows == {"gpt2": "", "mixtral-tiny": "", "llama-3.2-1b": "eager"}
