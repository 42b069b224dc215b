"""Stands in for ncu where there is no GPU: runs the worker for real, then writes a table of one kernel an operation.

The worker is forked from a process that has imported torch, where `ADDRESS` of the environment tells of one.

It has ncu's options, messages and format; only the counts are made up: 1000 for every counter that was asked for. In
`STAND_IN` of the environment stands what goes wrong: `kill:N` kills the worker whenever a point of width N begins,
`lose:N` does so and writes no table, `error:TEXT` is a message of ncu, `hang` waits for ever, `chips:NAMES` says which
chips it knows.
"""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from warm_python import ADDRESS, WarmProcess

HEADER = [
    *("ID", "Process ID", "Process Name", "Host Name", "thread Domain:Push/Pop_Range:PL_Type:PL_Value"),
    *("Id:Domain:Start/Stop_Range:PL_Type:PL_Value", "Kernel Name", "Context", "Stream", "Block Size", "Grid Size"),
    *("Device", "CC", "Section Name", "Metric Name", "Metric Unit", "Metric Value"),
]
KERNELS = {
    "mm": "void cutlass::Kernel2<cutlass_80_simt_sgemm_64x64_8x5_nn_align1>(T1::Params)",
    "sigmoid": "void at::vectorized_elementwise_kernel<4, at::sigmoid_kernel_cuda(at::TensorIteratorBase &)>(int, T2)",
    "sigmoid_backward": "void at::vectorized_elementwise_kernel<4, at::sigmoid_backward_kernel_cuda()>(int, T2)",
}


def events(path):
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def started(command):
    """A running worker: started with its Python, or forked from one that has imported torch."""
    warm = os.environ.get(ADDRESS)
    return WarmProcess(warm, command[1:]) if warm else subprocess.Popen(command)


def run_worker(command, kill_width):
    chunk, progress = Path(command[-2]), Path(command[-1])
    points = json.loads(chunk.read_text())["points"]
    process = started(command)
    while process.poll() is None:
        begun = [event["point"] for event in events(progress) if "phase" not in event and "point" in event]
        if begun and points[begun[-1]].get("width") == kill_width is not None:
            process.kill()
        time.sleep(0.01)
    return process.wait(), events(progress)


def run_function(command):
    return started(command).wait(), [{"called": True}]


def run_program(command, log, metrics):
    """A program that launches one kernel in a range that was pushed, twice, and one outside of ranges."""
    code = subprocess.run(command, check=False).returncode
    pushed = '1  "<default domain>:step:none:none:none:none:none:none"  "nn:inner:none:none:none:none:none:none" '
    launches = [(pushed, "mm", "1,000"), (pushed, "mm", "3,000"), ("", "sigmoid", "0.5")]
    with log.open("a") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(HEADER)
        for number, (ranges, kernel, value) in enumerate(launches):
            for metric in metrics:
                launch = ["1", "7", "(1, 1, 1)", "(1, 1, 1)", "0", "9.0", "Command line profiler metrics"]
                writer.writerow(
                    [number, 9, "python", "host", ranges, "", KERNELS[kernel], *launch, metric, "inst", value]
                )
        if code:
            file.write(f"==ERROR== The application returned an error code ({code}).\n")
    return 1 if code else 0


def write_table(log, told, metrics):
    rows = []
    if told == [{"called": True}]:
        rows += [(0, ' "0:flopray:point0-step:none:none" ', KERNELS["mm"], metric) for metric in metrics]
    for event in told:
        if "operation" in event and event["name"].split(".")[1] in KERNELS:
            label = f' "0:flopray:operation{event["operation"]}:none:none" '
            kernel = KERNELS[event["name"].split(".")[1]]
            for metric in metrics:
                rows.append((len(rows) // len(metrics), label, kernel, metric))
    with log.open("a") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(HEADER)
        for row in rows:
            number, label, kernel, metric = row
            launch = ["1", "7", "(1, 1, 1)", "(1, 1, 1)", "0", "9.0", "Command line profiler metrics"]
            writer.writerow([number, 1, "python", "host", "", label, kernel, *launch, metric, "", "1,000"])


def main(arguments):
    what, _, detail = os.environ.get("STAND_IN", "").partition(":")
    if arguments == ["--version"]:
        print("NVIDIA (R) Nsight Compute Command Line Profiler\nVersion 2025.3.1.0 (build 36398880)")
        return 0
    if arguments == ["--list-chips"]:
        print(detail if what == "chips" else "ad102, ga100, gh100, tu102")
        return 0
    if arguments == ["--query-metrics"]:
        print("Device NVIDIA H100 (GH100)\n----\nsm__cycles_active   Counter  cycle\ndram__bytes   Counter  byte")
        return 0
    log = Path(arguments[arguments.index("--log-file") + 1])
    metrics = arguments[arguments.index("--metrics") + 1].split(",")
    command = arguments[arguments.index("--metrics") + 2 :]
    log.write_text("==PROF== Connected to process 1\n")
    if what == "error":
        log.write_text(f"==ERROR== {detail}\n")
        return 1
    if what == "unread":
        log.write_text("==PROF== Connected to process 1\n==WARNING== No kernels were profiled.\n")
        return subprocess.run(command, check=False).returncode
    if command[0] == "sh":
        return run_program(command, log, metrics)
    if what == "hang":
        time.sleep(600)
    if any(word.endswith("function_worker") for word in command):
        code, told = run_function(command)
    else:
        code, told = run_worker(command, int(detail) if what in ("kill", "lose") else None)
    if what != "lose" or code == 0:
        write_table(log, told, metrics)
    return 1 if code else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
