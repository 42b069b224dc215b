"""RAPL on a fake powercap tree."""

import os

import numpy as np
import pytest

from flopray.energy.estimator import estimate_power, measure_tick_period
from flopray.energy.load import LoadSpan
from flopray.energy.meter import Reading
from flopray.energy.rapl import RaplMeter
from flopray.energy.source import open_cpu_meter
from flopray.energy.ticks import find_ticks
from flopray.errors import MeterError, NoEnergySource, WindowTooShort

RANGE_UJ = 262_143_328_850


def zone(root, folder, name, energy_uj, range_uj=RANGE_UJ):
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{range_uj}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    return path / "energy_uj"


@pytest.fixture
def tree(tmp_path):
    """Two sockets with DRAM, core and uncore, the platform zone and the memory-mapped twin of the first socket."""
    files = {}
    for socket in (0, 1):
        files[f"package{socket}"] = zone(tmp_path, f"intel-rapl:{socket}", f"package-{socket}", 1_000_000)
        files[f"core{socket}"] = zone(tmp_path, f"intel-rapl:{socket}:0", "core", 500_000)
        files[f"uncore{socket}"] = zone(tmp_path, f"intel-rapl:{socket}:1", "uncore", 100_000)
        files[f"dram{socket}"] = zone(tmp_path, f"intel-rapl:{socket}:2", "dram", 200_000)
    files["psys"] = zone(tmp_path, "intel-rapl:2", "psys", 9_000_000)
    files["mmio"] = zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1_000_000)
    (tmp_path / "intel-rapl").mkdir()
    return tmp_path, files


def add(file, uj):
    file.write_text(f"{int(file.read_text()) + uj}\n")


def test_packages_and_dram_are_added_and_nothing_twice(tree):
    root, files = tree
    meter = open_cpu_meter(root)
    first = meter.read()
    for file in files.values():
        add(file, 1_000_000)
    second = meter.read()
    assert second.energy_j - first.energy_j == 4.0
    assert first.before_s <= first.after_s <= second.before_s <= second.after_s
    assert meter.source == "rapl"


def test_nested_tree_is_the_same_tree(tmp_path):
    package = zone(tmp_path, "intel-rapl:0", "package-0", 10)
    dram = zone(tmp_path, "intel-rapl:0/intel-rapl:0:0", "dram", 10)
    (tmp_path / "intel-rapl:0:0").symlink_to(tmp_path / "intel-rapl:0" / "intel-rapl:0:0")
    meter = RaplMeter(tmp_path)
    add(package, 3_000_000)
    add(dram, 2_000_000)
    assert meter.read().energy_j == 5.0


def test_wrap_around_of_one_zone(tree):
    root, files = tree
    files["package0"].write_text(f"{RANGE_UJ - 1_500_000}\n")
    meter = RaplMeter(root)
    start_j = meter.read().energy_j
    files["package0"].write_text("500000\n")
    assert meter.read().energy_j - start_j == 2.0
    add(files["package0"], 250_000)
    add(files["dram1"], 250_000)
    assert meter.read().energy_j - start_j == 2.5


@pytest.mark.parametrize("back_uj", [10, 1_000_000])
@pytest.mark.parametrize("start_uj", [2_000_000, RANGE_UJ // 2, RANGE_UJ - 500_000])
def test_a_counter_that_goes_back_a_little_is_no_wrap_around(tmp_path, back_uj, start_uj):
    """10 uJ backwards would be 262 kJ as a wrap-around: 439 kW for 50 W."""
    file = zone(tmp_path, "intel-rapl:0", "package-0", start_uj)
    meter = RaplMeter(tmp_path)
    readings = [meter.read()]
    for step in (5_000, 5_000, -back_uj, 5_000, 5_000):
        add(file, step)
        readings.append(meter.read())
    ticks = find_ticks(readings)
    assert list(np.diff([reading.energy_j for reading in readings])) == pytest.approx(
        [0.005, 0.005, -0.01, 0.005, 0.005]
    )
    assert set(ticks.segment) == {0, 1}


def test_a_wrap_around_after_a_long_pause_needs_a_counter_that_was_near_its_range(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("flopray.energy.rapl.time.perf_counter", lambda: clock[0])
    file = zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 30_000_000_000)
    meter = RaplMeter(tmp_path)
    clock[0] += 600.0
    file.write_text("30000000000\n")
    assert meter.read().energy_j == pytest.approx(60_000.0)  # 100 W for 600 s
    clock[0] += 600.0
    file.write_text("1000\n")
    assert meter.read().energy_j == 0.0  # 29 kJ back from the lower part of the range: a reset


@pytest.mark.parametrize("range_uj", [0, -1])
def test_a_range_of_zero_is_refused(tmp_path, range_uj):
    zone(tmp_path, "intel-rapl:0", "package-0", 5, range_uj=range_uj)
    with pytest.raises(NoEnergySource, match="max_energy_range_uj says"):
        RaplMeter(tmp_path)


def test_the_file_that_cannot_be_read_is_the_one_that_is_named(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    (tmp_path / "intel-rapl:0" / "max_energy_range_uj").unlink()
    with pytest.raises(NoEnergySource, match="max_energy_range_uj"):
        RaplMeter(tmp_path)


@pytest.mark.parametrize("energy_uj", [-1, RANGE_UJ + 1, 2**64])
def test_a_counter_outside_of_its_range_is_refused(tmp_path, energy_uj):
    """Its wrap-around would be counted by a wrong range."""
    zone(tmp_path, "intel-rapl:0", "package-0", energy_uj)
    with pytest.raises(NoEnergySource, match=rf"energy_uj says {energy_uj}, which is not in the range"):
        RaplMeter(tmp_path)


@pytest.mark.parametrize("name", [None, b"package-1\xff", "a folder"])
def test_a_zone_whose_name_cannot_be_read_is_not_left_out(tmp_path, name):
    """It may be a package: the sum of the others would be too low without a word."""
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    file = zone(tmp_path, "intel-rapl:1", "package-1", 5).parent / "name"
    file.unlink()
    if name == "a folder":
        file.mkdir()
    elif name is not None:
        file.write_bytes(name)
    with pytest.raises(NoEnergySource, match=r"intel-rapl:1/name does not give a name"):
        RaplMeter(tmp_path)


def test_missing_dram_is_no_error(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    zone(tmp_path, "intel-rapl:0:0", "core", 0)
    meter = RaplMeter(tmp_path)
    add(file, 7_000_000)
    assert meter.read().energy_j == 7.0


@pytest.mark.parametrize("names", [[], ["psys"], ["dram"]])
def test_no_package_is_no_source(tmp_path, names):
    for number, name in enumerate(names):
        zone(tmp_path, f"intel-rapl:{number}", name, 0)
    with pytest.raises(NoEnergySource, match="no RAPL package zone") as caught:
        RaplMeter(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_root_is_no_source(tmp_path):
    with pytest.raises(NoEnergySource):
        RaplMeter(tmp_path / "absent")


@pytest.mark.parametrize("target", ["package0", "dram1"])
def test_permission_denied_names_the_remedy(tree, monkeypatch, target):
    root, files = tree
    if os.geteuid() == 0:  # root may read everything: let the read itself refuse
        plain = type(files[target]).read_text

        def refuse(self, *args, **kwargs):
            if self == files[target]:
                raise PermissionError(13, "Permission denied", str(self))
            return plain(self, *args, **kwargs)

        monkeypatch.setattr(type(files[target]), "read_text", refuse)
    else:
        files[target].chmod(0)
    with pytest.raises(NoEnergySource, match=r"sudo chmod a\+r .*energy_uj"):
        RaplMeter(root)


def test_garbage_is_no_source_at_first_and_a_meter_error_later(tree):
    root, files = tree
    meter = RaplMeter(root)
    files["dram0"].write_text("what\n")
    with pytest.raises(MeterError, match="dram"):
        meter.read()
    with pytest.raises(NoEnergySource):
        RaplMeter(root)


def test_the_cpu_meter_of_this_machine_is_typed():
    """Whatever this machine has: a meter that advances, or one line."""
    try:
        meter = open_cpu_meter()
    except NoEnergySource as error:
        message, meter = str(error), None
    else:
        message = ""
    if meter is None:
        assert message
        assert "\n" not in message
    else:
        first = meter.read()
        sum(i * i for i in range(300_000))
        assert meter.read().energy_j > first.energy_j


def test_a_counter_that_does_not_move_is_called_frozen(tmp_path):
    """And not too short a window: no longer one would help."""
    zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    meter = RaplMeter(tmp_path)
    moment = meter.read()
    readings = [Reading(t, t + 1e-4, moment.energy_j) for t in np.arange(0.0, 3.0, 0.01)]
    with pytest.raises(MeterError, match=r"the energy counter is frozen: it did not change in 3 s"):
        estimate_power(readings, LoadSpan(0.0, 3.0))
    with pytest.raises(MeterError, match="frozen"):
        measure_tick_period(readings)
    with pytest.raises(WindowTooShort):
        estimate_power(readings[:20], LoadSpan(0.0, 0.2))


def test_a_counter_that_freezes_within_a_window_is_called_frozen(tmp_path):
    """The power before would be told as that of the whole window."""
    file = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    meter = RaplMeter(tmp_path)
    readings = []
    for place, t in enumerate(np.arange(0.0, 3.0, 0.01)):
        if place < 100:
            add(file, 500_000)
        readings.append(Reading(t, t + 1e-4, meter.read().energy_j))
    with pytest.raises(MeterError, match=r"the energy counter froze: it did not change in the last 2 s"):
        estimate_power(readings, LoadSpan(0.0, 3.0))
    assert estimate_power(readings, LoadSpan(0.0, 1.5)).power_w == pytest.approx(50.0, rel=0.01)
    # a read that returns nothing new is told from no read at all
    assert estimate_power(readings[:100], LoadSpan(0.0, 3.0)).power_w == pytest.approx(50.0, rel=0.01)


@pytest.mark.parametrize("step_uj", [-500_000, -3])
def test_a_counter_that_keeps_going_back_is_not_too_short_a_window(tmp_path, step_uj):
    file = zone(tmp_path, "intel-rapl:0", "package-0", 10_000_000_000)
    meter = RaplMeter(tmp_path)
    readings = []
    for place, t in enumerate(np.arange(0.0, 0.6, 0.01)):
        add(file, step_uj if place % 2 or step_uj < -3 else 500_000)
        readings.append(Reading(t, t + 1e-4, meter.read().energy_j))
    with pytest.raises(MeterError, match="the energy counter went back"):
        estimate_power(readings, LoadSpan(0.0, 0.6))


def test_a_package_that_stands_still_beside_another_one_is_frozen(tree, monkeypatch):
    """Without a word it would be missing in the sum; DRAM may stand still, since some machines do not count it."""
    clock = [1000.0]
    monkeypatch.setattr("flopray.energy.rapl.time.perf_counter", lambda: clock[0])
    root, files = tree
    meter = RaplMeter(root)
    for moving in (["package0", "package1"], ["package0"], ["package0"]):
        clock[0] += 0.4
        for name in moving:
            add(files[name], 1_000_000)
        meter.read()
    clock[0] += 0.4
    add(files["package0"], 1_000_000)
    with pytest.raises(MeterError, match=r"zone package-1 is frozen: it did not change in 1\.2 s, in which others did"):
        meter.read()


def test_a_machine_at_rest_is_not_frozen(tree, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("flopray.energy.rapl.time.perf_counter", lambda: clock[0])
    meter = RaplMeter(tree[0])
    for _ in range(3):
        clock[0] += 10.0
        assert meter.read().energy_j == 0.0
