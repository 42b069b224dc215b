"""The report of runs: the answer first, shares that add up, what is missing named, nothing of the data as markup."""

import base64
import dataclasses
import gzip
import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flopray.audit.findings import JUDGEABLE
from flopray.cli import report as command
from flopray.records import PhaseRecord
from flopray.report.document import answer, build, energy, html, text
from flopray.report.document.certainty import days_of
from flopray.report.document.content import Bars, Words
from flopray.report.document.data import load
from flopray.report.document.words import DASH
from flopray.report.text_table import TextTable
from flopray.store.run import RunFolder
from tests.report.test_pages import BROWSER

RESULTS = Path(__file__).parents[2] / "docs" / "results"
BOARDS = [RESULTS / "boards" / name for name in ("h100_7b5b", "h100_d3fe", "h200_4bc7")]


@pytest.fixture(scope="module")
def measured():
    return load(BOARDS)


@pytest.fixture(scope="module")
def document(measured):
    return build.document_of(measured, ["flopray sweep mlp --n 2"])


@pytest.fixture(scope="module")
def counts_alone():
    """Of a run that was not timed."""
    return build.document_of(load([RESULTS / "h100_counters_bf16"]))


def section(document, anchor):
    return next(each for each in document.sections if each.anchor == anchor)


@pytest.mark.slow
def test_the_answer_comes_first_with_its_interval_and_temperature(document):
    markdown = text.to_markdown(document)
    first = document.sections[0]
    assert first.anchor == "answer"
    # two boards at 50 °C: the numbers of docs/method.md's boards, as a mean of the type
    assert "On an H100, a whole training step of MLP (n=8 d=2048 m=256) in bf16" in markdown
    assert "1.02 ms ± 0.94 % and 482 mJ ± 3.3 % at 50\u00a0°C (mean of 2 boards)" in markdown
    assert "of the type (H100: 2 boards)" in markdown
    assert (
        "Sizes of mlp: n = number of layers; d = width of each layer; m = tokens, the columns of the input." in markdown
    )
    assert "of the board at 50 °C (H200: one board)" in markdown


@pytest.mark.slow
def test_a_precision_that_intervals_do_not_tell_apart_is_named_and_energies_are_told_apart():
    said = text.to_markdown(
        build.document_of(load([RESULTS / "reference" / "h200-mlp-spread" / run for run in _SPREAD]), [])
    )
    assert "in fp16, the cheapest precision measured (the intervals do not tell it from bf16), takes 12 ms" in said
    assert "a factor of 1,090." in said
    assert re.search(r"in energy at 50 °C and ± \S+ % in energy as measured \(95 %", said)


@pytest.mark.slow
def test_boards_that_did_not_measure_a_step_are_not_said_to_have():
    """Of four H100s with times, two have no whole step; two more have counts alone."""
    runs = [RESULTS / "h100_mlp_fp32", RESULTS / "h100_mlp_bf16", *BOARDS[:2], RESULTS / "h100_counters_bf16"]
    said = text.to_markdown(build.document_of(load(runs), []))
    assert "(mean of 4 boards, of which 2 ran this step)" in said
    assert "(median of 448 rows). They are of 4 boards;" in said
    assert "the audit does not know" not in said


_SPREAD = ("spread_97ae", "spread_a8aa", "spread_a8aa_tf32_fp16")


@pytest.mark.slow
def test_shares_are_of_the_whole_and_the_rest_is_the_difference(measured, document):
    bars = section(document, "shares").blocks[1]
    (lines,) = (rows for title, rows in bars.table.sections if title.startswith("H200 bf16"))
    names = [line[0] for line in lines]
    assert names == ["forward", "backward", "the rest, by difference", "training step"]
    rows = measured.rows
    chosen = rows[(rows.gpu == "H200") & (rows.precision == "bf16") & (rows["shape"] == "n=8 d=2048 m=256")]
    time = chosen.set_index("phase").time_s
    rest = (time["train_step"] - time["forward_backward"]) / time["train_step"]
    assert lines[2][2] == f"{rest:.0%}".replace("%", " %")
    assert 0.75 < rest < 0.8
    words = section(document, "shares").blocks[0].paragraphs
    assert any(
        line.startswith(
            "H200 bf16, n=8 d=2048 m=256: everything but forward and backward (by difference: the step less those "
            "two), the optimizer among it, has 1.1 %"
        )
        for line in words
    )


@pytest.mark.slow
def test_a_share_of_the_peak_names_the_peak_and_its_datasheet(document):
    said = section(document, "answer")
    (first, *_) = [block for block in said.blocks if isinstance(block, Words)]
    assert "4.9 % of the dense bf16 peak (989 TFLOP/s)" in first.paragraphs[0]
    notes = next(block for block in said.blocks if isinstance(block, Bars)).table.notes
    stated = "fp32 67 TFLOP/s and bf16 989 TFLOP/s (H100 SXM: https://www.nvidia.com/en-us/data-center/h100/)"
    assert f"MFU of H100: FLOP/s of the model over the datasheet's dense peak, without sparsity: {stated}" in notes


def test_the_peak_of_a_cpu_is_said_to_be_measured():
    """No datasheet of it is known here."""
    row = {"gpu": "CPU", "device_name": "AMD EPYC", "precision": "fp32", "flops_per_s": 75e9, "mfu": 0.75}
    assert answer._peak(row) == "what fp32 products reach on it (100 GFLOP/s, measured)"
    (said,) = answer._peaks(pd.DataFrame([row]))
    assert said == (
        "MFU of CPU: FLOP/s of the model over the rate of matrix products that was measured on it: fp32 100 GFLOP/s"
    )


def test_what_tells_two_answers_of_one_model_apart_stands_in_them():
    titles = ["gemma, compile", "gemma, graph", "qwen, graph", "NET, eager, norm=batch", "NET, eager, norm=none"]
    comparisons: Any = [SimpleNamespace(title=title) for title in titles]
    told = [answer._telling(one, comparisons) for one in comparisons]
    assert told == [["compile"], ["graph"], [], ["norm=batch"], ["norm=none"]]


def made_run(folder, **manifest):
    """A run of no points with this manifest."""
    kept = dict(RunFolder.open(BOARDS[1]).manifest)
    sweep = kept["sweep"] | manifest.pop("sweep", {})
    return RunFolder.create(folder, "made", kept | {"sweep": sweep} | manifest)


def test_the_command_of_a_search_draws_as_many_points_again(tmp_path):
    """Without its flags, the whole grid would be measured."""
    said = command.command_of(made_run(tmp_path, sweep={"search": "sobol", "samples": 64, "shards": []}))
    assert " --m 64 256 --search sobol --samples 64 --phases forward " in said
    objective = {"search": "optuna", "samples": 9, "objective": ["train_step/time_s"]}
    said = command.command_of(made_run(tmp_path / "o", sweep=objective))
    assert " --search optuna --samples 9 --objective train_step/time_s " in said


def test_the_commands_of_shards_measure_each(tmp_path):
    first, second = command.command_of(made_run(tmp_path, sweep={"shards": ["1/8", "3/8"]})).splitlines()
    assert first.startswith("flopray sweep mlp ")
    assert (first[-12:], second[-12:]) == (" --shard 1/8", " --shard 3/8")
    assert first[:-12] == second[:-12]


def test_the_commands_of_a_merged_run_are_those_of_its_sweeps(tmp_path):
    """Their union would measure points that no sweep had, and in the phases of the first one alone."""
    sweep = dict(RunFolder.open(BOARDS[1]).manifest["sweep"])
    sources = [
        sweep | {"axes": sweep["axes"] | {"width": width}, "settings": sweep["settings"] | {"phases": phases}}
        for width, phases in (([64], ["forward"]), ([128], ["backward"]), ([64], ["forward"]))
    ]
    merged = {"from": [{"name": "part", "sweep": each} for each in sources], "not_resumable": "they differ"}
    first, second = command.command_of(made_run(tmp_path, merged=merged)).splitlines()
    assert " --d 64 " in first
    assert " --phases forward " in first
    assert " --d 128 " in second
    assert " --phases backward " in second
    # sources that are parts of one sweep are measured again by it
    alike = {"from": [{"name": "part", "sweep": sweep}] * 2, "not_resumable": None}
    assert len(command.command_of(made_run(tmp_path / "alike", merged=alike)).splitlines()) == 1
    # where a source has no sweep, the run's own axes are all that is known
    odd = {"from": [{"name": "part", "sweep": None}, *merged["from"]], "not_resumable": "they differ"}
    assert len(command.command_of(made_run(tmp_path / "odd", merged=odd)).splitlines()) == 1


def test_the_command_of_a_workload_from_a_file_names_the_file(tmp_path):
    source = {"path": "/home/me/my nets/conv.py", "class_name": "ConvNet", "sha256": "0", "lines": []}
    said = command.command_of(made_run(tmp_path, workload_source=source))
    assert said.startswith("flopray sweep conv.py:ConvNet --precision ")


def test_where_no_row_has_numbers_the_audit_is_not_said_to_have_judged_any(tmp_path):
    kept = RunFolder.open(BOARDS[1])
    folder = RunFolder.create(tmp_path, "holes", dict(kept.manifest))
    failed = {"run": "holes", "status": "failed", "status_reason": "no", "findings": ()}
    failed |= {name: None for name in JUDGEABLE if name in {f.name for f in dataclasses.fields(PhaseRecord)}}
    rows = [dataclasses.replace(row, **failed) for row in kept.records()]
    with folder.writer() as writer:
        writer.append([[*group] for _, group in itertools.groupby(rows, key=lambda record: record.trial_id)])
    said = section(build.document_of(load([folder.path])), "audit").blocks
    assert "The audit had no row with numbers to judge." in [p for b in said for p in getattr(b, "paragraphs", [])]


def test_the_page_says_how_energy_was_measured(document, measured):
    said = [line for block in section(document, "certainty").blocks for line in getattr(block, "paragraphs", [])]
    (line,) = [line for line in said if line.startswith("How energy was measured")]
    rows = measured.frame[measured.frame["energy_j"].notna()]
    assert line.startswith(f"How energy was measured ({len(rows)} rows): a thread reads NVML's counter of energy")
    assert "one every 100 ms" in line
    ticks = rows["energy_ticks"]
    assert f"{ticks.min():.0f} to {ticks.max():.0f} (median {ticks.median():.0f}) of them a window" in line
    assert "what it takes at rest is not subtracted" in line
    assert energy.method(measured.frame.assign(energy_j=np.nan)) is None
    (of_cpu,) = energy.method(measured.frame.assign(energy_source="rapl")).paragraphs
    assert "the processors' packages and their memory" in of_cpu
    assert "Not in it: the rest of the computer" in of_cpu


@pytest.mark.slow
def test_overheads_are_explained_where_they_stand(counts_alone):
    (bars,) = section(counts_alone, "flops").blocks
    assert bars.table.header[-3:] == ["extra products (ω)", "sums per number (ρ)", "extra activations (κ)"]
    assert [note[0] for note in bars.table.notes[-3:]] == ["ω", "ρ", "κ"]


def test_a_pair_of_boards_has_a_verdict(document):
    blocks = section(document, "certainty").blocks
    (table,) = [block for block in blocks if isinstance(block, TextTable) and block.title.endswith("in pairs")]
    verdicts = {title: rows[0][-1] for title, rows in table.sections}
    assert verdicts["energy at 50 °C"] == "yes, by a factor, and row by row"
    assert any(note.startswith("different by a factor: its 95 % interval") for note in table.notes)


@pytest.mark.extras("html")
def test_the_place_of_a_view_says_which_script_draws_it(document):
    page = html.to_html(document)
    views = page.count('<div class="view" data-view=')
    assert views > 1
    assert page.count("by plotly.js, which is inside of this page. Where scripts are off") == views


def test_predictions_stand_beside_what_was_measured_and_say_that_they_were_fitted_to_it(document):
    held_out, compared, _ = section(document, "predictions").blocks
    (lines,) = (rows for _, rows in compared.table.sections)
    assert [line[1] for line in lines] == ["16"] * 8 + ["8"] * 8
    assert "this does not test the models" in compared.table.notes[-1]
    errors = {line[0]: line for _, rows in held_out.table.sections for line in rows}
    page = (BOARDS[0].parents[1] / "prediction.md").read_text(encoding="utf-8")
    known = next(line for line in page.splitlines() if line.startswith("| H100 fp32 graph mlp | 4 learned |"))
    values = [float(cell) for cell in known.split("|")[3:9]]
    assert values[0] > 1
    assert [float(cell.removesuffix(" %")) for cell in errors["H100 fp32 graph mlp"][2:]] == values


def test_every_missing_number_is_named_with_its_reason(tmp_path):
    kept = RunFolder.open(BOARDS[1])
    folder = RunFolder.create(tmp_path, "holes", dict(kept.manifest))
    lost = {"status": "out_of_memory", "status_reason": "needs 99 GB"}
    rows = kept.records()
    rows[0] = dataclasses.replace(rows[0], **lost)
    with folder.writer() as writer:
        points = itertools.groupby(rows, key=lambda record: record.trial_id)
        writer.append([[dataclasses.replace(row, run="holes") for row in records] for _, records in points])
    said = section(build.document_of(load([folder.path])), "certainty").blocks
    paragraphs = [line for block in said for line in getattr(block, "paragraphs", [])]
    assert "1 row: no numbers, out of memory (needs 99 GB)." in paragraphs


@pytest.mark.slow
def test_a_run_of_counts_alone_says_that_nothing_was_timed(counts_alone):
    markdown = text.to_markdown(counts_alone)
    assert "time and energy were not measured" in markdown
    assert "| H100 bf16 forward | 1280 | 1 (0.996 to 1) | 1.22 (1 to 4.29) |" in markdown


@pytest.fixture(scope="module")
def altered_page(measured):
    """Of rows whose names are markup, and the errors of whose times nobody knows."""
    frame = measured.frame.assign(device_name="<script>alert(1)</script>", node="</script><b>", time_rel_error=np.nan)
    parts = (measured.folders, frame, measured.rows, measured.devices, ())
    return html.to_html(build.document_of(measured.__class__(*parts)))


@pytest.mark.slow
def test_names_from_data_are_text_in_the_page(altered_page):
    page = altered_page
    assert "<script>alert" not in page
    assert "</script><b>" not in page


@pytest.mark.extras("html")
def test_the_page_is_small_and_needs_no_network(document):
    page = html.to_html(document)
    assert len(page.encode()) < 5e6
    assert not re.search(r"<(script|link|img|iframe)\b[^>]*\b(src|href)\s*=", page)
    assert not re.search(r"<!--[A-Z]+-->", page)
    packed = re.search(r'<script type="text/plain" id="v0">(.*?)</script>', page)
    assert packed is not None
    sets = json.loads(gzip.decompress(base64.b64decode(packed[1])))
    assert {each["metric"] for each in sets} >= {"time", "energy", "flops_per_j"}


@pytest.mark.slow
@pytest.mark.extras("html")
def test_a_browser_draws_the_views(document, tmp_path):
    if BROWSER is None:
        pytest.skip("no Chromium to show the page in")
    path = tmp_path / "report.html"
    # a window as high as the page, so that all views are near
    # virtual time runs ahead of the unpacking, which is done by another thread: many timers make it take real time
    timers = "<script>setInterval(() => document.title, 2);</script></body>"
    path.write_text(html.to_html(document).replace("</body>", timers), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --virtual-time-budget=90000 --window-size=1280,9000"
    command = [BROWSER, *flags.split(), f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", path.as_uri()]
    dom = subprocess.run(command, capture_output=True, timeout=120, check=True).stdout.decode()
    assert dom.count('data-part="title"') >= 2
    assert "Time per iteration, forward pass" in dom
    assert "This view cannot be drawn here" not in re.sub(r"<script.*?</script>", "", dom, flags=re.S)


def test_the_command_writes_three_files_and_says_how_to_measure_again(tmp_path, capsys):
    run = shutil.copytree(BOARDS[1], tmp_path / "s0")
    assert command.main([str(run)]) == 0
    assert capsys.readouterr().out.split() == [
        word for name in ("html", "md", "tex") for word in ("report:", str(run / f"report.{name}"))
    ]
    page = (run / "report.html").read_text()
    again = "flopray sweep mlp --precision fp32 bf16 --execution graph --n 2 8 --d 512 2048 --m 64 256"
    assert again in page
    assert "\\toprule" in (run / "report.tex").read_text()


@pytest.mark.parametrize("name", ["page.html", "new/page.md", "page.tex"])
def test_a_file_is_not_taken_for_a_folder(name, tmp_path, capsys):
    assert command.main([str(BOARDS[1]), "--out", str(tmp_path / name)]) == 2
    assert f"{name} looks like a file: name the folder that gets report.html" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_error_that_nobody_knows_stays_on_its_line_and_is_explained(altered_page):
    page = altered_page
    assert html._unbroken("takes 924 µs ± ? (here) and 3 J ± 1.2 % more") == (
        "takes 924&nbsp;µs ±&nbsp;? (here) and 3&nbsp;J ±&nbsp;1.2&nbsp;% more"
    )
    answered = page[page.index('id="answer"') : page.index('id="', page.index('id="answer"') + 20)]
    assert ("± ?: too few repeats to tell" in answered) == ("± ?" in answered.replace("± ?: ", ""))


def test_a_range_is_told_only_where_the_intervals_tell_its_ends_apart():
    from flopray.report.document.answer import _range

    step = pd.DataFrame({"gpu": "H200", "precision": ["bf16", "fp8"], "shape": "8 × 1024"})
    alike = step.assign(flops_per_j=[607e9, 608e9], energy_rel_error=[0.042, 0.016])
    assert _range(alike) == ""
    assert _range(alike.assign(flops_per_j=[433e9, 909e9])).endswith(": a factor of 2.1.")
    assert _range(alike.assign(flops_per_j=[433e9, 909e9], energy_rel_error=np.nan)).endswith(": a factor of 2.1.")


def test_a_table_without_its_columns_of_dashes():
    table = TextTable("t", ["a", "b", "c", "d"], [("", [["x", "-", "1", "–"], ["y", "", "2", "-"]])])
    assert table.filled_columns() == [0, 2]
    kept = table.of_columns(table.filled_columns())
    assert (kept.header, kept.sections) == (["a", "c"], [("", [["x", "1"], ["y", "2"]])])


def test_a_folder_that_is_no_run_is_one_line(tmp_path, capsys):
    assert command.main([str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error:")
    assert str(tmp_path) in line


def test_the_hash_of_a_citation_is_that_of_the_rows(measured):
    from flopray.report.document.provenance import digest

    shuffled = measured.frame.sample(frac=1, random_state=0)
    parts = (measured.folders, shuffled, measured.rows, measured.devices, ())
    assert digest(measured.__class__(*parts)) == digest(measured)
    assert isinstance(measured.frame, pd.DataFrame)


def test_a_row_whose_error_is_not_known_is_not_at_its_target():
    from flopray.report.document.certainty import _met
    from flopray.report.gpus.html import _value
    from flopray.report.surface.selection import METRICS

    nan = float("nan")
    frame = pd.DataFrame(
        {"time_s": [1.0, 1.0, 1.0, nan], "time_rel_error": [0.01, 0.2, nan, nan], "target_error": 0.05}
    )
    assert _met(frame, "time") == "1 of 3"
    assert _met(frame.assign(target_error=nan), "time") == "–"
    row = {"status": "ok", "time_s": 1.0, "target_error": 0.05, "boards": 1}
    for error, above in ((0.01, False), (0.2, True), (nan, True)):
        assert _value({**row, "time_rel_error": error}, METRICS["time"]).get("above", False) is above
    assert "above" not in _value({**row, "time_rel_error": nan, "boards": 3}, METRICS["time"])


def test_a_date_that_no_calendar_has_is_no_day():
    frame = pd.DataFrame({"ended_unix_s": [1e300, -1e300, 1.7e9, None]})
    assert days_of(frame) == "2023-11-14"
    assert days_of(frame.head(2)) == DASH


def test_a_summary_has_predictions_and_ends_with_how_to_measure_and_cite(document):
    markdown = text.to_markdown(document)
    heads = re.findall(r"^### (.+)$", markdown, re.MULTILINE)
    assert "What can be predicted, and how well" in heads
    assert heads[-1] == "To measure it again, and to cite it"
    assert "flopray sweep mlp --n 2" in markdown
    assert "@misc{flopray-measurement," in markdown


def test_the_page_names_no_file_that_comes_with_the_repository_alone(document):
    """Who installed a wheel has no docs/."""
    assert "docs/" not in text.to_markdown(document, short=False)


def test_a_table_can_be_scrolled_by_keys_and_says_that_it_goes_on(document):
    made = html.to_html(document)
    assert '<div class="wide" tabindex="0"><table>' in made
    assert "figure[data-scrolls] figcaption::after" in made
    assert 'toggleAttribute("data-scrolls"' in made
