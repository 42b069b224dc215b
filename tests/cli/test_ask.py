"""`flopray ask`: what a step and a run cost, with intervals, or why there is no answer."""

import dataclasses
import json
import math
import re
from types import SimpleNamespace

import pytest

import flopray
from flopray.cli import ask, quantities, question, reply, reply_tables
from flopray.cli import main as commands
from flopray.cli.answer import Answer, cheapest, fastest
from flopray.cli.prices import Overheads
from flopray.cli.terminal import LineConsole
from flopray.errors import InputError
from flopray.footprint.assumptions import Ranged
from flopray.workloads.mlp import MLP

SHAPE = ["--n", "8", "--d", "2048", "--m", "256"]
WORKLOAD = '''
import torch
import flopray
from flopray.workloads.base import Built

class Net(flopray.Workload):
    """A layer without a closed form."""
    name = "net"
    fields = (flopray.workloads.Field(name="width", letter="w", values=(64,)),)

    def build(self, point, *, device, dtype, seed):
        module = torch.nn.Linear(point.width, point.width, bias=False, device=device, dtype=dtype)
        return flopray.workloads.Built(module, torch.ones(4, point.width, device=device, dtype=dtype))
'''


def asked(capsys, *words):
    assert commands.main(["ask", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_answer_holds_what_was_measured(capsys):
    """Boards of H100 that were measured at this point lie in its interval."""
    rows = flopray.load_run("reference:h100-mlp").query(
        "n_layers == 8 and width == 2048 and tokens == 256 and phase == 'train_step' and precision == 'bf16'"
    )
    assert rows["device_uuid"].nunique() == 2
    (one,) = asked(capsys, "mlp", *SHAPE, "--gpu", "h100")["answers"]
    assert one["outside"] is None
    assert rows["time_s"].between(one["step_s"]["low"], one["step_s"]["high"]).all()
    assert rows["energy_at_reference_j"].between(one["step_j"]["low"], one["step_j"]["high"]).all()
    assert one["step_s"]["high"] / one["step_s"]["low"] < 1.3


def test_a_run_is_its_steps(capsys):
    step = asked(capsys, "mlp", *SHAPE, "--gpu", "H100")["answers"][0]
    words = ["--total-tokens", "1e9", "--gpus", "8", "--utilisation", "0.5"]
    run = asked(capsys, "mlp", *SHAPE, "--gpu", "H100", *words)["answers"][0]
    assert run["steps"] == math.ceil(1e9 / (256 * 8)) == 488_282
    assert run["run_s"]["value"] == pytest.approx(step["step_s"]["value"] * 488_282 / 0.5)
    waiting_j = run["run_j"]["value"] - 8 * 488_282 * step["step_j"]["value"]
    waiting_w = waiting_j / (8 * run["run_s"]["value"] / 2)
    assert 60 < waiting_w < 200  # an H100 that waits awake takes 120 to 135 W, one at rest 70
    assert run["bill"]["board_kwh"]["value"] == pytest.approx(run["run_j"]["value"] / 3.6e6)


def test_all_gpus_known_and_the_best_of_them(capsys):
    found = asked(capsys, "mlp", *SHAPE, "--steps", "1e6", "--gpus", "1", "8", "--deadline", "1h")
    assert {(one["device_type"], one["gpus"]) for one in found["answers"]} == {
        *(("H100", 1), ("H100", 8)),
        *(("H200", 1), ("H200", 8)),
    }
    least = min(found["answers"], key=lambda one: one["run_j"]["value"])
    assert found["best"][0].startswith(f"least energy within 60 min: {least['gpus']} x {least['device_type']}")
    none = asked(capsys, "mlp", *SHAPE, "--steps", "1e6", "--energy-budget", "1J")
    assert none["best"] == [
        "none is sure to stay within 1 J of the boards: the high end of its interval must lie below that"
    ]


def test_many_answers_are_a_line_each(capsys):
    words = ["--steps", "1e6", "--gpus", "1", "8", "--price-per-gpu-hour", "2"]
    assert commands.main(["ask", "mlp", *SHAPE, *words]) == 0
    out = capsys.readouterr().out
    measured, assumed = (line for line in out.splitlines() if line.startswith("8 x H200 bf16 graph"))
    assert measured.count("±") == 4  # step, board, run, boards
    assert assumed.count("±") == 1  # rent
    assert " to " in assumed  # the building
    assert "…" not in out


def test_what_decides_is_the_whole_interval():
    def one(name, run_s, run_j):
        return Answer(name, "bf16", "graph", 1, 1, run_s=Ranged(*run_s), run_j=Ranged(*run_j))

    quick = one("A", (10, 9, 11), (100, 90, 110))
    frugal = one("B", (20, 18, 22), (50, 40, 60))
    unknown = Answer("C", "bf16", "graph", 1, 1, why_none="nothing")
    every = [quick, frugal, unknown]
    assert cheapest(every, 22) is frugal
    assert cheapest(every, 21) is quick  # B may take 22
    assert cheapest(every, 10) is None
    assert fastest(every, 110) is quick
    assert fastest(every, 109) is frugal
    assert fastest(every, 59) is None


def test_an_answer_without_energy_or_range_says_why_and_assumes_nothing_about_joules(capsys):
    """As of models that were fitted to a run on a CPU."""
    timed = Ranged(0.5, None, None)
    cpu = Answer("CPU", "fp32", "eager", 1, None, step_s=timed, run_s=timed, basis="4 rows")
    gpu = Answer("H100", "bf16", "graph", 1, None, step_s=Ranged(0.5, 0.4, 0.6), step_j=Ranged(9.0, 8.0, 10.0))
    no_energy = "1 x CPU fp32 eager: no energy; none was measured in the runs that its models were fitted to"
    no_range = "1 x CPU fp32 eager: no range; too few rows were held out of the fit to say how wrong it is"
    assert reply._missing([cpu, gpu]) == [no_energy, no_range]
    for answers, assumed in (([cpu], False), ([cpu, gpu], True)):
        lines = reply._lines(answers, [], 1.0, SimpleNamespace(reference_c=50.0))  # pyright: ignore
        reply_tables.show(
            LineConsole(), reply.Reply("a step", answers, Overheads(price_per_gpu_hour=2.0).prices(), lines, [])
        )
        out = " ".join(capsys.readouterr().out.split())
        assert no_energy in out
        assert "rent: 2 a GPU hour; as given by --price-per-gpu-hour" in out
        assert [part in out for part in ("PUE", "no CO2e", "energy is that of the boards")] == 3 * [assumed]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mlp", "--n", "8", "--d", "100000", "--m", "128"], "needs 640 GB of memory at least, and the H100 SXM has"),
        (["llama-3.2-1b", "--precision", "fp32"], "no answer; causal_lm was not measured"),
        (["mlp", *SHAPE, "--precision", "fp16"], "no answer; no fit for fp16 on H100"),
    ],
)
def test_no_answer_has_a_reason_and_no_number(words, said, capsys):
    assert commands.main(["ask", *words, "--gpu", "H100", "--steps", "1000"]) == 0
    out = capsys.readouterr().out
    assert said in out
    assert "Most likely" not in out
    assert "Wh" not in out


def test_a_language_model_is_answered_where_it_was_measured_and_on_the_same_chip(capsys):
    """Llama 3.2 1B is in no fit; on an H200, compiled and captured, its step took 126.6 ms and 87.2 J."""
    asked = ["llama-3.2-1b", "--batch", "8", "--tokens", "1024", "--precision", "bf16", "--json"]
    assert commands.main(["ask", *asked, "--gpu", "H200", "--execution", "compile_graph"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert answer["step_s"]["low"] < 0.1266 < answer["step_s"]["high"]
    assert answer["step_j"]["low"] < 87.2 < answer["step_j"]["high"]
    assert commands.main(["ask", *asked, "--gpu", "H100"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert answer["basis"].endswith("carried to H100 by datasheets")


def test_what_nobody_names_is_of_a_shape_that_was_measured(capsys):
    h100 = ["--gpu", "H100"]
    for named in ([], ["--d", "512"], ["--n", "2", "--m", "64"], ["--precision", "fp32", "bf16", *h100]):
        answers = asked(capsys, "mlp", *named)["answers"]
        assert len(answers) == 2
        assert all(one["outside"] is None and one["step_s"]["low"] > 0 for one in answers)
    shapes = [{"n_layers": n, "width": d} for n in (2, 8) for d in (128, 1024)]
    assert question._nearest(shapes, {}) == {"n_layers": 8, "width": 1024}
    assert question._nearest(shapes, {"width": 200, "other": 3}) == {"n_layers": 8, "width": 128}
    assert question._nearest([], {"width": 200}) == {}


@pytest.mark.parametrize(
    ("fitted", "precisions", "execution", "ways"),
    [
        ([], (), None, [("bf16", "graph")]),
        ([("fp32", "eager")], (), None, [("fp32", "eager")]),
        ([("fp32", "eager"), ("bf16", "compile")], (), None, [("bf16", "compile")]),
        ([("fp32", "eager"), ("bf16", "graph")], (), "eager", [("fp32", "eager")]),
        ([("bf16", "graph")], (), "eager", [("bf16", "eager")]),  # no answer, and the reason
        ([("fp32", "eager")], ["tf32", "fp32"], (), [("tf32", "graph"), ("fp32", "eager")]),
    ],
)
def test_what_nobody_names_is_how_it_was_measured(fitted, precisions, execution, ways):
    assert question.ways_of(MLP(), fitted, precisions, execution) == ways


def test_a_little_outside_is_said_to_be_outside(capsys):
    assert commands.main(["ask", "mlp", "--n", "8", "--d", "3000", "--m", "128", "--gpu", "H100"]) == 0
    assert "H100 bf16 graph: width 3000 is outside the measured range 512 to 2048" in capsys.readouterr().out


def test_every_assumption_stands_beside_the_number(capsys):
    words = ["--grid-intensity", "56", "--price-per-kwh", "0.25", "--price-per-gpu-hour", "2", "--pue", "1.2"]
    assert commands.main(["ask", "mlp", "--n", "8", "--gpu", "H100", *words]) == 0
    out = capsys.readouterr().out
    for line in (
        "PUE: 1.2; as given by --pue",
        "grid: 56 g CO2e/kWh; as given by --grid-intensity",
        "rent: 2 a GPU hour; as given by --price-per-gpu-hour",
        "server over boards: 1.5 (1.38 to 1.82)",
        "taken by default: --d 2048, --m 256",
        "fitted to ",
    ):
        assert line in out
    assert "CO2e" in out


def test_a_workload_of_ones_own_is_counted(tmp_path, capsys):
    (tmp_path / "net.py").write_text(WORKLOAD)
    workload, model = question.named_workload(f"{tmp_path}/net.py:Net")
    assert model is None
    (point,) = question.points_of(workload, {"width": (64,)}, {"H100": [("bf16", "graph")]})
    work = question.asked_of(point, "forward").work
    assert work is not None
    assert work.flops == 2 * 4 * 64 * 64
    assert commands.main(["ask", f"{tmp_path}/net.py:Net", "--gpu", "H100"]) == 0
    assert "no answer; net was not measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the following arguments are required: WORKLOAD"),
        (["nope"], "'nope' is neither a workload (mlp, causal_lm, FILE.py:NAME) nor a model"),
        (["--steps", "3", "mlp"], "flopray ask: name the workload or model first"),
        (["mlp", "--steps", "3.5"], "--steps: '3.5': write a whole number from 1"),
        (["mlp", "--steps", "0"], "--steps: '0'"),
        (["mlp", "--steps", "3", "--total-tokens", "4"], "name the same"),
        (["mlp", "--gpus", "-1"], "--gpus"),
        (["mlp", "--deadline", "soon"], "--deadline: 'soon': write a positive number with its unit, such as 24h"),
        (["mlp", "--energy-budget", "5"], "such as 5kWh"),
        (["mlp", "--utilisation", "0"], "--utilisation must be above 0 and at most 1, got 0"),
        (["mlp", "--utilisation", "nan"], "--utilisation must be above 0 and at most 1"),
        (["mlp", "--pue", "0.5"], "--pue must be a number from 1"),
        (["mlp", "--server-factor", "nan"], "--server-factor must be a number from 1"),
        (["mlp", "--grid-intensity", "inf"], "--grid-intensity must be 0 or a positive number"),
        (["mlp", "--price-per-kwh", "-1"], "--price-per-kwh must be 0 or a positive number"),
        (["mlp", "--country", "FRA", "--grid-intensity", "50"], "name the same"),
        (["mlp", "--phase", "decode"], "--phase decode: mlp has inference"),
        (["mlp", "--n", "2", "4"], "--n 2 4: ask about one value"),
        (["mlp", "--n"], "--n: ask about one value"),
        (["mlp", "--gpus"], "--gpus needs at least one number"),
        (["mlp", "--execution", "fast"], "--execution: unknown 'fast', choose from eager, graph"),
        (["mlp", "--n", "0"], "--n: 0 is below 1"),
        (["mlp", "--gpu", "B300"], "--gpu B300: nothing was fitted for it; there are models of H100, H200"),
        (["mlp", "--models", "nothing.json"], "--models nothing.json: there is no such file, as flopray fit --out"),
        (["mlp", "--precision", "fp64"], "--precision: unknown 'fp64', choose from fp32"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_in_a_line(words, said, capsys):
    try:
        code = commands.main(["ask", *words])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mlp", "--tokens", "1e9"], "--tokens 1e9: did you mean --m (of a step) or --total-tokens (of the run)?"),
        (["mlp", "--num-gpus", "8"], "did you mean --gpus?"),
        (["mlp", "--device", "H100"], "did you mean --gpu?"),
        (["mlp", "--dtype", "fp32"], "did you mean --precision?"),
        (["mlp", "--hidden-size", "512"], "did you mean --d?"),
        (["mlp", "--carbon-intensity", "300"], "did you mean --grid-intensity?"),
        (["mlp", "--time-limit", "3h"], "did you mean --deadline?"),
        (["mlp", "--gpus", "H100"], "such as 1000, 1e9 or 3.5M: did you mean --gpu H100?"),
        (["mlp", "--gpus=H100"], "did you mean --gpu H100?"),
        (["mlp", "--gpus", "H100", "H200", "--n", "8"], "did you mean --gpu H100 H200?"),
        (["mlp", "--gpus", "0"], "such as 1000, 1e9 or 3.5M (--help lists the flags)"),
        (["mlp", "--step", "10"], "did you mean --steps?"),
        (["mlp", "--phases", "forward"], "did you mean --phase?"),
        (["mlp", "--zzzzz", "3"], "unrecognized arguments: --zzzzz 3 (--help lists the flags)"),
    ],
)
def test_a_guessed_flag_leads_to_the_right_one(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        commands.main(["ask", *words])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e9", 10**9),
        ("1000", 1000),
        ("3.5M", 3_500_000),
        ("1B tokens", 10**9),
        ("1b", 10**9),
        ("1.1 billion tokens", 1_100_000_000),
        ("15T", 15 * 10**12),
        ("2.5e3k", 2_500_000),
        ("1,000,000", 10**6),
        ("1 000 000 Token", 10**6),
        ("10_000_000", 10**7),
        ("1e18", 10**18),
    ],
)
def test_tokens(text, value):
    assert quantities.tokens(text) == value


def test_steps_are_no_tokens():
    assert quantities.steps("10k steps") == 10_000
    for text in ("1B tokens", "", "0", "-5", "1.5", "1..5", "nan", "inf", "1e19", "1e999", "10,00", "1,2", "1q", "k"):
        with pytest.raises(InputError, match=r"write a whole number from 1 to 1e\+18, such as 1000, 1e9 or 3.5M"):
            quantities.steps(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("24h", 86400), ("90 min", 5400), ("7d", 604800), ("1.5e3s", 1500), ("2 hours", 7200), ("1 day", 86400)],
)
def test_times(text, value):
    assert quantities.seconds(text) == value


@pytest.mark.parametrize(("text", "value"), [("5kWh", 1.8e7), ("300 wh", 1.08e6), ("2MJ", 2e6), ("1e3 J", 1000)])
def test_energies(text, value):
    assert quantities.joules(text) == value


@pytest.mark.parametrize("text", ["", "5", "kWh", "-5kWh", "nankWh", "5 furlongs", "2mJ", "1..2J", "infJ"])
def test_what_is_no_energy(text):
    with pytest.raises(InputError, match="such as 5kWh"):
        quantities.joules(text)


def test_a_flag_of_ones_own_that_is_taken_is_refused():
    class Taken(MLP):
        fields = (*MLP.fields[:2], flopray.workloads.Field(name="steps", letter="s", values=(1,)))

    with pytest.raises(InputError, match="the flag --steps is taken"):
        ask.build_parser(Taken())


def test_a_question_of_default_values_names_nothing():
    given = ask.build_parser(MLP()).parse_args(["mlp"])
    assert {name for name, value in vars(given).items() if value is not None} == {"workload"}
    assert ask.build_parser(MLP()).read_known(given) == (question.Question(workload="mlp"), Overheads())


def test_an_old_flag_of_a_field_is_understood(capsys):
    class Renamed(MLP):
        fields = (*MLP.fields[:2], dataclasses.replace(MLP.fields[2], old_flags=("--columns",)))

    given = vars(ask.build_parser(Renamed()).parse_args(["mlp", "--columns", "64"]))
    assert given["axis_tokens"] == ["64"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mlp", "--gpu", "8"], "there are models of H100, H200: did you mean --gpus 8?"),
        (["mlp", "--gpu", "1", "8"], "did you mean --gpus 1 8?"),
        (["qwen3-0.6b", "--models", "qwen3-1.7b"], "did you mean --model qwen3-1.7b?"),
    ],
)
def test_a_value_of_the_flag_in_the_other_number_leads_to_that_flag(words, said, capsys):
    assert commands.main(["ask", *words]) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1


def test_a_choice_that_nobody_measured_has_no_answer_and_is_named_by_its_flag(capsys):
    pytest.importorskip("peft")
    words = ["llama-3.2-1b", "--tokens", "256", "--gpu", "H200", "--adapter", "lora:16"]
    (one,) = asked(capsys, *words)["answers"]
    assert one["why_none"] == "--adapter lora:16 was not measured, but --adapter none"
    assert (one["step_s"], one["step_j"], one["bill"]) == (None, None, None)
    assert commands.main(["ask", *words]) == 0
    assert "flopray fit RUN --out FILE, then --models FILE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "execution"), [("mlp --n 8 --d 1024 --m 128", "graph"), ("llama-3.2-1b --precision fp8", "compile_graph")]
)
def test_an_answer_says_what_its_execution_means(capsys, words, execution):
    if "fp8" in words:
        pytest.importorskip("torchao")
    notes = asked(capsys, *words.split(), "--gpu", "H200")["notes"]
    (line,) = [note for note in notes if note.startswith(f"{execution}: ")]
    assert "an ordinary eager loop" in line
    assert "takes longer" in line


@pytest.mark.parametrize(
    ("words", "refused", "instead"),
    [
        ("llama-3.1-8b --phase decode", "parameters 8.03 G is outside", "--execution compile_graph"),
        ("llama-3.2-1b --precision fp8 --execution graph", "fp8 is measured compiled", "--execution compile_graph"),
        ("llama-3.2-1b --precision fp16", "causal_lm was not measured at fp16", "--precision bf16 --execution graph"),
        ("smollm2-360m --tokens 8192", "", "--tokens "),
        ("llama-3.2-1b --execution eager", "eager was not measured", "--execution graph"),
    ],
)
def test_a_refusal_names_a_flag_with_which_there_is_an_answer(capsys, words, refused, instead):
    if "fp8" in words:
        pytest.importorskip("torchao")
    words = [*words.split(), "--gpu", "H200"]
    (one,) = asked(capsys, *words)["answers"]
    assert one["why_none"].startswith(refused)
    there = one["why_none"].partition("; there is an answer with ")[2]
    flags = there.partition("; ")[0]
    assert flags.startswith(instead)
    (other,) = asked(capsys, *words, *flags.split())["answers"]  # the last of a flag counts
    assert other["step_s"]["low"] is not None
    assert ("flopray sweep --execution eager" in there) == ("eager" in words)


def test_a_model_that_is_too_short_says_what_stands_in_the_way_of_a_shorter_step(capsys):
    (one,) = asked(capsys, "gpt2", "--tokens", "1024", "--gpu", "H200")["answers"]
    assert one["why_none"].startswith("gpt2 has 1024 positions")
    assert "; there is an answer with --tokens" in one["why_none"] or "; with --tokens" in one["why_none"]


def test_no_reason_names_a_setting_as_python_does(capsys):
    (one,) = asked(capsys, "llama-3.2-1b", "--precision", "fp8", "--execution", "graph", "--gpu", "H200")["answers"]
    assert "use --execution compile or --execution compile_graph" in one["why_none"]
    assert "='" not in one["why_none"]


def test_a_workload_of_ones_own_is_told_how_it_can_be_answered(capsys, tmp_path):
    path = tmp_path / "net.py"
    path.write_text(WORKLOAD)
    (one,) = asked(capsys, f"{path}:Net", "--gpu", "H100")["answers"]
    said = "net was not measured: a workload of your own needs flopray fit on runs of it, then --models FILE"
    assert one["why_none"] == said


@pytest.mark.parametrize("value", [1.0, 1999.0, 3599.0, 3600.0, 3700.0, 7200.0, 3.6e6, 1e9])
def test_a_range_has_one_unit(value):
    """Prefixes may differ; joules beside watt-hours, or minutes beside hours, do not compare."""
    ranged = Ranged(value, 0.3 * value, 3 * value)
    for shown, words in (("J|Wh", quantities.energy_text), ("s|min|h|d", quantities.time_text)):
        text = quantities.with_range(ranged, words)
        units = re.findall(rf"\d (?:[munµkMGT]?)({shown})\b", text)
        assert len(units) == 3, text
        assert len(set(units)) == 1, text
        (row,) = reply_tables._lines_of("", ["a"], [("Board", [ranged], words)]).sections[0][1]
        assert len(set(re.findall(rf"\d (?:[munµkMGT]?)({shown})\b", row[1]))) <= 1


def test_answers_that_are_as_good_as_the_best_are_named():
    def one(name, run_s, run_j):
        return Answer(name, "bf16", "graph", 1, 1, run_s=Ranged(run_s, run_s, run_s), run_j=Ranged(run_j, run_j, run_j))

    every = [one("A", 10, 100.0), one("B", 80, 100.4), one("C", 5, 120.0), one("D", 999, 100.0)]
    asked_for = question.Question(workload="mlp", deadline_s=100.0, energy_budget_j=500.0)
    least, quickest = reply._choices(every, asked_for)
    assert least.startswith("least energy within 100 s: 1 x A bf16 graph")
    assert least.endswith("; equal to 1%: 1 x B bf16 graph (80 s (80 s to 80 s))")
    assert "equal to" not in quickest
