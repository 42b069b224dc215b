"""`watch` around loops on this machine's CPU, with a meter whose truth is known."""

import json
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

import flopray
from flopray.energy.nvml_errors import NvmlUnavailable
from flopray.errors import InputError, MeterError, RunError
from flopray.testing.power_traces import ConstantPower
from flopray.testing.simulated_meter import Faults, SimulatedMeter
from flopray.watching import devices, recording, running
from flopray.watching.series import load_series
from flopray.watching.summary import _without_inner
from flopray.watching.timeline import Region

POWER_W = 80.0


def meter(**options):
    return SimulatedMeter(ConstantPower(POWER_W), **{"period_s": 0.02, "latency_s": 0.0005} | options)


@pytest.mark.slow
def test_joules_per_step_are_the_meters_power_times_the_time():
    with flopray.watch(meter=meter(), cpu=False, every=0.1) as w:
        for _ in range(120):
            with w.step():
                time.sleep(0.008)
    s = w.summary()
    assert (s.steps, s.left_out, s.source, s.time.clock) == (120, 2, "simulated", "perf_counter")
    assert abs(s.energy_j / (POWER_W * s.time.time_s) - 1) <= s.rel_error + 0.02
    (gpu,) = s.devices
    assert abs(gpu.energy_j - POWER_W * s.time_s) <= gpu.energy_error_j + 0.02 * gpu.energy_j
    assert gpu.peak_power_w == pytest.approx(POWER_W, rel=0.3)
    assert "a step" in repr(s)
    assert json.loads(json.dumps(s.to_dict()))["steps"] == 120


def test_a_region_in_a_loop_over_batches_is_in_no_step():
    with flopray.watch(meter=meter(), cpu=False, leave_out=0) as w:
        for batch in w.steps(range(40)):
            time.sleep(0.004)
            if batch % 20 == 19:
                with w.region("eval"):
                    time.sleep(0.15)
                    with w.region("metrics"):
                        time.sleep(0.05)
    s = w.summary()
    assert s.steps == 40
    assert 0.004 <= s.time.time_s < 0.02
    regions = {region.name: region for region in s.regions}
    assert list(regions) == ["eval", "metrics"]
    assert (regions["eval"].passages, regions["metrics"].passages) == (2, 2)
    assert regions["eval"].time_s >= 0.4
    assert abs(regions["eval"].energy_j / (POWER_W * regions["eval"].time_s) - 1) < 0.2
    assert set(w.frame["region"].dropna()) <= {"eval", "metrics"}


def test_a_region_in_a_block_of_a_step_is_part_of_it():
    with flopray.watch(meter=meter(), cpu=False, leave_out=0) as w:
        for _ in range(5):
            with w.step(), w.region("forward"):
                time.sleep(0.02)
    s = w.summary()
    assert s.time.time_s >= 0.02
    assert s.regions[0].passages == 5


def test_a_region_inside_one_of_its_name_counts_once():
    """A function that calls itself took as long as its outermost call."""
    with flopray.watch(meter=meter(), cpu=False) as w:
        for _ in range(3):
            with w.region("f"):
                time.sleep(0.02)
                with w.region("f"), w.region("g"):
                    time.sleep(0.05)
    s = w.summary()
    regions = {region.name: region for region in s.regions}
    assert (regions["f"].passages, regions["g"].passages) == (3, 3)
    assert 0.21 <= regions["f"].time_s <= s.time_s
    assert regions["f"].energy_j <= POWER_W * s.time_s * 1.1


def test_overlapping_passages_are_one_and_others_stay():
    passages = [Region("f", 0.0, 2.0), Region("f", 5.0, 6.0), Region("f", 1.0, 3.0), Region("f", 1.2, 1.4)]
    assert _without_inner(passages) == [Region("f", 0.0, 3.0), Region("f", 5.0, 6.0)]
    touching = [Region("f", 0.0, 1.0), Region("f", 1.0, 2.0)]
    assert _without_inner(touching) == touching


def test_whatever_a_region_is_called_its_watch_is_kept(tmp_path):
    with flopray.watch(cpu=False, save=tmp_path / "w") as w:
        for name in ("a\nb", "\ud800", 3, None):
            with w.step(), w.region(name):
                pass
    assert [region["name"] for region in load_series(tmp_path / "w").regions] == ["a\\nb", "\\ud800", "3", "None"]
    assert len(repr(w).splitlines()) == 3 + 4  # a line for each
    assert repr(w) == repr(w.summary())


def test_without_a_gpu_there_is_time_and_the_reason_why_there_is_no_energy(monkeypatch):
    def none():
        raise NvmlUnavailable("no NVML library: this machine has no NVIDIA driver")

    monkeypatch.setattr(running, "list_gpus", none)
    with flopray.watch(cpu=False) as w:
        for _ in w.steps(range(30)):
            time.sleep(0.001)
    s = w.summary()
    assert s.time.time_s > 0.001
    assert (s.energy_j, s.reason) == (None, "no NVML library: this machine has no NVIDIA driver")
    assert "energy  none: no NVML library" in repr(s)


@pytest.mark.slow
def test_the_cpus_counters_stand_beside_and_are_the_energy_where_no_gpu_is(monkeypatch):
    monkeypatch.setattr(recording, "open_cpu_meter", lambda: meter(period_s=0.001, quantum_j=61e-6))
    for gpu, cpu_is_the_energy in ((None, True), (meter(), False)):
        with flopray.watch(meter=gpu, leave_out=0) as w:
            for _ in range(60):
                with w.step():
                    time.sleep(0.01)
        s = w.summary()
        assert abs(s.cpu.step_energy_j / (POWER_W * s.time.time_s) - 1) <= s.cpu.step_rel_error + 0.05
        assert (s.energy_j == s.cpu.step_energy_j) == cpu_is_the_energy
        assert len(s.devices) == (0 if cpu_is_the_energy else 1)
        assert s.cpu.kind == "CPU"


def test_a_step_that_raises_is_none_and_the_series_is_kept(tmp_path):
    with pytest.raises(ZeroDivisionError), flopray.watch(meter=meter(), cpu=False, save=tmp_path / "w") as w:  # noqa: PT012
        for number in range(9):
            with w.step():
                time.sleep(0.03)
                if number == 8:
                    1 / 0
    series = load_series(tmp_path / "w")
    assert series.about["summary"]["steps"] == 8
    assert series.steps["step"].tolist() == list(range(8))
    assert len(series.ticks) > 5
    assert {"time_s", "power_w", "temperature_c", "region"} <= set(series.samples.columns)


def test_a_loop_that_breaks_off_leaves_its_last_iteration_out():
    with flopray.watch(cpu=False) as w:
        for number in w.steps(range(10)):
            if number == 4:
                break
    assert w.summary().steps == 4


def test_a_meter_that_fails_keeps_what_it_showed():
    with flopray.watch(meter=meter(faults=Faults(fail_s=0.3)), cpu=False, every=0.05) as w:
        for _ in range(60):
            with w.step():
                time.sleep(0.01)
    s = w.summary()
    assert s.devices[0].reason == "simulated failure of the meter"
    assert s.devices[0].energy_j > 0
    assert s.time.time_s > 0.01


def test_what_cannot_be_is_refused_in_one_line(tmp_path):
    for arguments, said in (
        ({"every": 0}, "every must be at least"),
        ({"every": True}, "every must be at least 0.02 s, got True"),
        ({"every": float("inf")}, "every must be at least 0.02 s, got inf"),
        ({"leave_out": True}, "leave_out"),
        ({"every": "x"}, "every must be at least 0.02 s, got 'x'"),
        ({"save": 3}, "save must be a path, got 3"),
        ({"leave_out": -1}, "leave_out"),
        ({"devices": "tpu:0"}, "'tpu:0' is not a GPU"),
        ({"devices": ["cuda:9"]}, "CUDA devices, no cuda:9"),
        ({"devices": [0], "meter": meter()}, "leave it out, since meter says"),
    ):
        with pytest.raises(InputError, match=said):
            flopray.watch(**arguments)
    with pytest.raises(RunError, match="is not a folder of a watch"):
        load_series(tmp_path)


def test_steps_do_not_lie_inside_each_other():
    with flopray.watch(cpu=False) as w, w.step(), pytest.raises(RuntimeError, match="do not lie inside"):
        w.begin_step()
    with pytest.raises(RuntimeError, match="no step has begun"):
        w.end_step()


def test_the_threads_end_with_the_watch():
    import threading

    def ours():
        return [thread for thread in threading.enumerate() if thread.name.startswith("flopray")]

    before = len(ours())
    with flopray.watch(meter=meter(), cpu=False):
        assert len(ours()) > before
    assert len(ours()) == before


def test_a_plot_has_the_regions_as_bands(tmp_path):
    with flopray.watch(meter=meter(), cpu=False, every=0.05) as w:
        for number in w.steps(range(20)):
            time.sleep(0.01)
            if number == 10:
                with w.region("<eval>"):
                    time.sleep(0.1)
    (png,) = w.plot(tmp_path / "figure", html=False)
    assert png.stat().st_size > 10_000


@pytest.mark.extras("html")
def test_the_page_works_offline_and_holds_no_markup_of_names(tmp_path):
    from flopray.report.series.figure import draw_series

    samples = pd.DataFrame({"time_s": [0.0, 1.0], "device": "<b>GPU", "uuid": "GPU-1", "power_w": [100.0, 200.0]})
    samples = samples.assign(temperature_c=np.nan, sm_clock_hz=1e9, memory_used_bytes=2.0**30)
    regions = [{"name": "</script>", "start_s": 0.2, "end_s": 0.4}]
    png, html = draw_series(samples, regions, tmp_path / "figure", html=True)
    text = html.read_text()
    data = text[text.index('type="application/json">') :].split("</script>")[0]
    shown = json.loads(data.removeprefix('type="application/json">'))
    assert [panel["title"] for panel in shown["panels"]] == ["power", "SM clock", "memory in use"]
    assert shown["bands"] == [{"name": "</script>", "start": 0.2, "end": 0.4}]
    assert png.exists()


def test_steps_are_drawn_where_no_device_reports():
    """A step that a region interrupts has the time of its parts."""
    from flopray.report.series.lines import panels_of

    samples = pd.DataFrame(columns=["time_s", "device", "uuid", "power_w", "temperature_c", "sm_clock_hz"])
    samples = samples.assign(memory_used_bytes=[])
    steps = pd.DataFrame({"step": [0, 1, 1], "start_s": [0.0, 0.5, 2.0], "end_s": [0.5, 1.0, 2.25]})
    (panel,) = panels_of(samples, steps)
    assert (panel.title, panel.unit) == ("time of a step", "ms")
    assert panel.lines[0].time_s.tolist() == [0.5, 2.25, 2.25]
    np.testing.assert_equal(panel.lines[0].values, [500.0, np.nan, 750.0])  # no step ran in the interruption
    with pytest.raises(InputError, match="no step was marked"):
        panels_of(samples, steps[:0])


def test_the_line_of_steps_breaks_where_none_ran():
    """As in a loop with `with w.step()` and an evaluation between two steps; short pauses do not break it."""
    from flopray.report.series.lines import panels_of

    samples = pd.DataFrame(columns=["time_s", "device", "uuid", "power_w", "temperature_c", "sm_clock_hz"])
    start_s = np.array([0.0, 0.2, 0.4, 3.0, 3.2])
    steps = pd.DataFrame({"step": range(5), "start_s": start_s, "end_s": start_s + 0.1})
    (panel,) = panels_of(samples.assign(memory_used_bytes=[]), steps)
    np.testing.assert_allclose(panel.lines[0].time_s, [0.1, 0.3, 0.5, 3.1, 3.1, 3.3])
    np.testing.assert_array_equal(np.isnan(panel.lines[0].values), [False, False, False, True, False, False])


def test_a_foreign_table_is_named_as_one(tmp_path):
    from flopray.report.series.figure import draw_series

    with pytest.raises(InputError, match="no time series: it has no column 'device'"):
        draw_series(pd.DataFrame({"time_s": [0.0]}), [], tmp_path / "figure")


def test_a_folder_holds_one_watch(tmp_path):
    with flopray.watch(cpu=False, save=tmp_path / "w") as first:
        first.save(tmp_path / "w")  # as often as one likes
    with pytest.raises(InputError, match="holds another watch: nothing that was measured is overwritten"):
        flopray.watch(save=tmp_path / "w")
    with flopray.watch(cpu=False) as second, pytest.raises(InputError, match="holds another watch"):
        second.save(tmp_path / "w")


def test_a_watch_watches_once(tmp_path):
    with flopray.watch(cpu=False) as w, w.region("still open"):
        w.stop()
    said = "this watch has ended: each one watches once, so begin another with flopray.watch()"
    for again in (w.__enter__, w.begin_step, w.next_step, lambda: w.open_region("a", interrupts=False)):
        with pytest.raises(RuntimeError) as error:
            again()
        assert str(error.value) == said
        assert error.value.__context__ is None
    with pytest.raises(RuntimeError) as error:
        next(w.steps([1]))
    assert str(error.value) == said
    assert error.value.__context__ is None
    assert w.summary().steps == 0


def test_what_is_no_folder_is_refused_before_and_after(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path, said in (("", "name a folder, such as"), (tmp_path / "file", "file is a file: name a folder")):
        with pytest.raises(InputError, match=f"save: .*{said}"):
            flopray.watch(save=path)
        with flopray.watch(cpu=False) as w:
            pass
        with pytest.raises(InputError, match=said):
            w.save(path)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_figure_has_the_ending_that_was_given(tmp_path):
    with flopray.watch(meter=meter(), cpu=False) as w:
        for _ in w.steps(range(3)):
            time.sleep(0.01)
    for name, options, written in (
        ("plain", {}, ["plain.png"]),
        ("one.png", {}, ["one.png"]),
        ("two.svg", {}, ["two.svg"]),
        ("three.PDF", {"formats": ("svg",)}, ["three.svg", "three.pdf"]),
        ("v1.2", {}, ["v1.2.png"]),
    ):
        assert [path.name for path in w.plot(tmp_path / name, html=False, **options)] == written


def test_few_steps_are_said_in_words():
    with flopray.watch(cpu=False) as w:
        nothing = str(w.summary())
        with w.step():
            pass
        one = str(w.summary())
        with w.step():
            pass
        two = str(w.summary())
    assert "0 steps: none was named (for x in w.steps(loader), or with w.step())" in nothing
    assert ", 1 step\n" in one
    assert "± ? (too few steps to tell; perf_counter)" in one
    assert "2 steps (means leave out the first step)" in two
    assert "step to step" not in two


def test_a_loop_that_brings_its_model_to_the_gpu_in_its_first_step_begins_anew(monkeypatch):
    """Regions go on: what ended before is kept, and one that is open ends in the new marks."""

    class Event:
        def query(self):
            return True

        def elapsed_time(self, later):
            return 1e3 * (later.at_s - self.at_s)

    def record(event):
        event = event or Event()
        event.at_s = time.perf_counter()
        return event

    used = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: bool(used))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(running, "used_gpus", lambda: used)
    monkeypatch.setattr(running, "gpu_uuid", lambda index: "GPU-aaaa")
    monkeypatch.setattr(running, "cuda_marks", lambda index: running.EventMarks(record))
    no_gpu = recording.Recording(recording.DeviceName("GPU", "GPU-aaaa", "H100"), None, "no counter")
    monkeypatch.setattr(recording, "record_gpu", lambda uuid: no_gpu)
    took_s: list[float] = []
    with flopray.watch(cpu=False, leave_out=0) as w:
        with w.region("set-up"):
            time.sleep(0.01)
        with w.region("training"):
            for _ in range(4):
                begun_s = time.perf_counter()
                with w.step():
                    time.sleep(0.01)
                    used[:] = ["GPU-aaaa"]
                took_s.append(time.perf_counter() - begun_s)
    s = w.summary()
    assert (s.steps, s.time.clock) == (3, "cuda_events")
    assert 0.01 <= s.time.time_s <= 2 * sum(took_s[1:]) / 3  # a busy machine sleeps longer
    assert {region.name: region.passages for region in s.regions} == {"set-up": 1, "training": 1}
    assert s.regions[1].time_s >= 0.03
    assert s.reason == "H100: no counter"


class TestDevices:
    """Which GPUs are this process's own, with torch's CUDA in software."""

    UUIDS = ("aaaa", "bbbb", "cccc")

    @pytest.fixture
    def cuda(self, monkeypatch):
        """Three visible GPUs in any order of `CUDA_VISIBLE_DEVICES`: only torch knows which is which."""
        held = {0: 0, 1: 5_000_000, 2: 0}

        class Properties:
            def __init__(self, index):
                self.uuid = TestDevices.UUIDS[index]

        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
        monkeypatch.setattr(torch.cuda, "memory_reserved", held.__getitem__)
        monkeypatch.setattr(torch.cuda, "get_device_properties", Properties)
        return held

    def test_only_what_holds_memory_of_this_process_is_its_own(self, cuda):
        """Each rank of a job sees all GPUs of its node: those of the others are not its own."""
        assert devices.used_gpus() == ["GPU-bbbb"]
        cuda[2] = 1
        assert devices.used_gpus() == ["GPU-bbbb", "GPU-cccc"]

    def test_nothing_is_initialised_by_asking(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: pytest.fail("asked"))
        assert devices.used_gpus() == []
        monkeypatch.delitem(sys.modules, "torch")
        assert devices.used_gpus() == []

    def test_devices_are_named_by_index_or_uuid(self, cuda):
        assert devices.named_gpus("cuda:2") == ["GPU-cccc"]
        assert devices.named_gpus([0, torch.device("cuda", 1), "GPU-dddd"]) == ["GPU-aaaa", "GPU-bbbb", "GPU-dddd"]
        assert devices.named_gpus(torch.device("cuda")) == ["GPU-bbbb"]

    def test_the_marked_stream_is_that_of_the_current_gpu_if_it_is_watched(self, cuda):
        assert running._index_of(["GPU-bbbb", "GPU-cccc"], 1) == 1
        assert running._index_of(["GPU-cccc"], 1) == 2
        assert running._index_of([], 1) is None

    def test_a_gpu_that_is_used_later_is_recorded_from_then_on_and_once(self, monkeypatch):
        used = []
        made = []

        def record(uuid):
            made.append(uuid)
            return recording.Recording(recording.DeviceName("GPU", uuid, "H100"), None, "no counter")

        monkeypatch.setattr(recording, "record_gpu", record)
        recorder = recording.Recorder([], 10.0, lambda: used)
        recorder.look()
        assert made == []
        monkeypatch.setattr(recording, "_AT_LEAST_S", 0.0)
        used.append("GPU-aaaa")
        recorder.look()
        recorder.look()
        recorder.stop()
        assert made == ["GPU-aaaa"]

    def test_a_gpu_without_a_counter_says_why_and_is_still_sampled(self, monkeypatch):
        def no_gpu(uuid):
            raise MeterError(f"{uuid} is lost")

        monkeypatch.setattr(recording.Gpu, "from_uuid", no_gpu)
        found = recording.record_gpu("GPU-aaaa")
        assert (found.meter, found.reason) == (None, "GPU-aaaa is lost")


def test_numbers_of_numpy_are_numbers():
    np = pytest.importorskip("numpy")
    with flopray.watch(meter=meter(), cpu=False, every=np.float32(0.25), leave_out=np.int64(0)) as w:
        for _ in w.steps(range(3)):
            time.sleep(0.001)
    assert w.summary().steps == 3
