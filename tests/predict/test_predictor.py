"""Answers of a predictor: with intervals or without, outside or not, stored as JSON, checked when read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import msgspec
import pandas as pd
import pytest
from imagined_gpu import made_frame

from flopray.errors import InputError
from flopray.predict import Predictor, fit, work_of
from flopray.predict.work import NoWork, family_of
from flopray.report.prediction.tables import constants_table, constants_tables
from flopray.workloads.llama import Llama
from flopray.workloads.llama_config import read_json
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import make_point


@pytest.fixture(scope="module")
def predictor(frame) -> Predictor:
    return fit([frame], kinds=["d", "m"])


def point(n=4, d=512, m=64, **options):
    made = {"device_type": "H100", "precision": "bf16", "execution": "graph", **options}
    return MLP().point(n_layers=n, width=d, tokens=m, **made)


@pytest.mark.slow
def test_an_answer_has_intervals_that_hold_the_truth(predictor):
    answer = predictor.predict(point(d=768), "forward")
    truth = made_frame(layers=(4,), widths=(768,), tokens=(64,), phases=("forward",)).iloc[0]
    assert answer.outside is None
    assert answer.time_s.low < truth["time_s"] < answer.time_s.high
    assert answer.energy_j.low < truth["energy_j"] < answer.energy_j.high
    assert answer.reference_c == 50.0
    assert answer.basis == "54 rows of mlp on 1 board of H100, bf16 graph"


@pytest.mark.slow
def test_beyond_what_was_measured_an_answer_says_so_and_far_beyond_it_has_no_interval(predictor):
    inside, beyond, far = (predictor.predict(point(d=d), "forward") for d in (512, 1536, 4096))
    assert (inside.outside, beyond.outside) == (None, "width 1536 is outside the measured range 256 to 1024")
    assert far.outside == "width 4096 is outside the measured range 256 to 1024"
    assert far.time_s.low is None
    assert beyond.time_s.low is not None
    assert beyond.time_s.high / beyond.time_s.value >= inside.time_s.high / inside.time_s.value


def test_what_a_gpu_runs_by_other_kernels_has_no_interval_and_on_a_cpu_there_are_none(predictor):
    (group,) = predictor.groups
    processor = replace(group, where=msgspec.structs.replace(group.where, device_type="CPU"))
    gpu, cpu = predictor, Predictor([processor], reference_c=predictor.reference_c)
    said = "its products have an edge of 1,001, which is no multiple of 8, as all measured ones are"
    for made, device_type, known in ((gpu, "H100", False), (cpu, "CPU", True)):
        odd, even = (made.predict(point(d=d, device_type=device_type), "forward") for d in (1001, 512))
        assert (odd.outside, even.outside) == (said, None)
        assert (odd.time_s.low is not None, odd.energy_j.low is not None) == (known, known)
        assert even.time_s.low is not None


@pytest.mark.parametrize(("m", "outside"), [(80, True), (64, False), (192, False)])
def test_a_size_between_even_ones_has_the_wider_interval(predictor, m, outside):
    answer, even = (predictor.predict(point(m=tokens), "forward") for tokens in (m, 64))
    assert (answer.outside is not None) == outside
    assert answer.time_s.high / answer.time_s.value >= even.time_s.high / even.time_s.value


def test_another_execution_phase_or_workload_is_said_and_has_no_interval(predictor):
    eager = predictor.predict(point(execution="eager"), "forward")
    assert eager.outside == "eager was not measured: answered by the fit of graph"
    step = predictor.predict(point(), "train_step", model="roofline")
    assert step.outside == "train_step was not measured, but backward, forward"
    llama = make_point(
        "llama", device_type="H100", precision="bf16", model="llama-3.2-1b", weights="random", attention="auto",
        checkpointing=False, batch_size=8, sequence_length=1024,
    )  # fmt: skip
    other = predictor.predict(llama, "forward", model="roofline")
    assert other.outside == "causal_lm was not measured: answered by the fit of mlp"
    assert [answer.same_kind for answer in (eager, step, other)] == [False, True, False]
    for answer in (eager, step, other):
        assert (answer.time_s.low, answer.energy_j.high) == (None, None)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"device_type": "B200"}, "no fit for B200: there are fits for H100"),
        ({"precision": "fp16"}, "no fit for fp16 on H100: there are fits for bf16"),
    ],
)
def test_what_nobody_measured_is_refused_in_a_line(predictor, asked, said):
    with pytest.raises(InputError, match=said):
        predictor.predict(point(**asked), "forward")


def test_an_unknown_model_or_no_phase_is_refused(predictor):
    with pytest.raises(InputError, match="unknown model 'best': choose from constant, power_law, roofline, learned"):
        predictor.predict(point(), "forward", model="best")
    with pytest.raises(InputError, match="name a phase"):
        predictor.predict(point())
    with pytest.raises(InputError, match="power_law: train_step was not measured on H100"):
        predictor.predict(point(), "train_step", model="power_law")


def test_json_keeps_every_answer(predictor, tmp_path):
    predictor.save(tmp_path / "model.json")
    again = Predictor.load(tmp_path / "model.json")
    for asked in (point(), point(n=8, d=300, m=100), point(d=2000)):
        for phase in ("forward", "backward"):
            for model in ("constant", "power_law", "roofline", "learned"):
                one, other = (made.predict(asked, phase, model=model) for made in (predictor, again))
                assert other.time_s.value == pytest.approx(one.time_s.value, rel=1e-3)
                assert other.energy_j.value == pytest.approx(one.energy_j.value, rel=1e-3)
                assert (other.outside, other.basis) == (one.outside, one.basis)
    units = json.loads((tmp_path / "model.json").read_text())["groups"][0]["fit"]["time"]["product_launch_s"]
    assert units["unit"] == "s"


def test_a_file_with_the_units_of_an_earlier_version_says_the_same(predictor):
    content = json.loads(predictor.to_json())
    constant = content["groups"][0]["fit"]["energy"]["tile_j_per_flop"]
    assert constant["unit"] == "J/FLOP"
    constant["unit"] = "J"
    again = Predictor.from_json(json.dumps(content).encode(), "older.json")
    assert again.predict(point(), "forward").energy_j.value == predictor.predict(point(), "forward").energy_j.value
    assert "fJ/FLOP" in constants_table(again.groups[0]).to_markdown()


def test_constants_are_headed_by_what_tells_groups_apart(predictor):
    content = json.loads(predictor.to_json())
    first = content["groups"][0]
    others = [{"execution": "eager"}, {"family": "conv_net"}]
    content["groups"] = [first, *({**first, "where": {**first["where"], **changed}} for changed in others)]
    groups = Predictor.from_json(json.dumps(content).encode(), "several.json").groups
    (alone,) = constants_tables(groups[:1]).header[1:]
    assert alone == "\n".join((first["where"]["device_type"], first["where"]["precision"]))
    headings = constants_tables(groups).header[1:]
    assert [heading.splitlines()[2:] for heading in headings] == [
        [first["where"]["execution"], "mlp"],
        ["eager", "mlp"],
        [first["where"]["execution"], "conv_net"],
    ]


def test_workloads_of_one_family_are_fitted_together():
    assert [family_of(name) for name in ("llama", "causal_lm", "mlp", "conv_net")] == [
        *("causal_lm", "causal_lm", "mlp", "conv_net")
    ]
    assert Llama.family == "causal_lm"


def _set(content, path, value):
    *way, last = path
    for step in way:
        content = content[step]
    content[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), 99),
        (("groups",), "all"),
        (("groups", 0, "fit", "time", "step_s", "value"), -1.0),
        (("groups", 0, "fit", "time", "step_s", "value"), 0.0),
        (("groups", 0, "fit", "time"), {}),
        (("groups", 0, "fit", "energy", "rest_w", "value"), -5.0),
        (("groups", 0, "fit", "device", "processors"), 0),
        (("residuals", 0, "parts", 0, "weights"), [1.0]),
        (("residuals", 0, "parts", 0, "lengths", 0), 0.0),
        (("residuals", 0, "parts", 0, "kind"), "kernel"),
        (("groups", 0, "fit", "time_residual"), 7),
        (("groups", 0, "fit", "domains", "forward", "low"), []),
        (("counted",), [["H100", "bf16", "plain", 0, 1, 1, [1, 1, 1, False]]]),
        (("counted",), [["H100", "bf16", "plain", 4, 4, 4, [0, 1, 1, False]]]),
        (("groups", 0, "intervals", "time", "learned", "inside"), "wide"),
    ],
)
def test_a_file_that_says_something_else_is_refused_in_a_line(predictor, path, value):
    content = json.loads(predictor.to_json())
    _set(content, path, value)
    with pytest.raises(InputError) as told:
        Predictor.from_json(json.dumps(content).encode(), "theirs.json")
    assert str(told.value).startswith("theirs.json: not fitted models of flopray: ")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"\x80\x04cos\nsystem", b'{"groups": NaN}', b"[" * 100_000])
def test_what_is_no_such_json_is_refused_in_a_line(text):
    with pytest.raises(InputError, match=r"theirs\.json"):
        Predictor.from_json(text, "theirs.json")


def test_a_file_that_is_not_there_or_cannot_be_written_is_told(predictor, tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        Predictor.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot write"):
        predictor.save(tmp_path / "none" / "model.json")


def test_rows_that_cannot_be_fitted_are_told_by_reason(frame):
    with pytest.raises(InputError, match=r"nothing to fit: not measured: out_of_memory \(54 rows\)"):
        fit([frame.assign(status="out_of_memory")])
    with pytest.raises(InputError, match="a frame without time_s cannot be fitted"):
        fit([frame.drop(columns="time_s")])
    with pytest.raises(InputError, match="there are no runs"):
        fit([])
    with pytest.raises(InputError, match="rows are not held out by 'x': choose from n, d, m, board, model"):
        fit([frame], kinds=["x"])
    impossible = frame.assign(findings=[["impossible:rate_above_limit"]] * len(frame))
    with pytest.raises(InputError, match="impossible by the audit"):
        fit([impossible])


def test_rows_of_a_cpu_and_of_a_gpu_without_a_datasheet_are_fitted(frame):
    for name in ("CPU", "XPU9000"):
        rows = frame.assign(device_type=name, device_name=None, device_uuid=None, node="here", energy_j=None)
        rows["energy_at_reference_j"] = None
        made = fit([rows], judge=False)
        answer = made.predict(point(device_type=name), "forward")
        truth = frame[(frame.n_layers == 4) & (frame.width == 512) & (frame.tokens == 64) & (frame.phase == "forward")]
        assert answer.time_s.value == pytest.approx(truth["time_s"].iloc[0], rel=0.25)
        assert made.groups[0].where.boards == ["here"]
        assert not made.groups[0].fit.device.known


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"precision": "int4"}, "int4 is not a known precision"),
        ({"time_s": -1.0}, "without time"),
        ({"time_s": float("inf")}, "without time"),
        ({"width": None}, "its point cannot be made"),
        ({"workload": "theirs"}, "theirs has no FLOPs of"),
    ],
)
def test_a_row_that_makes_no_sense_is_left_out_with_its_reason(frame, change, reason):
    from flopray.predict.measured import measured_rows

    bad = frame.iloc[:3].astype(object).assign(**change)
    kept = measured_rows([pd.concat([frame, bad], ignore_index=True)])
    assert len(kept.works) == len(frame)
    assert sum(kept.left_out.values()) == 3
    assert all(said.startswith(reason) for said in kept.left_out)


def test_without_energy_there_is_time_and_without_held_out_rows_no_interval(frame):
    rows = frame.assign(energy_j=None, energy_at_reference_j=None)
    answer = fit([rows], judge=False).predict(point(), "forward")
    assert answer.energy_j is None
    assert answer.time_s.value > 0
    assert answer.time_s.low is None


def test_a_board_at_its_limit_has_the_energy_that_was_measured(frame):
    from flopray.predict.measured import measured_rows

    held = frame.assign(energy_at_reference_j=None, throttle_end="sw_power_cap")
    assert measured_rows([held]).energies_j == pytest.approx(frame["energy_j"].to_numpy(float))
    cold = frame.assign(energy_at_reference_j=None, temperature_end_c=None)
    assert pd.isna(measured_rows([cold]).energies_j).all()


def test_a_model_that_is_left_out_is_in_no_fit():
    from flopray.predict.measured import measured_rows

    rows = []
    for model in ("llama-3.2-1b", "llama-3.2-3b"):
        made = make_point(
            "llama", device_type="H100", precision="bf16", model=model, weights="random", attention="auto",
            checkpointing=False, batch_size=8, sequence_length=1024,
        )  # fmt: skip
        row = {**made.fields(), "phase": "forward", "trial_id": made.id, "status": "ok", "time_s": 0.06}
        columns = {**made.workload.closed_form(made, "forward"), **made.workload.beside(made, "forward")}
        rows.append({**row, **columns, "model_flops": sum(made.workload.closed_form(made, "forward").values())})
    kept = measured_rows([pd.DataFrame(rows)], leave_out=["llama-3.2-1b"])
    assert kept.column("model").tolist() == ["llama-3.2-3b"]
    assert kept.left_out == {"llama-3.2-1b is left out": 1}
    assert kept.works[0].family == "causal_lm"
    assert kept.works[0].shape["parameters"] == rows[1]["parameters"]


def test_a_workload_without_flops_has_no_work():
    from flopray.predict.work import work_of_row

    row = {"workload": "theirs", "phase": "forward", "precision": "fp32", "execution": "eager", "least_moved_bytes": 8}
    with pytest.raises(NoWork, match="theirs has no FLOPs of forward"):
        work_of_row(row)
    with pytest.raises(NoWork, match="does not say how many bytes"):
        work_of_row({**row, "model_flops": 8, "least_moved_bytes": None})


def test_work_is_plain_data(predictor):
    work = work_of(point(), "forward")
    assert predictor.predict(work, device_type="H100").time_s == predictor.predict(point(), "forward").time_s
    assert msgspec.to_builtins(work.operations)


@pytest.mark.slow
def test_predicting_loads_neither_torch_nor_ray_nor_scikit_learn():
    code = (
        "import sys, flopray.report.prediction.tables, flopray.report.prediction.figure\n"
        "from flopray.predict.shipped import shipped\n"
        "from flopray.workloads.mlp import MLP\n"
        "point = MLP(n_layers=8, width=1024, tokens=128).point("
        "device_type='H100', precision='bf16', execution='graph')\n"
        "assert shipped().predict(point, 'forward').outside is None\n"
        "print([name for name in ('torch', 'ray', 'sklearn', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.timeout(60)
def test_what_is_no_file_is_refused_and_not_read(tmp_path):
    """A pipe may have no writer, and a device no end."""
    pipe = tmp_path / "models.json"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="it is not a file"):
        Predictor.load(pipe)
    with pytest.raises(InputError, match="is not a file"):
        read_json(pipe)
