"""RAPL on a fake powercap tree."""

import os

import pytest

from flopray.energy.rapl import RaplMeter
from flopray.energy.source import open_cpu_meter, open_meter
from flopray.errors import MeterError, NoEnergySource

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
    assert sorted(meter.domains) == ["dram", "dram", "package-0", "package-1"]
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
    assert meter.domains == ["package-0", "dram"]
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


def test_missing_dram_is_no_error(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    zone(tmp_path, "intel-rapl:0:0", "core", 0)
    meter = RaplMeter(tmp_path)
    add(file, 7_000_000)
    assert meter.domains == ["package-0"]
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


def test_open_meter_of_this_machine_is_typed():
    """Whatever this machine has: a meter that advances, or one line."""
    try:
        meter = open_meter("cpu")
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
