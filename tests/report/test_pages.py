"""The interactive pages as a browser shows them: the view of a link, values with their errors, data as CSV."""

import csv
import html
import io
import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

import flopray.report
from flopray.report.gpus.comparison import comparisons_of
from flopray.report.gpus.data import MEASURED, tidy
from flopray.report.gpus.html import page_text as gpu_page_text
from flopray.report.surface.data import surface_sets
from flopray.report.surface.html import page_text
from flopray.report.surface.selection import Selection

pytestmark = pytest.mark.extras("html")
BROWSER = next((found for name in ("chromium", "google-chrome", "chrome") if (found := shutil.which(name))), None)
_FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
_FLAGS += " --disable-component-update --disable-sync --virtual-time-budget=4000 --window-size=1280,900"
WIDTHS, TOKENS = (128, 256), (16, 64)


def surface_frame() -> pd.DataFrame:
    """Two counts of layers of a small grid; one energy is less precise than was asked for, one point did not fit."""
    shared = {"device_type": "H100", "device_name": '=H100, "SXM"', "precision": "fp32", "execution": "eager"}
    rows = []
    for n, d, m in itertools.product((2, 8), WIDTHS, TOKENS):
        row = {
            **shared,
            "phase": "forward",
            "n_layers": n,
            "width": d,
            "tokens": m,
            "ended_unix_s": 1.0,
            "status": "ok",
        }
        row |= {"energy_j": n * d * m * 1e-6, "energy_rel_error": 0.012, "target_error": 0.02, "energy_status": "ok"}
        row |= {"energy_source": "nvml_counter", "findings": ()}
        if (n, d, m) == (8, 256, 64):
            row |= {"energy_rel_error": 0.034}
        if (n, d, m) == (8, 256, 16):
            row |= {"energy_j": None, "status": "out_of_memory"}
        rows.append(row)
    return pd.DataFrame(rows)


def gpu_frame() -> pd.DataFrame:
    shared = {"workload": "llama", "model": "llama-3.2-1b", "execution": "eager", "weights": "random", "status": "ok"}
    shared |= {"precision": "bf16", "phase": "forward", "energy_status": "ok", "target_error": 0.02, "batch_size": 8}
    rows = []
    for gpu, length in itertools.product(("A100", "H100"), (256, 512)):
        time_s, energy_j, flops = length * 1e-4, length * 0.03, int(length * 2e10)
        row = {**shared, "device_type": gpu, "device_name": gpu, "sequence_length": length, "model_flops": flops}
        row |= {"time_s": time_s, "time_rel_error": 0.003, "energy_j": energy_j, "energy_rel_error": 0.04}
        row |= {"tokens_per_iteration": 8 * length, "power_w": energy_j / time_s}
        rows.append(row | {"flops_per_s": flops / time_s, "flops_per_j": flops / energy_j})
    return pd.DataFrame(rows)


def pages() -> dict[str, str]:
    surfaces = page_text(list(surface_sets(surface_frame(), Selection(metrics=["energy"]))))
    return {"surfaces": surfaces, "gpus": gpu_page_text(comparisons_of(tidy(gpu_frame(), MEASURED)))}


@pytest.mark.parametrize("name", ["surfaces", "gpus"])
def test_a_page_needs_no_network_and_no_part_is_missing(name):
    page = pages()[name]
    assert not re.search(r"<(script|link|img|iframe)\b[^>]*\b(src|href)\s*=", page)
    assert not re.search(r"/\*(STYLE|PLOTLY|PARTS|DATA|COMMON|SCRIPT)\*/", page)
    assert page.rstrip().endswith("</html>")


def shown(page: str, fragment: str, tmp_path) -> tuple[str, list[str], list[dict[str, str]]]:
    """Title, cells of the table and lines of the CSV of everything, as a browser has them for this link."""
    if BROWSER is None:
        pytest.skip("no Chromium to show the page in")
    probe = """<script>{
      let text; download = (name, csv) => { text = csv; };
      element("actions").lastElementChild.click();
      document.body.append(Object.assign(node("pre", text), { id: "csv" }));
      const choose = (select, value) => { select.value = value; select.dispatchEvent(new Event("change")); };
      const least = controls.mmin?.value;
      if (least) choose(controls.mmin, controls.mmin.options[0].value);  // all of them: cells instead of a line
      const boxes = (within, kind) => [...within.querySelectorAll(kind)].map(each => each.getBoundingClientRect());
      const apart = [...ROOT.querySelectorAll("[data-part=heat]")].every(one =>
        boxes(one, ".annotation text").every(title =>
          boxes(one, ".xtick text").every(tick => tick.bottom <= title.top + 1)));
      document.body.append(Object.assign(node("pre", String(apart)), { id: "apart" }));
      if (least) choose(controls.mmin, least);
    }</script>"""
    before, _, after = page.rpartition("</body>")
    path = tmp_path / "page.html"
    path.write_text(before + probe + "</body>" + after, encoding="utf-8")
    command = [BROWSER, *_FLAGS.split(), f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom"]
    done = subprocess.run([*command, f"{path.as_uri()}#{fragment}"], capture_output=True, timeout=60, check=True)
    dom = done.stdout.decode()
    assert re.findall(r'<pre id="apart">(.*?)</pre>', dom) == ["true"], "titles lie upon ticks"
    title = re.findall(r'<h1 data-part="title">(.*?)</h1>', dom)[-1]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", dom)
    lines = html.unescape(re.findall(r'<pre id="csv">(.*?)</pre>', dom, re.S)[-1])
    return html.unescape(title), list(map(html.unescape, cells)), list(csv.DictReader(io.StringIO(lines)))


@pytest.mark.slow
def test_surfaces_in_a_browser(tmp_path):
    title, cells, lines = shown(pages()["surfaces"], "metric=energy&n=8&mmin=64&scale=linear", tmp_path)
    assert title == "Energy per iteration, forward pass"
    assert cells == ["m = 64", "65.5 ± 1.2 %", "131 ± 3.4 %"]  # n and the least m of the link
    assert len(lines) == 2 * len(WIDTHS) * len(TOKENS)
    by_shape = {(line["n_layers"], line["width"], line["tokens"]): line for line in lines}
    late, hole = by_shape["8", "256", "64"], by_shape["8", "256", "16"]
    assert (float(late["value"]), float(late["rel_error"]), late["above_target"]) == (8 * 256 * 64e-6, 0.034, "yes")
    assert (hole["value"], hole["missing"], late["unit"]) == ("", "out of memory", "J")


@pytest.mark.slow
def test_findings_have_the_words_of_the_images(tmp_path):
    if BROWSER is None:
        pytest.skip("no Chromium to show the page in")
    frame = surface_frame()
    frame.at[0, "findings"] = ("note:phases_interact",)
    path = tmp_path / "page.html"
    path.write_text(page_text(list(surface_sets(frame, Selection(metrics=["energy"])))), encoding="utf-8")
    command = [BROWSER, *_FLAGS.split(), f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", path.as_uri()]
    dom = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout.decode()
    entries = re.findall(r'class="legendtext"[^>]*>(.*?)</text>', dom, re.S)
    assert "audit: phases interact (note)" in map(html.unescape, entries)


@pytest.mark.slow
def test_findings_of_one_severity_have_marks_of_their_own(tmp_path):
    """Plotly draws the mark of each entry of the legend as a path, whose outline tells symbols apart."""
    if BROWSER is None:
        pytest.skip("no Chromium to show the page in")
    frame = surface_frame()
    frame.at[0, "findings"] = ("note:phases_interact",)
    frame.at[1, "findings"] = ("note:sentinel_drift",)
    path = tmp_path / "page.html"
    path.write_text(page_text(list(surface_sets(frame, Selection(metrics=["energy"])))), encoding="utf-8")
    command = [BROWSER, *_FLAGS.split(), f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", path.as_uri()]
    dom = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout.decode()
    marks = {}
    for entry in dom.split('<g class="traces"')[1:]:
        name = re.search(r'class="legendtext"[^>]*>(.*?)</text>', entry, re.S)
        outline = re.search(r'class="legendpoints">.*?<path class="scatterpts"[^>]* d="([^"]+)"', entry, re.S)
        if name and outline and "(note)" in name[1]:
            marks[html.unescape(name[1])] = outline[1]
    assert set(marks) == {"audit: phases interact (note)", "audit: sentinel drift (note)"}
    assert len(set(marks.values())) == 2


@pytest.mark.slow
def test_gpus_in_a_browser(tmp_path):
    title, cells, lines = shown(pages()["gpus"], "phase=forward&shape=8+%C3%97+512&metric=energy", tmp_path)
    assert title == "Energy per iteration, forward"
    told = ("bf16", "8 × 512", "15.4", "± 4.0 %")
    assert [cell for cell in cells if cell] == ["A100", *told, "H100", *told]
    energies = [line for line in lines if line["metric"] == "energy"]
    assert [float(line["value"]) for line in energies] == [7.68, 15.36, 7.68, 15.36]
    assert {line["above_target"] for line in energies} == {"yes"}
    assert {line["above_target"] for line in lines if line["metric"] == "time"} == {"no"}


@pytest.mark.parametrize("script", sorted(Path(flopray.report.__file__).parent.glob("*_page.js")), ids=lambda p: p.name)
def test_a_plot_is_as_high_as_its_place(script):
    """One that states a height of its own covers what stands below it on a narrow page."""
    assert not re.search(r"\bplot\([^;]*\bheight:", script.read_text(encoding="utf-8"))
