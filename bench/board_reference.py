"""Makes the reference of a type of GPU from calibrations of its boards.

    python -m flopray calibrate --json > board_a.json                 # on each board, while nothing else runs on it
    python bench/board_reference.py board_*.json --source "2 boards of one cloud, 2026-12-01"
    python bench/board_reference.py board_*.json --source "..." --into flopray/energy/board_references.json

Files are the output of `flopray calibrate --json`, or the calibrations that it keeps (a folder is searched for
`*.json`). Several calibrations of one board count as their mean. Each board is also compared with a reference made from
the others, which shows how good the factor of a new board is. `--into` replaces the older reference of the same type;
its boards stay in the reference only if they are among the files.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from flopray.energy.board_factor import factor_of
from flopray.energy.calibration import Calibration
from flopray.energy.type_reference import TypeReference, reference_from
from flopray.errors import InputError
from flopray.store import atomic


def read(paths: list[Path]) -> list[Calibration]:
    """The calibrations of files and folders.

    Raises:
        InputError: a file has no calibration, or cannot be read.
    """
    files = [file for path in paths for file in (sorted(path.rglob("*.json")) if path.is_dir() else [path])]
    found = []
    for file in files:
        try:
            found.append(Calibration.from_dict(json.loads(file.read_text())))
        except (OSError, ValueError, InputError) as error:
            raise InputError(f"{file}: {error}") from error
    return found


def left_out(calibrations: list[Calibration]) -> list[str]:
    """A line for each board: its factor relative to a reference made from the others."""
    lines = []
    for uuid in dict.fromkeys(calibration.device_uuid for calibration in calibrations):
        others = [calibration for calibration in calibrations if calibration.device_uuid != uuid]
        if not others:
            return ["one board: nothing to compare it with"]
        reference = reference_from(others, "the other boards")
        for own in (calibration for calibration in calibrations if calibration.device_uuid == uuid):
            found = factor_of(own, reference)
            value = found.reason if found.factor is None else f"{found.factor:.4f} ± {found.rel_error:.1%}"
            loads = ", ".join(f"{name} {ratio:.4f} ± {error:.1%}" for name, (ratio, error) in found.loads.items())
            lines.append(f"{uuid} against {reference.boards} other(s): {value} ({loads})")
    return lines


def put(reference: TypeReference, path: Path) -> None:
    """Write a reference into a file of references."""
    kept = json.loads(path.read_text())["references"] if path.exists() else []
    kept = [entry for entry in kept if entry["device_name"] != reference.device_name] + [reference.to_dict()]
    content = {"references": sorted(kept, key=lambda entry: entry["device_name"])}
    with atomic.replacing(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def main() -> int:
    """Read, compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("calibrations", nargs="+", type=Path)
    parser.add_argument("--source", required=True, help="when and where the boards were measured, in one line")
    parser.add_argument("--into", type=Path, help="file of references that gets the new one")
    args = parser.parse_args()
    try:
        calibrations = read(args.calibrations)
        reference = reference_from(calibrations, args.source)
        for line in left_out(calibrations):
            print(line, file=sys.stderr)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(reference.to_dict(), indent=2))
    if args.into:
        put(reference, args.into)
    return 0


if __name__ == "__main__":
    sys.exit(main())
