"""`flopray calibrate`: what it prints and keeps, what it refuses, and references made from its output."""

import json
import sys
from pathlib import Path

import pytest
import torch

from flopray.cli import calibrate as command
from flopray.cli.main import main
from flopray.energy import type_reference
from flopray.energy.calibration import Calibration, LoadResult
from flopray.energy.type_reference import reference_from

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
import board_reference

NAME = "NVIDIA X"


def measured(uuid: str = "GPU-1", power_w: float = 400.0, name: str = NAME) -> Calibration:
    good = {"power_w": power_w + 3, "temperature_c": 52.0, "power_at_reference_w": power_w, "rel_error": 0.011}
    return Calibration(
        device_name=name,
        device_uuid=uuid,
        driver_version="580",
        power_limit_w=700.0,
        node="n",
        torch_version="2.11",
        cuda_version="12.8",
        flopray_version="1",
        measured_unix_s=1.8e9,
        seconds=31.0,
        reference_temperature_c=50.0,
        loads=(
            LoadResult(load="copy", time_s=1e-3, energy_at_reference_j=power_w * 1e-3, **good),
            LoadResult(load="products_bf16", time_s=1e-4, reason="clocks were held down (power)"),
        ),
    )


@pytest.fixture
def board(monkeypatch, tmp_path):
    """Replaces the measurement; the cache is a folder of the test."""
    monkeypatch.setenv("FLOPRAY_CACHE", str(tmp_path))
    monkeypatch.setattr(command, "_measured", lambda *_: measured())
    return tmp_path / "calibrations" / "GPU-1"


def test_a_first_board_is_told_and_kept(board, capsys):
    assert main(["calibrate"]) == 0
    told = capsys.readouterr()
    for part in ("copy", "403.0 W, 52.0 °C", "400.0 W ±1.1%", "no reference for NVIDIA X: this is the first board"):
        assert part in told.out
    assert "products_bf16: clocks were held down (power)" in told.out
    (path,) = board.glob("*.json")
    assert str(path) in told.err.replace("\n", "")
    assert Calibration.from_dict(json.loads(path.read_text())) == measured()
    main(["calibrate"])
    assert len(list(board.glob("*.json"))) == 2


def test_a_board_of_a_known_type_has_a_factor(board, capsys, monkeypatch):
    reference = reference_from([measured("GPU-2", 390.0), measured("GPU-3", 394.0)], "a test")
    monkeypatch.setattr(type_reference, "references", lambda: (reference,))
    assert main(["calibrate"]) == 0
    assert "factor 1.0204" in capsys.readouterr().out  # 400 W over the geometric mean of 390 and 394 W
    assert main(["calibrate", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["board_factor"]["factor"] == pytest.approx(400 / (390 * 394) ** 0.5)
    assert told["board_factor"]["boards"] == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "error: flopray calibrate needs an NVIDIA GPU, and torch"),
        (["--device", "cpu"], "error: --device cpu: a board's factor is that of a GPU, give one such as cuda:0"),
        (["--reference-temperature", "500"], "error: --reference-temperature must be a temperature from 0 to 120"),
        (["--reference-temperature", "nan"], "error: --reference-temperature must be a temperature from 0 to 120"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(flags, line, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("FLOPRAY_CACHE", str(tmp_path))
    assert main(["calibrate", *flags]) == 2
    told = capsys.readouterr().err
    assert told.startswith(line)
    assert len(told.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def run_script(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["board_reference.py", *map(str, words)])
    return board_reference.main()


def test_what_calibrate_prints_makes_a_reference(board, tmp_path, capsys, monkeypatch):
    paths = []
    for uuid, power_w in (("GPU-2", 390.0), ("GPU-3", 410.0)):
        monkeypatch.setattr(command, "_measured", lambda *_, u=uuid, p=power_w: measured(u, p))
        capsys.readouterr()
        main(["calibrate", "--json"])
        paths.append(tmp_path / f"{uuid}.json")
        paths[-1].write_text(capsys.readouterr().out)
    into = tmp_path / "references.json"
    into.write_text('{"references": []}')
    assert run_script(monkeypatch, *paths, "--source", "a test", "--into", into) == 0
    told = capsys.readouterr()
    assert "GPU-2 against 1 other(s): 0.9512" in told.err
    (entry,) = json.loads(into.read_text())["references"]
    assert entry == json.loads(told.out)
    assert (entry["boards"], entry["source"], list(entry["loads"])) == (2, "a test", ["copy"])
    assert entry["loads"]["copy"]["power_at_reference_w"] == pytest.approx((390 * 410) ** 0.5)


def test_a_file_that_is_no_calibration_makes_no_reference(tmp_path, capsys, monkeypatch):
    (tmp_path / "x.json").write_text("{}")
    assert run_script(monkeypatch, tmp_path, "--source", "a test") == 2
    assert "x.json: not a calibration" in capsys.readouterr().err
