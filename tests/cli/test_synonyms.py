"""For a flag of another tool, the right one is suggested."""

import pytest

from flopray.cli.flags import build_parser
from flopray.cli.main import main
from flopray.workloads.registry import find_workload


@pytest.mark.parametrize(
    ("workload", "guess", "said"),
    [
        ("causal_lm", "--sequence-length", "--tokens"),
        ("causal_lm", "--seq-len", "--tokens"),
        ("causal_lm", "--seq_len", "--tokens"),
        ("causal_lm", "--sequnce-length", "--tokens"),
        ("causal_lm", "--max-model-len", "--tokens"),
        ("causal_lm", "--batch-size", "--batch"),
        ("causal_lm", "--per-device-train-batch-size", "--batch"),
        ("causal_lm", "-b", "--batch"),
        ("causal_lm", "--model-name", "--model"),
        ("causal_lm", "--config", "--model"),
        ("causal_lm", "--dtype", "--precision"),
        ("causal_lm", "--bf16", "--precision bf16"),
        ("causal_lm", "--hidden-size", "--model my/config.json, which states the model's sizes"),
        ("causal_lm", "--num-layers", "--model my/config.json, which states the model's sizes"),
        ("causal_lm", "--gradient-checkpointing", "--checkpointing"),
        ("causal_lm", "--attn-implementation", "--attention"),
        ("causal_lm", "--prefill", "--phases prefill"),
        ("causal_lm", "--output-dir", "--storage"),
        ("causal_lm", "--device", "--accelerators"),
        ("llama", "--sequence-length", "--tokens"),
        ("llama", "--dtype", "--precision"),
        ("mlp", "--batch-size", "--m"),
        ("mlp", "--tokens", "--m"),
        ("mlp", "--hidden-size", "--d"),
        ("mlp", "--num-layers", "--n"),
        ("mlp", "-n", "--n"),
        ("mlp", "--torch-compile", "--execution compile"),
        ("mlp", "--wandb", "--log-to"),
        ("mlp", "--gpus", "--accelerators"),
        ("mlp", "--gpu-types", "--gpu-type"),
        ("mlp", "--retry", "--retries"),
        ("mlp", "--prec", "--precision"),
    ],
)
def test_a_guess_is_answered_with_the_flag(workload, guess, said, capsys):
    with pytest.raises(SystemExit) as ended:
        build_parser(find_workload(workload)).parse_args([guess, "8"])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert f"did you mean {said}? (--help" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(("workload", "guess"), [("causal_lm", "--lr"), ("mlp", "--qqqq"), ("mlp", "--num-heads")])
def test_what_is_like_nothing_is_not_guessed(workload, guess, capsys):
    with pytest.raises(SystemExit):
        build_parser(find_workload(workload)).parse_args([guess, "8"])
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize("workload", ["causal_lm", "llama", "mlp"])
def test_every_flag_of_a_sweep_in_the_other_number_gets_a_hint(workload, capsys):
    parser = build_parser(find_workload(workload))
    flags = [flag for flag in parser._flags() if len(flag) > 3]
    slips = {flag: flag[:-1] if flag.endswith("s") else f"{flag}s" for flag in flags}
    for flag, slip in slips.items():
        if slip not in flags:
            with pytest.raises(SystemExit):
                parser.parse_args([slip, "8"])
            assert f"did you mean {flag}?" in capsys.readouterr().err, slip


@pytest.mark.parametrize("workload", ["causal_lm", "llama", "mlp"])
def test_every_answer_is_a_flag(workload):
    parser = build_parser(find_workload(workload))
    for guess, said in parser.synonyms.items():
        assert said.split()[0] in parser._option_string_actions, guess
        assert f"--{guess}" not in parser._option_string_actions


@pytest.mark.parametrize(
    ("guess", "said"), [("--seq-len", "--tokens"), ("--dtype", "--precision"), ("--phases", "--phase")]
)
def test_counting_a_workload_answers_too(guess, said, capsys):
    assert main(["count", "causal_lm", "--model", "llama-tiny", guess, "8"]) == 2
    assert f"causal_lm has no {guess}: did you mean {said}?" in capsys.readouterr().err
