"""Writes the tables of docs/results/README.md from its runs, and compares its text and that of README.md with them.

python docs/make_results.py              write all tables into the page, and name sentences with other numbers
python docs/make_results.py llama        print one table
python docs/make_results.py --check      write nothing; exit code 1 when a table or a sentence is not what the runs say
python docs/make_results.py --figures    draw the figures again (`--published DIR` for those of Llama)
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image  # comes with matplotlib

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import results_tables as made

PAGE = made.RESULTS / "README.md"
README = made.RESULTS.parents[1] / "README.md"
_BLOCK = re.compile(r"(<!-- table (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_R = "docs/results"

#: Commands that draw figures, and the names of their files on the page. OUT is a separate folder for each command.
FIGURES: list[tuple[str, dict[str, str]]] = [
    (
        f"analysis/surfaces.py {_R}/h100_mlp_fp32 --formats png --no-html --out OUT",
        {
            f"surfaces/H100_fp32_graph/{phase}/{metric}.png": f"h100_mlp_fp32_{name}.png"
            for phase, metric, name in (
                ("forward", "energy_log", "energy_forward"),
                ("backward", "energy_log", "energy_backward"),
                ("backward", "flops_per_j_linear", "flops_per_j"),
                ("forward", "time_log", "time_forward"),
            )
        },
    ),
    *(
        (
            f"analysis/compare_flops.py {_R}/h100_counters_{precision}{published} --out OUT",
            {f"flops/H100_{precision}_graph/{name}.png": f"h100_counters_{precision}_{name}.png" for name in names},
        )
        for precision, published, names in (
            (
                "fp32",
                " --published PUBLISHED/metrics/20250922-120007_n2-32_d128-2048_m16-256.csv",
                (
                    *("classes_forward", "excess_forward", "held_out_forward"),
                    *("overheads_backward_log", "overheads_forward_log"),
                ),
            ),
            ("bf16", "", ("excess_forward", "overheads_backward_log", "overheads_forward_log")),
        )
    ),
    (
        f"analysis/compare_gpus.py {_R}/h100_llama {_R}/h200_llama "
        "--published PUBLISHED/architecture/results_optimized --out OUT --tables OUT",
        {
            f"gpus/llama-3.2-1b_eager/{name}.png": f"llama_{name}.png"
            for name in ("flops_per_j_training", "forward_backward", "pareto")
        },
    ),
    (
        f"analysis/compare_gpus.py {_R}/h200_causal_lm --out OUT --tables OUT",
        {"gpus/models/8x1024-compile-graph.png": "causal_lm_models.png"},
    ),
    (
        f"bench/energy_ticks.py {_R}/h100_energy_ticks.json --out OUT",
        {"energy_ticks.png": "energy_ticks.png"},
    ),
    (
        "bench/energy_windows.py --out OUT --plot "
        + " ".join(f"{_R}/energy_windows/{name}.json" for name in made.WINDOWS),
        {"energy_windows.png": "energy_windows.png"},
    ),
]


def differences(text: str) -> list[str]:
    """What is wrong with the text of a page, a sentence each."""
    found = [
        f"table {name} is not what the runs give: python docs/make_results.py"
        for _, name, body, _ in _BLOCK.findall(text)
        if body != _body(name)
    ]
    absent = set(made.TABLES) - {match[1] for match in _BLOCK.findall(text)}
    found += [f"table {name} is missing" for name in sorted(absent)]
    found += [f"no command makes the table that begins {line!r:.80}" for line in _tables_of_hand(text)]
    drawn = {name for _, files in FIGURES for name in files.values()}
    shown = set(re.findall(r"!\[[^]]*\]\(([^)]+)\)", text))
    found += [f"no command of make_results.py draws {name}" for name in sorted(shown - drawn)]
    found += [f"{name} is drawn and not shown" for name in sorted(drawn - shown)]
    told = " ".join(text.split())
    for command, files in FIGURES:
        start = f"python {command.partition(' --')[0]}"  # its flags differ: they name the folders of files and figures
        if start not in told:
            found.append(f"the page does not say `{start}`, which draws {', '.join(files.values())}")
    found += [f"{name} does not exist" for name in sorted(shown) if not (made.RESULTS / name).exists()]
    return found + unsaid(text, made.statements())


def _tables_of_hand(text: str) -> list[str]:
    """The first lines of tables that stand outside of the blocks that this script writes."""
    return re.findall(r"^(\|.*)\n\|[-:| ]+\|$", _BLOCK.sub("", text), re.MULTILINE)


def unsaid(text: str, statements: list[str]) -> list[str]:
    """Statements that are missing from a text, a sentence each."""
    plain = " ".join(text.split())
    return [f"the runs say, and the page does not: {said}" for said in statements if said not in plain]


def written(text: str) -> str:
    """The text with every table made anew."""
    return _BLOCK.sub(lambda match: match[1] + _body(match[2]) + match[4], text)


def _body(name: str) -> str:
    if name not in made.TABLES:
        raise SystemExit(f"error: the page has an unknown table {name!r}; known tables: {', '.join(made.TABLES)}")
    return f"`python docs/make_results.py {name}`\n\n{made.TABLES[name]()}\n\n"


def draw(published: Path | None) -> None:
    """Run the commands of `FIGURES` and put what they draw, in fewer colours, into docs/results."""
    for command, files in FIGURES:
        if "PUBLISHED" in command and published is None:
            print(f"not drawn, since --published DIR is missing: {', '.join(files.values())}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            words = command.replace("PUBLISHED", str(published)).replace("OUT", folder).split()
            print("python", command, flush=True)
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, cwd=PAGE.parents[2])
            for source, target in files.items():
                reduce_colours(Path(folder) / source, made.RESULTS / target)


def reduce_colours(source: Path, target: Path) -> None:
    """Write a PNG with a palette of at most 256 colours: it is much smaller and looks the same."""
    with Image.open(source) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True, dpi=image.info["dpi"])


def main() -> int:
    """Write, print, check or draw; returns the exit code."""
    parser = argparse.ArgumentParser(description="Tables and figures of docs/results/README.md, from its runs.")
    parser.add_argument("table", nargs="?", choices=made.TABLES, help="print only this table")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when page and runs differ")
    parser.add_argument("--figures", action="store_true", help="draw the figures again")
    parser.add_argument("--published", type=Path, metavar="DIR", help="flopmetrics' folder of published results")
    options = parser.parse_args()
    if options.table:
        print(made.TABLES[options.table]())
        return 0
    if options.figures:
        draw(options.published.resolve() if options.published else None)
        return 0
    if not options.check:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    found = differences(PAGE.read_text(encoding="utf-8"))
    found += unsaid(README.read_text(encoding="utf-8"), made.readme_statements())
    print("\n".join(found), end="\n" if found else "", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
