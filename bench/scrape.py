"""Do the metrics that a node exports agree with the records? Runs a small sweep and scrapes its node meanwhile.

Starts a separate Ray on this machine, with the agent that exports metrics (it needs the packages of `ray[default]`),
sweeps a few points on it, scrapes the node's export port every second and afterwards compares the last values of each
gauge with the records of the run. Exits with 1 if they disagree by more than 5 %, with 2 if nothing could be scraped.

    python bench/scrape.py                    # on a GPU: power, temperature, clock, rates; on a CPU what exists
    python bench/scrape.py --flags "--n 8 --d 1024 2048 --m 128 --precision bf16 --max-seconds 2"
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import ray

from flopray import load_run
from flopray.sweep.metrics import GAUGES

ROOT = Path(__file__).parents[1]
FLAGS = "--n 4 --d 512 1024 --m 128 256 --phases forward backward --max-seconds 2 --no-plots --sentinel-every 0"
TOLERANCE = 0.05
#: Ray's processes export every ten seconds by default, which is too long for a bench.
REPORT_MS = 1000
_SAMPLE = re.compile(r"ray_(flopray_\w+)\{([^}]*)\} (\S+)")
_TAG = re.compile(r'(\w+)="([^"]*)"')
Samples = dict[tuple[str, ...], float]


def parse(text: str) -> tuple[Samples, Samples]:
    """Gauges and energy counters of a scrape by metric, GPU, phase and precision."""
    gauges: Samples = {}
    totals: Samples = {}
    for name, tags_text, value in _SAMPLE.findall(text):
        tags = dict(_TAG.findall(tags_text))
        key = (name, tags.get("gpu", ""), tags.get("phase", ""), tags.get("precision", ""))
        if name.endswith("_joules_total"):
            totals[key] = totals.get(key, 0.0) + float(value)
        else:
            gauges[key] = float(value)
    return gauges, totals


def compare(frame: Any, gauges: Samples, totals: Samples) -> list[tuple[str, str, float, float | None]]:
    """Metric, phase, the record's value, and the scraped value (None if there was none)."""
    rows: list[tuple[str, str, float, float | None]] = []
    frame = frame.sort_values("ended_unix_s").assign(gpu=frame["device_uuid"].fillna(""))
    for (gpu, phase, precision), group in frame.groupby(["gpu", "phase", "precision"]):
        last = group.iloc[-1]
        for name, column, _ in GAUGES:
            if last[column] == last[column]:
                rows.append(
                    (name, f"{phase} {precision}", float(last[column]), gauges.get((name, gpu, phase, precision)))
                )
        energy = (group["power_w"] * group["window_s"]).dropna()
        if len(energy):
            name = "flopray_device_energy_joules_total"
            rows.append((name, f"{phase} {precision}", float(energy.sum()), totals.get((name, gpu, phase, precision))))
    return rows


def watch(process: subprocess.Popen[bytes], port: int) -> tuple[Samples, Samples, int]:
    """Scrape until the sweep has ended; returns the last values of all metrics, and how many scrapes had any."""
    gauges: Samples = {}
    totals: Samples = {}
    count = 0
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                seen = parse(answer.read().decode())
        except OSError:
            seen = ({}, {})
        gauges, totals, count = gauges | seen[0], totals | seen[1], count + bool(seen[0])
        time.sleep(1.0)
    return gauges, totals, count


def main() -> int:
    """Sweep, scrape, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flags", default=FLAGS, help="of sweeps/mlp_grid.py, in quotes")
    parser.add_argument("--linger", type=float, default=4.0, help="seconds that the recorder stays alive to be scraped")
    args = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ["RAY_AUTH_MODE"] = "disabled"
    config = {"metrics_report_interval_ms": REPORT_MS}
    context: Any = ray.init(
        address="local", _metrics_export_port=port, _system_config=config, include_dashboard=False, log_to_driver=False
    )
    out = Path(tempfile.mkdtemp(prefix="flopray-scrape-"))
    command = [sys.executable, str(ROOT / "sweeps" / "mlp_grid.py"), *shlex.split(args.flags), "--storage", str(out)]
    command += ["--address", context.address_info["gcs_address"], "--name", "scraped", "--quiet"]
    process = subprocess.Popen(command, env=os.environ | {"FLOPRAY_METRICS_LINGER_S": str(args.linger)})
    gauges, totals, count = watch(process, port)
    ray.shutdown()
    if process.returncode not in (0, 3):
        print(f"the sweep ended with exit code {process.returncode}")
        return 2
    if not count:
        print("nothing of flopray on the export port: are the packages of ray[default] installed?")
        return 2
    return report(compare(load_run(out / "scraped"), gauges, totals), count)


def report(rows: list[tuple[str, str, float, float | None]], count: int) -> int:
    """Print the table; returns 1 if a value is missing or disagrees."""
    print(f"{count} scrapes\n{'metric':42} {'phase':18} {'record':>12} {'scraped':>12} {'ratio':>7}")
    bad = 0
    for name, phase, record, scraped in rows:
        wrong = scraped is None or abs(scraped - record) > TOLERANCE * abs(record)
        bad += wrong
        shown, ratio = ("-", "-") if scraped is None else (f"{scraped:.5g}", f"{scraped / record:.3f}")
        print(f"{name:42} {phase:18} {record:12.5g} {shown:>12} {ratio:>7}{'  <-- differs' if wrong else ''}")
    print(f"{len(rows) - bad} of {len(rows)} values agree within {TOLERANCE:.0%}")
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
