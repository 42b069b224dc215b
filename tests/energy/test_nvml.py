"""NVML: errors and facts with a simulated driver, and everything again on a real GPU (marker `gpu`)."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import pynvml
import pytest
import torch

from flopray.energy import nvml
from flopray.energy.nvml import Gpu, list_gpus, throttle_names
from flopray.energy.nvml_errors import GpuLost, NvmlNoSuchGpu, NvmlNotSupported, NvmlUnavailable
from flopray.energy.source import open_gpu_meter
from flopray.errors import MeterError, NoEnergySource

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use")

UUID = "12345678-1234-1234-1234-123456789abc"


def refuse(code):
    def function(*args):
        raise pynvml.NVMLError(code)

    return function


@pytest.fixture
def driver(monkeypatch):
    """NVML functions of one H100-like GPU; `driver(name, function)` replaces one of them."""

    def by_uuid(uuid):
        if uuid != f"GPU-{UUID}":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return "handle"

    functions = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: "handle",
        "nvmlDeviceGetHandleByUUID": by_uuid,
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{UUID}",
        "nvmlDeviceGetName": lambda handle: "NVIDIA H100 80GB HBM3",
        "nvmlDeviceGetBoardPartNumber": lambda handle: "692-2G520-0200-000",
        "nvmlDeviceGetVbiosVersion": lambda handle: "96.00.61.00.01",
        "nvmlSystemGetDriverVersion": lambda: "580.159.04",
        "nvmlDeviceGetCudaComputeCapability": lambda handle: [9, 0],
        "nvmlDeviceGetMaxClockInfo": lambda handle, kind: {pynvml.NVML_CLOCK_SM: 1980}[kind],
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=85_520_809_984),
        "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 700_000,
        "nvmlDeviceGetTemperature": lambda handle, kind: 41,
        "nvmlDeviceGetClockInfo": lambda handle, kind: {pynvml.NVML_CLOCK_SM: 1365, pynvml.NVML_CLOCK_MEM: 2619}[kind],
        "nvmlDeviceGetCurrentClocksEventReasons": lambda handle: 0x24,
        "nvmlDeviceIsMigDeviceHandle": lambda handle: 0,
        "nvmlDeviceGetMigMode": lambda handle: [0, 0],
        "nvmlDeviceGetComputeRunningProcesses": lambda handle: [],
        "nvmlDeviceGetTotalEnergyConsumption": lambda handle: 123_456_789,
        "nvmlDeviceGetPowerUsage": lambda handle: 300_000,
        "nvmlDeviceGetFieldValues": refuse(pynvml.NVML_ERROR_NOT_SUPPORTED),
    }
    monkeypatch.setattr(nvml, "_started_in", None)
    for name, function in functions.items():
        # the errors carry the function's name
        function.__name__ = name
        monkeypatch.setattr(pynvml, name, function)

    def replace(name, function):
        monkeypatch.setattr(pynvml, name, function)

    return replace


def test_importing_needs_neither_driver_nor_pynvml():
    code = "import flopray.energy.nvml, flopray.energy.source, sys; assert not {'pynvml', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, NvmlUnavailable, "no NVIDIA driver"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, NvmlUnavailable, "not loaded"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, NvmlUnavailable, "reboot"),
        (pynvml.NVML_ERROR_NO_PERMISSION, NvmlUnavailable, "permission"),
        (pynvml.NVML_ERROR_GPU_IS_LOST, MeterError, "lost"),
        (pynvml.NVML_ERROR_UNKNOWN, NvmlUnavailable, "Unknown"),
    ],
)
def test_errors_of_the_start_are_typed_and_one_line(driver, code, kind, words):
    driver("nvmlInit", refuse(code))
    with pytest.raises(kind, match=words) as caught:
        list_gpus()
    assert "\n" not in str(caught.value)


#: All codes that these bindings know, and one that a newer driver may bring.
_KNOWN = {getattr(pynvml, name) for name in dir(pynvml) if re.fullmatch(r"NVML_ERROR_\w+", name)}
CODES = [*sorted(_KNOWN - {pynvml.NVML_ERROR_GPU_IS_LOST}), 4711]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(
    "function", ["nvmlInit", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetMigMode"]
)
def test_whatever_the_code_there_is_a_meter_or_a_reason_for_no_energy(driver, function, code):
    """Time and FLOPs need no NVML: the profiler expects `NoEnergySource`, and nothing else, when it opens the meter."""
    driver(function, refuse(code))
    reason = None
    try:
        meter = open_gpu_meter(UUID)
    except NoEnergySource as error:
        reason = str(error)
    if reason is None:
        assert meter.source in ("nvml_counter", "nvml_power")
    else:
        assert reason
        assert "\n" not in reason


@pytest.mark.parametrize(
    "error",
    [OSError("cannot open shared object"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), SystemError("x")],
)
@pytest.mark.parametrize(
    "function", ["nvmlInit", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetName"]
)
def test_an_error_that_is_not_of_nvml_is_a_reason_too(driver, function, error):
    """A library that cannot be loaded, a name that is no text: time and FLOPs need neither."""

    def fail(*_):
        raise error

    driver(function, fail)
    with suppress(NoEnergySource):
        assert open_gpu_meter(UUID).source in ("nvml_counter", "nvml_power")
    driver("nvmlDeviceGetPowerUsage", fail)
    driver("nvmlDeviceGetFieldValues", fail)
    if function == "nvmlDeviceGetTotalEnergyConsumption":
        with pytest.raises(NoEnergySource, match=type(error).__name__):
            open_gpu_meter(UUID)
    elif function == "nvmlDeviceGetName":
        assert Gpu.from_uuid(UUID).info()["device_name"] is None


@pytest.mark.parametrize("code", [code for code in CODES if code != pynvml.NVML_ERROR_NOT_SUPPORTED])
def test_neither_counter_nor_power(driver, code):
    for name in ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetFieldValues"):
        driver(name, refuse(code))
    with pytest.raises(NoEnergySource):
        open_gpu_meter(UUID)


@pytest.mark.parametrize("code", CODES)
def test_no_code_keeps_facts_and_state_from_the_rest(driver, code):
    gpu = Gpu.from_uuid(UUID)
    for name in ("nvmlDeviceGetUUID", "nvmlDeviceGetTemperature", "nvmlDeviceGetEnforcedPowerLimit"):
        driver(name, refuse(code))
    assert gpu.info()["device_name"] == "NVIDIA H100 80GB HBM3"
    assert gpu.info()["device_uuid"] is None
    assert gpu.state().temperature_c is None
    assert gpu.state().sm_clock_hz == 1.365e9


def test_a_gpu_that_is_lost_is_no_missing_energy_source(driver):
    driver("nvmlDeviceGetTotalEnergyConsumption", refuse(pynvml.NVML_ERROR_GPU_IS_LOST))
    with pytest.raises(GpuLost):
        open_gpu_meter(UUID)


OTHER = "87654321-4321-4321-4321-cba987654321"


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_UNKNOWN])
def test_a_gpu_that_gives_no_handle_hides_no_other(driver, code):
    def by_index(index):
        return "handle" if index == 1 else refuse(code)()

    driver("nvmlDeviceGetCount", lambda: 2)
    driver("nvmlDeviceGetHandleByIndex", by_index)
    silent, healthy = list_gpus()
    assert healthy.info()["device_name"] == "NVIDIA H100 80GB HBM3"
    for ask in (silent.info, silent.state, silent.is_mig, silent.other_processes, lambda: silent.uuid):
        with pytest.raises((MeterError, NoEnergySource), match=r"lost|Unknown"):
            ask()


def test_a_search_by_uuid_that_meets_a_lost_gpu_finds_the_healthy_one(driver):
    """NVML gives up when it meets a lost GPU during its search."""

    def by_index(index):
        return "handle" if index == 1 else refuse(pynvml.NVML_ERROR_GPU_IS_LOST)()

    driver("nvmlDeviceGetCount", lambda: 2)
    driver("nvmlDeviceGetHandleByIndex", by_index)
    driver("nvmlDeviceGetHandleByUUID", refuse(pynvml.NVML_ERROR_GPU_IS_LOST))
    assert Gpu.from_uuid(UUID).handle == "handle"
    with pytest.raises(GpuLost):
        Gpu.from_uuid(OTHER)


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetCount"])
@pytest.mark.parametrize("code", [*CODES, pynvml.NVML_ERROR_GPU_IS_LOST])
def test_a_driver_that_fails_has_a_reason_and_no_driver_has_none(driver, function, code):
    driver(function, refuse(code))
    silent = code in (
        *(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_INVALID_ARGUMENT),
        *(pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND),
    )
    assert (nvml.why_nvml_fails() is None) is silent


def test_a_driver_that_works_has_no_reason(driver):
    assert nvml.why_nvml_fails() is None


def test_older_bindings_are_named_with_the_remedy(driver, monkeypatch):
    def wants_bytes(uuid):
        raise TypeError("bytes or integer address expected instead of str instance")

    driver("nvmlDeviceGetHandleByUUID", wants_bytes)
    with pytest.raises(NoEnergySource, match=r"nvidia-ml-py [\d.]+ is too old \(TypeError: .*install -U nvidia-ml-py"):
        Gpu.from_uuid(UUID)
    monkeypatch.setattr(nvml, "_started_in", None)
    monkeypatch.delattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption")
    with pytest.raises(NoEnergySource, match="it has no nvmlDeviceGetTotalEnergyConsumption"):
        list_gpus()


def test_a_failed_start_is_tried_again(driver):
    driver("nvmlInit", refuse(pynvml.NVML_ERROR_DRIVER_NOT_LOADED))
    with pytest.raises(NvmlUnavailable):
        list_gpus()
    driver("nvmlInit", lambda: None)
    assert len(list_gpus()) == 1


def test_started_once_a_process(driver):
    starts = []
    driver("nvmlInit", lambda: starts.append(1))
    list_gpus()
    Gpu.from_uuid(UUID)
    assert starts == [1]


@pytest.mark.parametrize("uuid", [UUID, f"GPU-{UUID}"])
def test_found_by_the_uuids_of_torch_and_of_nvml(driver, uuid):
    assert Gpu.from_uuid(uuid).uuid == f"GPU-{UUID}"


def test_unknown_uuid(driver):
    with pytest.raises(NvmlNoSuchGpu, match="0000"):
        Gpu.from_uuid("00000000-0000")


def test_info_has_the_columns_of_the_record(driver):
    assert Gpu.from_uuid(UUID).info() == {
        "device_name": "NVIDIA H100 80GB HBM3",
        "device_uuid": f"GPU-{UUID}",
        "board_part_number": "692-2G520-0200-000",
        "vbios_version": "96.00.61.00.01",
        "driver_version": "580.159.04",
        "compute_capability": "9.0",
        "sm_count": None,
        "max_sm_clock_hz": 1.98e9,
        "power_limit_w": 700.0,
        "memory_total_bytes": 85_520_809_984,
    }


@pytest.mark.parametrize(
    ("name", "share"),
    [("NVIDIA H200", 1.0), ("NVIDIA H200 NVL", 0.26), ("NVIDIA H100 80GB HBM3", 0.26), ("NVIDIA A100-SXM4-80GB", 0.26)],
)
def test_only_a_counter_that_was_seen_to_add_up_all_power_is_said_to(driver, name, share):
    driver("nvmlDeviceGetName", lambda handle: name)
    assert open_gpu_meter(UUID).characteristics.seen_share == share
    driver("nvmlDeviceGetName", refuse(pynvml.NVML_ERROR_NOT_SUPPORTED))
    assert open_gpu_meter(UUID).characteristics.seen_share == 0.26


def test_what_a_gpu_does_not_report_is_none(driver):
    for name in (
        *("nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetTemperature", "nvmlDeviceGetMaxClockInfo"),
        *("nvmlDeviceGetBoardPartNumber", "nvmlDeviceGetVbiosVersion"),
    ):
        driver(name, refuse(pynvml.NVML_ERROR_NOT_SUPPORTED))
    gpu = Gpu.from_uuid(UUID)
    assert gpu.info()["power_limit_w"] is None
    assert (gpu.info()["board_part_number"], gpu.info()["vbios_version"]) == (None, None)
    assert gpu.info()["max_sm_clock_hz"] is None
    assert gpu.state().temperature_c is None


def test_state(driver):
    state = Gpu.from_uuid(UUID).state()
    assert state.temperature_c == 41
    assert state.sm_clock_hz == 1.365e9
    assert state.memory_clock_hz == 2.619e9
    assert state.throttle == "sw_power_cap|sw_thermal_slowdown"
    assert state.power_limit_w == 700.0


def test_state_of_an_old_driver_uses_the_old_name_of_the_reasons(driver, monkeypatch):
    driver("nvmlDeviceGetCurrentClocksEventReasons", refuse(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND))
    driver("nvmlDeviceGetCurrentClocksThrottleReasons", lambda handle: 0x1)
    assert Gpu.from_uuid(UUID).state().throttle == "gpu_idle"


def test_a_lost_gpu_is_an_error_not_a_none(driver):
    driver("nvmlDeviceGetTemperature", refuse(pynvml.NVML_ERROR_GPU_IS_LOST))
    with pytest.raises(MeterError, match="lost"):
        Gpu.from_uuid(UUID).state()


def test_a_hiccup_of_a_column_costs_the_column_and_not_the_measurement(driver):
    driver("nvmlDeviceGetTemperature", refuse(pynvml.NVML_ERROR_UNKNOWN))
    state = Gpu.from_uuid(UUID).state()
    assert state.temperature_c is None
    assert state.sm_clock_hz


def test_a_function_that_the_driver_is_too_old_for_is_not_supported(driver):
    def too_old(handle):
        raise pynvml.NVMLLibraryMismatchError("newer driver needed")

    driver("nvmlDeviceGetComputeRunningProcesses", too_old)
    assert Gpu.from_uuid(UUID).other_processes() is None


def test_throttle_names_follow_the_bits_of_pynvml():
    assert throttle_names(0) == ""
    assert throttle_names(0x4 | 0x80) == "sw_power_cap|hw_power_brake_slowdown"
    assert throttle_names(0x4 | 0x8000) == "sw_power_cap|0x8000"
    assert throttle_names(pynvml.nvmlClocksEventReasonSwPowerCap) == "sw_power_cap"
    assert throttle_names(pynvml.nvmlClocksEventReasonHwThermalSlowdown) == "hw_thermal_slowdown"
    assert throttle_names(pynvml.nvmlClocksEventReasonGpuIdle) == "gpu_idle"


@pytest.mark.parametrize(
    ("pids", "own_context", "expected"),
    [
        ([os.getpid()], True, 0),
        ([os.getpid(), 77], True, 1),
        ([os.getpid(), 77, 77, 78], True, 2),
        ([999_999_999], True, 0),  # our own process under the host's number
        ([999_999_998, 999_999_999], True, 1),
        ([999_999_999], False, 1),
        ([], False, 0),
        ([], True, None),  # hidden by the container
    ],
)
def test_other_processes(driver, pids, own_context, expected):
    driver("nvmlDeviceGetComputeRunningProcesses", lambda handle: [SimpleNamespace(pid=pid) for pid in pids])
    assert Gpu.from_uuid(UUID).other_processes(own_context) == expected


def test_mig(driver):
    gpu = Gpu.from_uuid(UUID)
    assert not gpu.is_mig()
    driver("nvmlDeviceGetMigMode", lambda handle: [1, 1])
    assert gpu.is_mig()
    driver("nvmlDeviceGetMigMode", refuse(pynvml.NVML_ERROR_NOT_SUPPORTED))
    assert not gpu.is_mig()
    driver("nvmlDeviceIsMigDeviceHandle", lambda handle: 1)
    assert gpu.is_mig()


class TestMeters:
    """`flopray.energy.nvml_meter` on the same driver in software."""

    def test_counter_in_joules(self, driver):
        from flopray.energy.source import open_gpu_meter

        meter = open_gpu_meter(UUID)
        assert meter.source == "nvml_counter"
        reading = meter.read()
        assert reading.energy_j == 123_456.789
        assert reading.before_s <= reading.after_s

    @pytest.mark.parametrize("code", [pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_NO_PERMISSION, 999])
    def test_a_counter_that_stops_is_a_meter_error(self, driver, code):
        from flopray.energy.source import open_gpu_meter

        meter = open_gpu_meter(UUID)
        driver("nvmlDeviceGetTotalEnergyConsumption", refuse(code))
        with pytest.raises(MeterError):
            meter.read()

    def test_without_counter_the_average_power_is_integrated(self, driver):
        from flopray.energy.source import open_gpu_meter

        driver("nvmlDeviceGetTotalEnergyConsumption", refuse(pynvml.NVML_ERROR_NOT_SUPPORTED))
        meter = open_gpu_meter(UUID)
        assert meter.source == "nvml_power"
        assert not meter.instant
        assert meter.characteristics.settle_s > 1
        assert meter.characteristics.rel_error > 0
        first, second = meter.read(), meter.read()
        first_s, second_s = ((r.before_s + r.after_s) / 2 for r in (first, second))
        assert second.energy_j - first.energy_j == pytest.approx(300 * (second_s - first_s))

    def test_instant_power_is_preferred(self, driver):
        from flopray.energy.source import open_gpu_meter

        def fields(handle, wanted):
            assert wanted == [pynvml.NVML_FI_DEV_POWER_INSTANT]
            return [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=500_000))]

        driver("nvmlDeviceGetTotalEnergyConsumption", refuse(pynvml.NVML_ERROR_NOT_SUPPORTED))
        driver("nvmlDeviceGetFieldValues", fields)
        meter = open_gpu_meter(UUID)
        assert meter.instant
        assert meter.characteristics.settle_s < 1
        first, second = meter.read(), meter.read()
        first_s, second_s = ((r.before_s + r.after_s) / 2 for r in (first, second))
        assert second.energy_j - first.energy_j == pytest.approx(500 * (second_s - first_s))

    def test_mig_has_no_source(self, driver):
        from flopray.energy.source import open_gpu_meter

        driver("nvmlDeviceGetMigMode", lambda handle: [1, 1])
        with pytest.raises(NoEnergySource, match="MIG"):
            open_gpu_meter(UUID)

    def test_no_driver_has_no_source(self, driver):
        from flopray.energy.source import open_gpu_meter

        driver("nvmlInit", refuse(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
        with pytest.raises(NoEnergySource, match="no NVIDIA driver"):
            open_gpu_meter(UUID)

    def test_neither_counter_nor_power(self, driver):
        from flopray.energy.source import open_gpu_meter

        driver("nvmlDeviceGetTotalEnergyConsumption", refuse(pynvml.NVML_ERROR_NOT_SUPPORTED))
        driver("nvmlDeviceGetPowerUsage", refuse(pynvml.NVML_ERROR_NOT_SUPPORTED))
        with pytest.raises(NvmlNotSupported, match="power sensor"):
            open_gpu_meter(UUID)


def gpu_of(index: int) -> Gpu:
    """The GPU that torch calls `cuda:<index>`."""
    return Gpu.from_uuid(str(torch.cuda.get_device_properties(index).uuid))


@pytest.mark.gpu
@needs_gpu
class TestRealGpu:
    def test_torch_and_nvml_mean_the_same_gpu(self):
        for index in range(torch.cuda.device_count()):
            gpu = gpu_of(index)
            assert gpu.info()["device_name"] == torch.cuda.get_device_name(index)
            capability = torch.cuda.get_device_capability(index)
            assert gpu.info()["compute_capability"] == f"{capability[0]}.{capability[1]}"
            assert gpu.uuid in {other.uuid for other in list_gpus()}

    def test_info_is_plausible(self):
        info = gpu_of(0).info()
        assert info["device_uuid"].startswith("GPU-")
        assert info["driver_version"][0].isdigit()
        assert info["vbios_version"] is None or "." in info["vbios_version"]
        assert info["board_part_number"] is None or info["board_part_number"].strip()
        assert 0.5e9 < info["max_sm_clock_hz"] < 4e9
        assert info["power_limit_w"] is None or 20 < info["power_limit_w"] < 2000
        assert info["memory_total_bytes"] > 1e9

    def test_state_is_plausible(self):
        state = gpu_of(0).state()
        assert 10 < state.temperature_c < 100
        assert 0.05e9 < state.sm_clock_hz < 4e9
        assert 0.05e9 < state.memory_clock_hz < 20e9
        assert isinstance(state.throttle, str)

    def test_this_process_is_not_another_one(self):
        torch.zeros(1, device="cuda")
        others = gpu_of(0).other_processes()
        assert others is None or others >= 0


#: What imports as `pynvml`: a package of that name, an old nvidia-ml-py, both in one file, or a file of anyone's.
WRONG_BINDINGS = {
    "a package of its own": (
        {"pynvml": "8.0.4"},
        r"pynvml 8\.0\.4 hides nvidia-ml-py \({why}\): pip uninstall -y pynvml && pip install -U nvidia-ml-py$",
    ),
    "an old one": (
        {"nvidia-ml-py": "7.352.0"},
        r"nvidia-ml-py 7\.352\.0 is too old \({why}\): pip install -U nvidia-ml-py$",
    ),
    "two packages in one file": (
        {"nvidia-ml-py": "13.0.0", "nvidia-ml-py3": "7.352.0"},
        r"nvidia-ml-py3 7\.352\.0 hides nvidia-ml-py \({why}\): "
        "pip uninstall -y nvidia-ml-py3 nvidia-ml-py && pip install -U nvidia-ml-py$",
    ),
    "a file of anyone's": (
        {},
        r"the module /.*/pynvml.py hides nvidia-ml-py \({why}\): rename it, or take its folder out of PYTHONPATH$",
    ),
}


@pytest.mark.parametrize("kind", WRONG_BINDINGS)
@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("except X, e:", "it cannot be imported: SyntaxError"),
        ("raise OSError('x')", "it cannot be imported: OSError"),
        ("", "it has no nvmlInit"),
    ],
)
def test_a_pynvml_that_is_none_is_named_with_what_helps(tmp_path, kind, content, why):
    packages, words = WRONG_BINDINGS[kind]
    (tmp_path / "pynvml.py").write_text(content)
    for name, version in packages.items():
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (folder / "top_level.txt").write_text("pynvml\n")
        (folder / "RECORD").write_text("pynvml.py,,\n")
    code = """
from flopray.energy import nvml
from flopray.energy.nvml_errors import WrongBindings
try:
    nvml.library()
except WrongBindings as error:
    print(error)
"""
    own = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], check=True, env=own, capture_output=True, text=True)
    assert re.match(words.format(why=why), done.stdout.strip()), done.stdout


@pytest.mark.parametrize("here", [True, False])
def test_wrong_bindings_beside_a_driver_are_a_reason_why_no_gpu_is_seen(driver, monkeypatch, here):
    """A plan for the CPU would be made without a word, although Ray, which has bindings of its own, finds the GPU."""
    monkeypatch.setattr(nvml, "driver_is_here", lambda: here)
    monkeypatch.delattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption")
    assert ("it has no nvmlDeviceGetTotalEnergyConsumption" in (nvml.why_nvml_fails() or "")) is here


def test_texts_of_older_bindings_are_bytes_and_become_texts(driver):
    driver("nvmlDeviceGetName", lambda handle: b"NVIDIA H100 80GB HBM3")
    driver("nvmlDeviceGetVbiosVersion", lambda handle: b"96.00\xff")
    driver("nvmlDeviceGetUUID", lambda handle: f"GPU-{UUID}".encode())
    (gpu,) = list_gpus()
    assert gpu.info()["device_name"] == "NVIDIA H100 80GB HBM3"
    assert gpu.info()["vbios_version"] == "96.00\ufffd"
    assert gpu.uuid == f"GPU-{UUID}"


@pytest.mark.parametrize("limit_mw", [0, 2**32 - 1])
def test_a_limit_that_no_board_has_is_not_reported(driver, limit_mw):
    """Any power would be above a limit of 0, and the audit would call it impossible."""
    driver("nvmlDeviceGetEnforcedPowerLimit", lambda handle: limit_mw)
    gpu = Gpu.from_uuid(UUID)
    assert (gpu.info()["power_limit_w"], gpu.state().power_limit_w) == (None, None)
    assert open_gpu_meter(UUID).characteristics.max_power_w is None
