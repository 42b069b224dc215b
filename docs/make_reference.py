"""Makes the reference data that come with flopray, `flopray/reference/data`, from runs.

python docs/make_reference.py                         make all of it anew
python docs/make_reference.py --published DIR         also audit flopmetrics' published results anew for the card
python docs/make_reference.py --check                 write nothing; exit code 1 when card and runs differ

Each name of `ENTRIES` is made from the runs named there and from those in `docs/results/reference/NAME/`; runs of the
commands in docs/reference.md are put there. Runs are merged as by `flopray merge`: nothing is averaged. Rows that are
older than the energy at the reference temperature get it from the prior of their type
(`flopray.energy.reference.told_later`), and the card says how many rows these are.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from flopray.audit import audit
from flopray.cli.audit import by_phase
from flopray.cli.report import command_of
from flopray.energy.reference import told_later
from flopray.point import PRECISIONS, point_of
from flopray.records import PhaseRecord
from flopray.reference.catalog import CARD, DATA, LARGEST_BYTES
from flopray.report.published import load_published
from flopray.store.location import open_run
from flopray.store.run import RunFolder
from flopray.sweep.definition import Sweep
from flopray.sweep.merge import united

RESULTS = Path(__file__).parent / "results"
REFERENCE_C = 50.0
OWN, LATER = (
    "worked out in the sweep that measured them",
    "worked out afterwards, from the temperature at the end of the window and what is known of the type",
)
_PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


class Wanted(NamedTuple):
    """What one entry of the reference data is made from.

    Attributes:
        what: what was measured, in a sentence.
        device_type: the type of device whose rows are taken.
        runs: folders below docs/results.
        missing: what it lacks that its rows do not show, a sentence each.
    """

    what: str
    device_type: str
    runs: tuple[str, ...]
    missing: tuple[str, ...] = ()


ENTRIES = {
    "h100-counters": Wanted(
        "FLOPs of the MLP by hardware counters: 1,280 shapes, forward and backward",
        "H100",
        ("h100_counters_fp32", "h100_counters_bf16"),
    ),
    "h200-counters": Wanted(
        "FLOPs of the MLP by hardware counters: 1,280 shapes, forward and backward", "H200", ("h200_counters_bf16",)
    ),
    "h100-mlp": Wanted(
        "time and energy of the MLP on a grid of n, d and m",
        "H100",
        ("h100_mlp_fp32", "h100_mlp_bf16", "boards/h100_7b5b", "boards/h100_d3fe"),
    ),
    "h200-mlp": Wanted(
        "time and energy of the MLP on a small grid of n, d and m",
        "H200",
        ("boards/h200_4bc7", "boards/h200_7757", "boards/h200_0f8e"),
    ),
    "h100-mlp-spread": Wanted("time and energy of the MLP at 64 shapes that fill the space", "H100", ()),
    "h200-mlp-spread": Wanted("time and energy of the MLP at 64 shapes that fill the space", "H200", ()),
    "h100-mlp-odd": Wanted("time and energy of the MLP at 64 shapes that are no powers of two", "H100", ()),
    "h200-mlp-odd": Wanted("time and energy of the MLP at 64 shapes that are no powers of two", "H200", ()),
    "h100-mlp-slice": Wanted("time and energy of the MLP on a dense grid of d and m", "H100", ()),
    "h200-mlp-slice": Wanted("time and energy of the MLP on a dense grid of d and m", "H200", ()),
    "h100-llama": Wanted(
        "Llama 3.2 1B with random weights: training, prefill and decode", "H100", ("h100_llama", "llama_again")
    ),
    "h200-llama": Wanted(
        "Llama 3.2 1B with random weights: training, prefill and decode", "H200", ("h200_llama", "llama_again")
    ),
    "h100-lm": Wanted("language models with random weights: training, prefill and decode", "H100", ()),
    "h200-lm": Wanted("language models with random weights: training, prefill and decode", "H200", ("h200_causal_lm",)),
}
#: Limits of all reference data.
LIMITS = [
    "Single boards of machines rented by the hour; how they were used before, and how they are cooled, is not known.",
    "SXM boards with a power limit of 700 W. A PCIe or NVL board of the same name is another device.",
    "Energy is that of the board by NVML's counter, without the host's processor and memory, fans and power supply.",
    "One board at a time: what communication between boards, and waiting for other boards, costs is not included.",
    "Intervals are 95 % intervals of the window; boards of one type differ by 1.5 to 6 % more (docs/method.md).",
    "Weights and inputs are random numbers. Power depends on how many bits change: zeros, for example, take less.",
]


def sources_of(name: str) -> list[RunFolder]:
    """The runs that an entry is made from, in the order in which they began."""
    added = sorted(path.parent for path in (RESULTS / "reference" / name).glob("*/manifest.json"))
    folders = [open_run(path) for path in (*(RESULTS / run for run in ENTRIES[name].runs), *added)]
    return sorted(folders, key=lambda folder: folder.manifest["created_unix_s"])


def make(name: str, sources: Sequence[RunFolder], target: Path) -> tuple[RunFolder, Counter[str]]:
    """Write a run with all rows of the sources that are of the entry's device type, with energy at the reference.

    Returns:
        The run, and how many rows have that energy from which source, or lack it for which reason.
    """
    device_type = ENTRIES[name].device_type
    sweep, _ = united([Sweep.from_manifest(source.manifest) for source in sources])
    sweep = dataclasses.replace(sweep, axes={**sweep.axes, "device_type": (device_type,)})
    manifest = sweep.to_manifest(name, {})
    manifest["created_unix_s"] = sources[-1].manifest["created_unix_s"]
    told: Counter[str] = Counter()
    points = list(points_of(sources, device_type, told))
    manifest["reference"] = {"from": [source.manifest["name"] for source in sources], "told_later": told[LATER]}
    run = RunFolder.create(target, name, manifest)
    with run.writer() as writer:
        writer.append(points)
    run.compact()
    run.journal_path.unlink()
    for path in run.path.iterdir():
        if path not in (run.manifest_path, run.records_path):
            path.unlink()
    return run, told


def points_of(sources: Sequence[RunFolder], device_type: str, told: Counter[str]) -> Iterator[list[PhaseRecord]]:
    """The points of all sources; one that was measured again gets -2, -3 and so on after its id, in order of time."""
    seen: Counter[str] = Counter()
    points = [records for source in sources for records in source.points() if records[0].device_type == device_type]
    points.sort(key=lambda records: min(r.started_unix_s or 0 for r in records))
    for records in points:
        point = point_of(records[0].trial_id)
        seen[point] += 1
        trial_id = point if seen[point] == 1 else f"{point}-{seen[point]}"
        later = told_later([{f.name: getattr(r, f.name) for f in dataclasses.fields(r)} for r in records], REFERENCE_C)
        with_energy = [dataclasses.replace(r, trial_id=trial_id, **new) for r, new in zip(records, later, strict=True)]
        told.update(_told_by(old, new) for old, new in zip(records, with_energy, strict=True) if new.energy_j)
        yield with_energy


def _told_by(old: PhaseRecord, new: PhaseRecord) -> str:
    if new.energy_at_reference_j is None:
        reason = str(new.energy_at_reference_reason)
        return (
            "none: at the power limit" if reason.startswith("the board took") else "none: " + reason.partition(" (")[0]
        )
    return LATER if old.energy_at_reference_j is None else OWN


def described(name: str, run: RunFolder, told: Mapping[str, int], sources: Sequence[RunFolder]) -> dict[str, Any]:
    """What the card says about a run."""
    frame: Any = run.load()  # the stubs of pandas do not know whether a column is a Series or a DataFrame
    phases = [phase for phase in run.workload.phases if phase in set(frame["phase"])]
    columns = {name: int(frame[name].notna().sum()) for name in _COUNTED}
    precisions = sorted(set(frame["precision"]), key=PRECISIONS.index)
    return {
        "name": name,
        "what": ENTRIES[name].what,
        "workload": run.workload.name,
        "device_name": frame["device_name"].iloc[0],
        "rows": len(frame),
        "points": len({point_of(trial_id) for trial_id in frame["trial_id"]}),
        "precisions": precisions,
        "phases": phases,
        "boards": boards_of(frame),
        "columns": columns,
        "reference_energy": dict(sorted(told.items())),
        "sources": [source_of(source) for source in sources],
        "missing": missing_of(run, columns, precisions, phases, frame["device_uuid"].nunique()),
        "bytes": sum(path.stat().st_size for path in run.path.iterdir()),
    }


_COUNTED = ("time_s", "energy_j", "energy_at_reference_j", "executed_flops")


def boards_of(frame: Any) -> list[dict[str, Any]]:
    """Each board with its rows, drivers and days."""
    return [
        {
            "uuid": str(uuid),
            "rows": len(rows),
            "drivers": sorted(set(rows["driver_version"])),
            "first": _day(rows["started_unix_s"].min()),
            "last": _day(rows["ended_unix_s"].max()),
        }
        for uuid, rows in frame.groupby("device_uuid")
    ]


def missing_of(
    run: RunFolder, columns: Mapping[str, int], precisions: Sequence[str], phases: Sequence[str], boards: int
) -> list[str]:
    """What a run lacks, a phrase each."""
    found = []
    if absent := [p for p in _PRECISIONS if p not in precisions]:
        found.append(f"precisions {', '.join(absent)}")
    if absent := [p for p in run.workload.phases if p not in phases]:
        found.append(f"phases {', '.join(absent)}")
    if not columns["time_s"]:
        found.append("times and energies")
    if not columns["executed_flops"]:
        found.append("hardware counters")
    if boards == 1:
        found.append("a second board: how far boards differ is not in it")
    elif columns["time_s"] and not _shared(run):
        found.append("how far boards differ: each has points or phases of its own")
    return [*found, *ENTRIES[run.name].missing]


def _shared(run: RunFolder) -> bool:
    """Whether some phase of a point was measured on two boards."""
    frame = run.load()
    points = frame["trial_id"].map(point_of)
    return bool((frame.groupby([points, "phase"])["device_uuid"].nunique() > 1).any())


def source_of(source: RunFolder) -> dict[str, Any]:
    """Where the rows come from; for a merged run, its own sources."""
    manifest = source.manifest
    parts = manifest["merged"]["from"] if "merged" in manifest else [manifest]
    return {
        "run": manifest["name"],
        "day": _day(manifest["created_unix_s"]),
        "versions": manifest["versions"] or parts[0]["versions"],
        "command": command_of(source),
    }


def published_card(folder: Path) -> dict[str, Any]:
    """What the audit says about flopmetrics' published results, which do not come with flopray."""
    frame = load_published(folder).reset_index(drop=True)
    findings = audit(frame)
    names = ("rows", "above_peak_rate", "above_peak_rate_or_efficiency", "marked")
    verdicts = {phase: dict(zip(names, counts, strict=True)) for phase, counts in by_phase(frame, findings)}
    worst = max((f for f in findings if f.rule == "rate_above_limit"), key=lambda finding: finding.excess)
    return {
        "source": "https://github.com/jmetrikat/flopmetrics, architecture/results_optimized",
        "verdicts": verdicts,
        "worst": worst.sentence,
    }


def build(target: Path, published: Mapping[str, Any]) -> dict[str, Any]:
    """Make all runs in a folder; returns the card."""
    entries = []
    for name in sorted(ENTRIES):
        sources = sources_of(name)
        if sources:
            run, told = make(name, sources, target)
            entries.append(described(name, run, told, sources))
            print(f"{name}: {entries[-1]['rows']} rows, {entries[-1]['bytes'] / 1e3:.0f} kB", file=sys.stderr)
    total = sum(entry["bytes"] for entry in entries)
    if total > LARGEST_BYTES:
        raise SystemExit(f"error: the data have {total} bytes; the limit for the wheel is {LARGEST_BYTES}")
    return {"limits": LIMITS, "published": dict(published), "entries": entries}


def _day(unix_s: float) -> str:
    return datetime.fromtimestamp(float(unix_s), UTC).date().isoformat()


def main() -> int:
    """Make or check the data; returns the exit code."""
    parser = argparse.ArgumentParser(description="Make the reference data of flopray from runs.")
    parser.add_argument("--published", type=Path, metavar="DIR", help="flopmetrics' folder of published results")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when card and runs differ")
    options = parser.parse_args()
    old = json.loads(CARD.read_text()) if CARD.exists() else {}
    published = published_card(options.published) if options.published else old.get("published", {})
    with tempfile.TemporaryDirectory() as folder:
        card = build(Path(folder), published)
        if options.check:
            same = card == old
            print("card and runs agree" if same else "card and runs differ", file=sys.stderr)
            return int(not same)
        shutil.rmtree(DATA, ignore_errors=True)
        shutil.copytree(folder, DATA)
    CARD.write_text(json.dumps(card, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
