"""The runs that come with flopray: the card describes them, and every command that takes a run takes them."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import flopray
from flopray.cli import main as commands
from flopray.cli.flags import parse
from flopray.cli.report import command_of
from flopray.cli.request import sweep_from
from flopray.errors import InputError, RunError
from flopray.records import PREPARED_AGAIN_REL
from flopray.reference import catalog
from flopray.report.boards.comparable import prepared_again
from flopray.report.document.certainty import in_short
from flopray.report.document.data import load
from flopray.report.gpus import figures
from flopray.report.published import load_published
from flopray.store.location import open_run, results_folder
from flopray.workloads.registry import loadable

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT.parent / "shared" / "published" / "architecture" / "results_optimized"


@pytest.mark.parametrize("entry", catalog.entries(), ids=lambda entry: entry.name)
def test_the_card_says_what_is_in_the_run(entry):
    frame = flopray.load_run(entry.address)
    assert len(frame) == entry.rows
    assert set(frame["device_name"]) == {entry.device_name}
    assert set(frame["device_uuid"]) == {board.uuid for board in entry.boards}
    assert frame.groupby("device_uuid").size().to_dict() == {board.uuid: board.rows for board in entry.boards}
    assert set(frame["driver_version"]) == set(entry.drivers)
    assert {name: int(frame[name].notna().sum()) for name in entry.columns} == dict(entry.columns)
    assert sum(entry.reference_energy.values()) == entry.columns["energy_j"]
    assert set(frame["phase"]) == set(entry.phases)
    ok = frame["status"] == "ok"
    assert (frame[~ok]["status"] == "unsupported").all()
    assert frame[~ok]["status_reason"].notna().all()
    assert frame[~ok]["time_s"].isna().all()
    assert ok.mean() > 0.95
    assert all(source["command"].startswith(f"flopray sweep {entry.workload} --precision ") for source in entry.sources)


@pytest.mark.parametrize(
    "run",
    [
        "h200-mlp-spread/spread_97ae",
        "h200-mlp-slice/slice_528a",
        "h200-mlp-slice/slice_0fc4",
        "h200-mlp-spread/spread_9f6b_tf32",
        "h200-mlp-odd/oddh_c8c9",
        pytest.param("h200-lm/lm_97ae", marks=pytest.mark.slow),
    ],
)
def test_the_command_of_a_run_measures_its_points(run):
    """That of a search draws the same shapes again, and not the whole grid."""
    folder = open_run(ROOT / "docs" / "results" / "reference" / run)
    program, sweep, workload, *words = shlex.split(command_of(folder))
    assert (program, sweep) == ("flopray", "sweep")
    workload = loadable(workload)
    request = parse(workload, words)
    points = sweep_from(workload, request, folder.manifest["sweep"]["axes"]["device_type"], cores=1).points()
    assert {point.id for point in points} == set(folder.load()["trial_id"])


def test_rows_are_those_that_were_measured():
    """Measured values are the same as in the source run; only values that were computed later are new."""
    ours = flopray.load_run("reference:h100-mlp")
    run = flopray.load_run(ROOT / "docs" / "results" / "h100_mlp_fp32")
    rows = ours[ours["run"] == run["run"].iloc[0]]
    keys = ["n_layers", "width", "tokens", "phase"]
    both = run.merge(rows, on=keys, suffixes=("", "_ours"))
    assert len(both) == len(run) == 200
    for name in ("time_s", "time_rel_error", "energy_j", "energy_rel_error", "started_unix_s", "device_uuid"):
        assert (both[name] == both[f"{name}_ours"]).all(), name
    assert both["energy_at_reference_j"].isna().all()
    # the rule of flopray.energy.thermal takes warm boards down to 50 °C and cool ones up
    warmer = both["temperature_end_c"] > 50
    assert (both["energy_at_reference_j_ours"] < both["energy_j"])[warmer].all()
    assert (both["energy_at_reference_j_ours"] >= both["energy_j"])[~warmer].all()


def test_all_of_it_is_small():
    files = [path for path in catalog.DATA.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"card.json", "manifest.json", "records.parquet"}
    assert sum(path.stat().st_size for path in files) < catalog.LARGEST_BYTES


def test_it_is_in_the_wheel(tmp_path):
    """Built without the network, with the installed setuptools."""
    pytest.importorskip("setuptools")
    source = tmp_path / "source"
    shutil.copytree(ROOT / "flopray", source / "flopray", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = source.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in catalog.DATA.rglob("*.*"):
        assert f"flopray/reference/data/{path.relative_to(catalog.DATA)}" in names


@pytest.mark.parametrize("name", ["", "h100", "H100_MLP", "../data/h100-mlp", "h100-mlp/", "nothing"])
def test_an_unknown_name_is_one_line_with_the_known_ones(name, capsys):
    with pytest.raises(InputError, match=re.escape(f"there is no reference data {name!r}")) as error:
        flopray.load_run(f"reference:{name}")
    assert error.value.exit_code == 2
    assert all(entry.name in str(error.value) for entry in catalog.entries())
    for words in (["surfaces"], ["audit"], ["compare-flops"], ["compare-gpus"], ["status"], ["resume"]):
        assert commands.main([*words, f"reference:{name}"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_it_is_only_read(tmp_path):
    run = open_run("reference:h100-mlp")
    with pytest.raises(RunError, match="comes with flopray and can only be read"), run.writer():
        pass
    with pytest.raises(RunError, match="flopray merge reference:h100-mlp RUN"):
        flopray.resume("reference:h100-mlp")
    assert results_folder("reference:h100-mlp") == Path("results/reference-h100-mlp")
    assert results_folder(tmp_path) == tmp_path


@pytest.mark.slow
def test_figures_of_it_go_to_the_user(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # Images, and panels of comparisons, which tests of reports look at, take ten times as long as all else here.
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: Path(path).touch())
    words = ["--metrics", "energy", "--phases", "forward", "--formats", "png", "--no-html"]
    assert commands.main(["surfaces", "reference:h200-mlp", *words]) == 0
    drawn = tmp_path / "results/reference-h200-mlp/plots/surfaces/H200_bf16_graph/forward/energy_log.png"
    assert drawn.exists()
    monkeypatch.setattr(figures, "draw_dots", lambda *_: Figure())
    assert commands.main(["compare-gpus", "reference:h100-llama", "reference:h200-llama", "--no-html"]) == 0
    assert (tmp_path / "results/reference-h100-llama/tables").is_dir()
    assert not [path for path in catalog.DATA.rglob("*") if path.name in ("plots", "tables")]
    assert commands.main(["status", "reference:h100-mlp"]) == 0
    assert "state    finished" in capsys.readouterr().out


def test_it_merges_with_a_run_of_ones_own(tmp_path):
    mine = ROOT / "docs" / "results" / "boards" / "h100_d3fe"
    assert commands.main(["merge", "reference:h200-mlp", str(mine), "--into", str(tmp_path / "both")]) == 0
    assert set(flopray.load_run(tmp_path / "both")["device_type"]) == {"H100", "H200"}


def test_no_run_of_ones_own_has_such_a_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sources = ["reference:h100-mlp", "reference:h200-mlp"]
    assert commands.main(["merge", *sources, "--into", "reference:x"]) == 2
    assert "would mean data that come with flopray: choose one without reference:" in capsys.readouterr().err
    assert commands.main(["sweep", "mlp", "--name", "reference:x", "--dry-run"]) == 2
    assert not list(tmp_path.iterdir())
    assert commands.main(["merge", *sources, "--into", "runs:x:"]) == 0
    assert f"{tmp_path}/runs:x:: 184 points" in capsys.readouterr().out


def test_the_list_names_what_is_missing_and_what_was_published(capsys):
    assert commands.main(["reference"]) == 0
    out = capsys.readouterr().out
    for entry in catalog.entries():
        assert f"{entry.name}: {'; '.join(entry.missing)}" in out
    assert "forward: 36 of 45 rows state more FLOP/s than the GPU's peak; 43 state that, or more FLOP/J" in out
    assert commands.main(["reference", "h200-mlp"]) == 0
    out = capsys.readouterr().out
    assert "GPU-4bc7aed4-bfde-4c45-57ad-8cd1d9a8d31b: 64 rows, driver 580.159.04, 2026-11-28" in out
    assert all(limit in out for limit in catalog.card()["limits"])
    assert commands.main(["reference", "h200-mlp", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entries"][0]["rows"] == 192


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="flopmetrics' published results are not in ../shared/published")
def test_verdicts_on_what_was_published_are_those_of_the_audit():
    sys.path.insert(0, str(ROOT / "docs"))
    import make_reference

    assert make_reference.published_card(PUBLISHED) == catalog.card()["published"]
    assert len(load_published(PUBLISHED)) == 90


def test_an_older_row_does_not_claim_that_a_step_prepared_again_takes_the_same_time():
    """Windows of these rows tell time to 0.01 % at best, and a step that is prepared again differs by 0.3 %."""
    rows = flopray.load_run("reference:h200-mlp")
    assert rows["time_rel_error"].min() < 0.001
    widened, count = prepared_again(rows)
    assert count == len(rows)
    assert widened["time_rel_error"].min() >= PREPARED_AGAIN_REL == 0.003
    again, none = prepared_again(widened)
    assert none == 0
    assert again["time_rel_error"].equals(widened["time_rel_error"])
    of_a_cpu, none = prepared_again(rows.assign(device_type="CPU"))
    assert none == 0
    assert of_a_cpu["time_rel_error"].min() < 0.001
    (said,) = in_short(load(["reference:h200-mlp"]))
    assert said.startswith("How sure: one window on H200 tells time to 0.31 % and energy to ")


def test_a_union_with_data_that_come_with_flopray_says_which_part_cannot_go_on(tmp_path, capsys):
    into = tmp_path / "both"
    words = ["merge", "reference:h100-mlp", "reference:h200-mlp", "--into", str(into)]
    assert commands.main(words) == 0
    reason = "reference:h100-mlp comes with flopray and can only be read"
    assert capsys.readouterr().out.splitlines()[-1] == f"the new run cannot be resumed: {reason}"
    assert commands.main(["resume", str(into)]) == 2
    assert f"{reason}; resume the sources that can be resumed, or measure" in " ".join(capsys.readouterr().err.split())
