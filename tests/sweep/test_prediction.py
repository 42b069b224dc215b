"""Predictions follow a point's size, and what a device cannot do is known before anything starts."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from specs import llama, mlp

from flopray.audit.hardware import find_gpu, memory_bytes
from flopray.cluster.devices import Cluster, absent_types, choose_devices
from flopray.errors import InputError
from flopray.point import EXECUTIONS
from flopray.records import TRAINING_PHASES
from flopray.settings import CPU_DEFAULTS, MeasureSettings
from flopray.store.location import load_run
from flopray.sweep import calibration
from flopray.sweep.definition import Sweep
from flopray.sweep.plan import Target, print_plan, refuse_what_none_can, targets
from flopray.sweep.prediction import (
    Rates,
    iteration_seconds,
    phase_seconds,
    phases_too_large,
    predict_point_seconds,
    rates_of,
)
from flopray.workloads.base import workload_of
from flopray.workloads.capability import why_no_instrument, why_not
from flopray.workloads.llama import Llama
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import find_workload, make_point

PHASES = TRAINING_PHASES
#: A core that computes 100 GFLOP/s and moves 10 GB/s.
CORE = Rates({"fp32": 1e11, "bf16": 2e11}, 1e10, 0.5, "made up")
RESULTS = Path(__file__).parents[2] / "docs" / "results"
GB = 10**9
ONE_LLAMA = '{"head_dim":128,"hidden_size":16384,"intermediate_size":53248,"n_heads":128,"n_kv_heads":8,"n_layers":126,'
ONE_LLAMA += '"rms_norm_eps":1e-05,"rope_theta":500000.0,"tied":false,"vocab_size":128256}'


def seconds(spec, *, rates=CORE, has_energy=False, **settings) -> float:
    return predict_point_seconds(MeasureSettings(**settings), spec, has_energy=has_energy, rates=rates)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_the_prediction_grows_with_what_is_asked(execution):
    spec = mlp(1, 16, 8, execution=execution)
    assert 0 < seconds(spec, phases=("forward",)) < seconds(spec, phases=PHASES)
    assert seconds(spec, max_seconds=0.1) < seconds(spec, max_seconds=3.0)
    assert seconds(spec) < seconds(spec, has_energy=True)
    assert seconds(spec, has_energy=True, instruments=("time",)) <= seconds(spec, has_energy=True)
    assert seconds(spec, target_error=0.005) > seconds(spec, target_error=0.02)


def test_an_iteration_takes_the_longer_of_its_products_and_its_bytes():
    products = mlp(2, 1024, 4096)  # 17.2 GFLOPs, of which 100 GFLOP/s make 0.17 s
    assert iteration_seconds(products, "inference", CORE) == pytest.approx(0.172, rel=0.01)
    streams = mlp(2, 4096, 1)  # 134 MB of weights
    assert iteration_seconds(streams, "inference", CORE) == pytest.approx(0.0134, rel=0.01)
    assert iteration_seconds(mlp(2, 1024, 4096, precision="bf16"), "inference", CORE) < 0.1
    parts = sum(iteration_seconds(products, phase, CORE) for phase in ("forward", "backward", "optimizer_step"))
    assert iteration_seconds(products, "train_step", CORE) == pytest.approx(parts, rel=0.05)


def test_many_small_layers_take_the_time_of_their_launches():
    """4,000 layers of d 16 on a core of an AMD EPYC: CPU seconds of an iteration, and of counting the point."""
    deep = mlp(4000, 16, 16)
    for phase, measured_s in (("inference", 0.020), ("forward", 0.048), ("backward", 0.074), ("train_step", 0.251)):
        assert 0.5 < iteration_seconds(deep, phase, CORE) / measured_s < 2
        assert iteration_seconds(mlp(4000, 16, 16, execution="compile"), phase, CORE) < measured_s / 5
    assert workload_of(deep).count_s(deep) == pytest.approx(1.75, rel=0.1)


def test_a_long_iteration_is_warmed_up_and_repeated():
    # Half a second an iteration: three in the warm-up (one call, and laps until 1 s is over), five laps in 3 s.
    spec = mlp(2, 2048, 2980)
    assert iteration_seconds(spec, "inference", CORE) == pytest.approx(0.5, rel=0.01)
    taken = seconds(spec, phases=("inference",), sentinel_every_s=0.0)
    assert taken == pytest.approx(8 * 0.5, rel=0.1)
    # One of ten seconds is past each cap: a call, one lap of warm-up, one lap of a window.
    long = mlp(2, 2048, 59_600)
    assert seconds(long, phases=("inference",), sentinel_every_s=0.0) == pytest.approx(30, rel=0.1)


def test_the_size_of_a_model_decides():
    on_h100 = {
        name: predict_point_seconds(
            MeasureSettings(phases=("train_step",)),
            llama(name, 8, 1024, device_type="H100", precision="bf16"),
            has_energy=True,
        )
        for name in ("llama-tiny", "llama-3.2-1b", "llama-3.1-8b")
    }
    assert on_h100["llama-tiny"] < on_h100["llama-3.2-1b"] < on_h100["llama-3.1-8b"]
    big = llama("llama-3.1-70b", 2, 64)
    assert seconds(big, phases=("train_step",)) > 1000  # 54 TFLOPs and 8.2 TB at these rates, several times
    assert seconds(mlp(4, 8192, 64)) > 3 * seconds(mlp(4, 128, 64))


def test_the_h100s_measured_steps_are_within_a_factor_of_two():
    """Llama 3.2 1B, batch 8, 1024 tokens, bf16: 58.7 ms forward and 190 ms a step (docs/results)."""
    spec, rates = llama("llama-3.2-1b", 8, 1024, device_type="H100", precision="bf16"), rates_of("H100")
    assert rates is not None
    for phase, measured_s in (("inference", 0.0587), ("train_step", 0.190)):
        assert 0.5 < iteration_seconds(spec, phase, rates) / measured_s < 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "settings"),
    [
        ("h200_causal_lm", {"target_error": 0.02, "max_seconds": 2.0}),  # most of it compilations
        ("reference/h200-lm/lm_97ae", {"target_error": 0.02, "max_seconds": 1.0}),
        ("h200_llama", {}),
    ],
)
def test_kept_runs_of_language_models_took_what_is_predicted(run, settings):
    """Seconds of all rows, preparation and compilation included."""
    rows = load_run(RESULTS / run).query("status == 'ok'").to_dict("records")
    names = [field.name for field in find_workload(rows[0]["workload"]).fields]
    predicted = 0.0
    for row in rows:
        words = ("workload", "device_type", "precision", "execution", *names)
        point = make_point(**{name: row[name] for name in words if isinstance(row.get(name), str | int)})
        how = MeasureSettings(phases=(row["phase"],), **settings)
        rates = rates_of(point.device_type)
        assert rates is not None
        predicted += sum(phase_seconds(how, point, row["phase"], rates, has_energy=True))
    taken = sum(row["ended_unix_s"] - row["started_unix_s"] for row in rows)
    assert 0.7 < predicted / taken < 1.4


def test_a_compiled_mlp_on_a_cpu_takes_what_two_runs_took():
    """One point in four phases took 22 s with compiled code in the cache, and 35 s without, beside other work."""
    text = plan(sweep(n=(2,), d=(128,), m=(16,), execution=("compile",), **CPU_DEFAULTS), found(), figures=False)
    (said,) = re.findall(r" (\d+) s ", text.partition("windows")[0])
    assert 35 / 2 < int(said) < 22 * 2


def test_every_gpu_of_the_table_has_memory_and_bandwidth():
    assert memory_bytes("NVIDIA A100-SXM4-40GB") == memory_bytes("A100-40G") == 40 * 2**30
    assert memory_bytes("H100") == 80 * 2**30
    assert memory_bytes("A10G") is None
    for name in ("V100", "T4", "A10", "A100", "L4", "L40S", "H100", "H200", "B200"):
        gpu, rates = find_gpu(name), rates_of(name)
        assert gpu
        assert rates
        assert gpu.memory_bytes >= 16 * 2**30
        assert 1e11 < rates.bytes_per_s < gpu.memory_bytes_per_s
    assert rates_of("A10G") is None


# -- What a device cannot do


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (mlp(execution="graph"), "execution graph needs a CUDA device"),
        (mlp(precision="tf32"), "tf32 exists only on NVIDIA GPUs"),
        (mlp(precision="bf16"), None),
        (mlp(execution="compile"), None),
        (mlp(device_type="V100", precision="bf16"), "bf16 needs compute capability 8.0, this GPU has 7.0"),
        (mlp(device_type="T4", precision="tf32", execution="graph"), "tf32 needs compute capability 8.0"),
        (mlp(device_type="V100", precision="fp16", execution="graph"), None),
        (mlp(device_type="A10G", precision="bf16"), None),
        (llama(attention="cudnn"), "attention cudnn has no kernel for a CPU"),
        (llama(attention="efficient"), "attention efficient has no kernel for a CPU"),
        (llama(attention="flash"), None),
        (llama(attention="flash", device_type="H100"), "computes in bf16 and fp16 only"),
        (llama(attention="flash", device_type="H100", precision="bf16"), None),
        (llama(attention="cudnn", device_type="T4", precision="fp16"), "needs compute capability 8.0"),
        (llama(attention="efficient", device_type="H100", precision="tf32"), None),
    ],
)
def test_what_a_device_cannot_do(spec, reason):
    found = why_not(spec)
    assert found is None if reason is None else reason in str(found)


def test_counters_are_those_of_gpus():
    assert "NVIDIA" in str(why_no_instrument(("time", "counters"), ["CPU"]))
    assert why_no_instrument(("time", "counters"), ["CPU", "H100"]) is None
    assert why_no_instrument(("time", "energy"), ["CPU"]) is None


def test_memory_is_judged_by_phase():
    spec = mlp(32, 8192, 64)  # 8.6 GB of weights
    assert phases_too_large(spec, PHASES, 25 * GB).keys() == {"optimizer_step", "train_step"}
    assert phases_too_large(spec, ("forward",), 8 * GB).keys() == {"forward"}
    assert phases_too_large(spec, PHASES, None) == {}
    # A prefill does not keep the logits of a long prompt.
    prompt = llama("llama-tiny", 1, 10**6)
    assert phases_too_large(prompt, ("prefill", "inference"), 2 * GB).keys() == {"inference"}


# -- The plan


def sweep(device_types=("CPU",), precision=("fp32",), execution=("eager",), n=(2,), d=(64,), m=(8,), **fields) -> Sweep:
    axes = {"device_type": device_types, "precision": precision, "execution": execution}
    settings = MeasureSettings(**fields)
    axes |= {"n_layers": n, "width": d, "tokens": m}
    return Sweep(workload=MLP(), axes=axes, settings=settings, cpus_per_trial=dict.fromkeys(device_types, 1))


def llama_sweep(device_types=("CPU",), **fields) -> Sweep:
    axes = {"device_type": device_types, "precision": ("bf16",), "execution": ("eager",), "model": ("llama-405b",)}
    axes |= {"weights": ("random",), "attention": ("auto",), "checkpointing": (False,)}
    axes |= {"batch_size": (1,), "sequence_length": (128, 256)}
    fields = {"cpus_per_trial": dict.fromkeys(device_types, 1), "settings": MeasureSettings(phases=("train_step",))}
    return Sweep(workload=Llama(), axes=axes, implied={"model": {"llama-405b": {"model_config": ONE_LLAMA}}}, **fields)


def found(memory: int | None = 25 * GB, **fields) -> dict[str, Target]:
    return {"CPU": Target(1, memory, CORE, False, **fields)}


def plan(of, known, **options) -> str:
    stream = io.StringIO()
    slots = {name: target.count for name, target in known.items()}
    print_plan(Console(file=stream, width=200), of, slots, found=known, **options)
    return stream.getvalue()


def test_a_sweep_of_which_nothing_can_be_measured_is_refused_with_the_reason():
    for of, reason in (
        (sweep(execution=("graph",)), "CPU: execution graph needs a CUDA device"),
        (sweep(precision=("tf32",)), "CPU: tf32 exists only"),
        (sweep(instruments=("counters",)), "instruments counters: "),
        (
            llama_sweep(),
            "CPU: out of memory: llama-405b b=1 t=128 bf16 eager needs 3.2. TB at least, and there are 25 GB",
        ),
    ):
        with pytest.raises(InputError, match=reason):
            refuse_what_none_can(of, found())
    refuse_what_none_can(sweep(execution=("graph", "eager")), found())
    refuse_what_none_can(sweep(d=(64, 2**17)), found())
    refuse_what_none_can(llama_sweep(), found(None))


def test_the_plan_counts_what_will_be_refused_and_why():
    text = plan(sweep(n=(32,), d=(64, 8192, 16384)), found())
    assert "CPU: 1 of 3 points will be out_of_memory in optimizer_step, train_step: up to 34.4 GB" in text
    assert "CPU: 1 of 3 points will be out_of_memory in all phases: up to 137 GB are needed at least" in text
    text = plan(sweep(precision=("fp32", "tf32"), execution=("eager", "graph")), found())
    assert "CPU: 2 of 4 points will be unsupported: execution graph" in text
    assert "CPU: 1 of 4 points will be unsupported: tf32" in text
    assert "1 of 1 point needs more than 80% of 2.5 GB" in plan(
        sweep(n=(32,), d=(4096,), phases=("forward",)), found(25 * GB // 10)
    )


def test_a_model_that_cannot_fit_takes_no_time_and_one_that_can_takes_its_time():
    assert " 5 min " in plan(sweep(n=(4,), d=(16384,), m=(512,)), found(100 * GB), figures=False)
    refused = plan(sweep(n=(4,), d=(16384,), m=(512,)), found(GB), figures=False)
    assert " 15 s " in refused


def test_the_window_follows_the_steadiness_of_the_cpu_up_to_the_cap(monkeypatch):
    """Products whose laps scatter by 10 % need longer than 3 s for 1 %, and half a second or more for 5 %."""
    lengths = {}
    for name, scatter in (("steady", 0.0), ("unsteady", 0.1)):
        laps = [4e-3 * (1 + (scatter if lap % 7 < 3 else -scatter)) for lap in range(50)]
        monkeypatch.setattr(calibration, "_laps", lambda *_, laps=laps: laps)
        monkeypatch.setattr(calibration, "_seconds", lambda *_: 4e-3)
        lengths[name] = calibration.calibrate_cpu(["fp32"], threads=1).time_window_s
    assert lengths["steady"] == 1.0
    assert lengths["unsteady"] > 3.0
    settings = {"target_error": 0.05, "max_seconds": 0.5, "phases": ("forward",), "sentinel_every_s": 0.0}
    steady, unsteady = (
        seconds(mlp(2, 64, 8), rates=Rates({"fp32": 1e11}, 1e10, window_s, "made up"), **settings)
        for window_s in (lengths["steady"], 100.0)
    )
    assert unsteady - steady == pytest.approx(0.25, abs=0.02)  # from the shortest window to the cap


def test_disk_has_the_figures():
    with_figures, without = (plan(sweep(d=(64, 128)), found(), figures=flag) for flag in (True, False))
    assert "kB" in without
    assert "MB" in with_figures


def test_types_of_the_table_of_gpus_are_known_without_rays_names(monkeypatch):
    here = Cluster({}, 2, {"CPU": 2}, None, True)
    monkeypatch.setattr("flopray.cluster.devices.nvidia_types", frozenset)
    assert absent_types(here, ["H100", "CPU", "Z80"]) == ["H100"]


def test_a_type_that_is_not_here_is_planned_for():
    here = Cluster({}, 2, {"CPU": 2}, None, True)
    assert absent_types(here, ["H100", "CPU", "Z80"]) == ["H100"]
    assert absent_types(here, None) == []
    slots = choose_devices(here.with_types(["H100"]), ["H100"])
    assert slots == {"H100": 1}
    known = targets(slots, local=True, absent=["H100"])
    text = plan(llama_sweep(("H100",)), known)
    assert "H100: there is none here; planned for one" in text
    assert "2 of 2 points will be out_of_memory in all phases: up to 3.2" in text
    assert "unknown" in plan(sweep(("A10G",)), targets({"A10G": 1}, local=True, absent=["A10G"]))


def test_what_is_said_of_memory_is_what_the_workload_does():
    from flopray.errors import OutOfMemory
    from flopray.workloads.phases import BuiltPoint

    point = make_point(workload="mlp", device_type="CPU", n_layers=4, width=64, tokens=8)
    for memory in (10_000, 70_000, 140_000, 10**6):
        refused = phases_too_large(point, PHASES, memory).keys()
        try:
            built = BuiltPoint(point, device="cpu", seed=0, memory_bytes=memory)
        except OutOfMemory:
            assert refused == set(PHASES)
            continue
        for phase in PHASES:
            if phase in refused:
                with pytest.raises(OutOfMemory):
                    built.phase(phase)
            else:
                built.phase(phase)
