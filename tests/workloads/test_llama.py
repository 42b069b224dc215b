"""Llama: sizes, FLOPs compared with known numbers, and phases that do the right work."""

import json

import pytest
import torch

from flopray.cli.flags import build_parser
from flopray.errors import InputError, OutOfMemory, SpecError
from flopray.measurement.device import Device
from flopray.measurement.profiler import Profiler
from flopray.point import Point
from flopray.records import PHASES, Status
from flopray.settings import MeasureSettings
from flopray.workloads.base import closed_columns
from flopray.workloads.dispatch import dispatched_flops
from flopray.workloads.llama import Llama
from flopray.workloads.llama_config import BUILT_IN, LlamaConfig, config_of, find_models, from_hugging_face
from flopray.workloads.llama_flops import COMPONENTS
from flopray.workloads.phases import BuiltPoint
from flopray.workloads.registry import make_point

pytestmark = pytest.mark.usefixtures("peak_measured_once")

TINY_FILE = {
    **{"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "intermediate_size": 48, "vocab_size": 64, "tie_word_embeddings": False},
}


def spec(model="llama-tiny", batch=2, tokens=16, **fields) -> Point:
    choices = {"weights": "random", "attention": "auto", "checkpointing": False}
    shape = {"batch_size": batch, "sequence_length": tokens}
    return make_point(**{"workload": "llama", "device_type": "CPU", "model": model, **choices, **shape, **fields})


def workload(**fields) -> BuiltPoint:
    return BuiltPoint(spec(**fields), device="cpu", seed=0)


# -- sizes


def test_sizes_are_those_of_the_published_models():
    assert BUILT_IN["llama-3.2-1b"].parameters == 1_235_814_400
    assert BUILT_IN["llama-3.2-1b"].projected_parameters == 1_235_746_816
    assert BUILT_IN["llama-3.2-3b"].parameters == 3_212_749_824
    assert BUILT_IN["llama-3.1-8b"].parameters == 8_030_261_248
    assert BUILT_IN["llama-3.1-70b"].parameters == 70_553_706_496


@pytest.mark.parametrize("model", ["llama-tiny", "llama-3.2-1b"])
def test_transformers_builds_as_many_weights_as_the_sizes_say(model):
    built = Llama().build(spec(model), device="meta", dtype=torch.bfloat16, seed=0)
    assert sum(weight.numel() for weight in built.module.parameters()) == BUILT_IN[model].parameters


def test_a_file_a_folder_and_a_name_are_models(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY_FILE))
    (tmp_path / "other.json").write_text(json.dumps(TINY_FILE | {"intermediate_size": 96}))
    names, configs = find_models([str(folder), str(tmp_path / "other.json"), "Llama-Tiny"], ["random"])
    assert names == ("mine", "other", "llama-tiny")
    assert set(configs) == {"mine", "other"}
    config = config_of("mine", configs["mine"])
    assert (config.hidden_size, config.head_dim, config.n_kv_heads, config.tied) == (32, 8, 2, False)
    assert LlamaConfig.from_json(config.to_json()) == config
    # The point carries the sizes, so that another machine needs no file; they are part of what it is.
    mine, changed = (spec("m", model_config=configs[name]) for name in ("mine", "other"))
    assert mine.id != changed.id
    assert closed_columns(mine, "forward")["model_flops"] < closed_columns(changed, "forward")["model_flops"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model_type": "mistral"}, "only llama"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"num_key_value_heads": 3}, "share 3 key and value heads"),
        ({"attention_bias": True}, "biases"),
        ({"head_dim": 7}, "even"),
        ({"vocab_size": "many"}, "vocab_size"),
    ],
)
def test_what_is_no_llama_is_refused_in_one_line(content, message):
    with pytest.raises(InputError, match=message) as caught:
        from_hugging_face(TINY_FILE | content, "x")
    assert "\n" not in str(caught.value)


def test_pretrained_weights_come_from_a_folder_of_safetensors(tmp_path):
    from transformers import LlamaConfig as HuggingFaceConfig
    from transformers import LlamaForCausalLM

    sizes = {key: value for key, value in TINY_FILE.items() if key != "model_type"}
    saved = LlamaForCausalLM(HuggingFaceConfig(**sizes))
    saved.save_pretrained(tmp_path / "mine")
    assert list((tmp_path / "mine").glob("*.safetensors"))
    ((name,), configs) = find_models([str(tmp_path / "mine")], ["pretrained"])
    assert name == str(tmp_path / "mine")
    point = spec(name, model_config=configs[name], weights="pretrained", tokens=8)
    built = Llama().build(point, device="cpu", dtype=torch.float32, seed=0)
    weights = dict(built.module.model.named_parameters())
    for key, weight in saved.named_parameters():
        torch.testing.assert_close(weights[key], weight)
    assert BuiltPoint(point, device="cpu", seed=0).phase("inference")().shape == (2, 8, 64)


def test_names_that_mean_nothing_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("[1]")
    for name in ("nope", str(tmp_path / "none.json"), str(tmp_path)):
        with pytest.raises(InputError, match=r"^model"):
            find_models([name], ["random"])
    with pytest.raises(InputError, match="hub id or a folder"):
        find_models(["llama-tiny"], ["pretrained"])
    (tmp_path / "config.json").write_text(json.dumps(TINY_FILE))
    for name in (tmp_path, tmp_path / "config.json"):
        with pytest.raises(InputError, match="has no safetensors"):
            find_models([str(name)], ["pretrained"])
    with pytest.raises(SpecError, match="unknown model"):
        config_of("nope", None)
    with pytest.raises(SpecError, match="unknown attention"):
        spec(attention="fancy")


# -- FLOPs


def test_the_dispatcher_counts_attention_of_the_1b_model():
    point = spec("llama-3.2-1b", 8, 1024)
    counts = {phase: dispatched_flops(point, phase, 1)["dispatched_flops"] for phase in ("forward", "backward")}
    assert counts == {"forward": 21_345_987_461_120, "backward": 42_691_974_922_240}


@pytest.mark.parametrize("model", ["llama-tiny", "llama-3.2-1b", "llama-3.1-70b"])
@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "optimizer_step"])
def test_closed_form_products_and_attention_are_what_the_dispatcher_counts(model, phase):
    point = spec(model, 8, 256)
    closed = closed_columns(point, phase)
    counted = dispatched_flops(point, phase, closed["model_flops"])
    assert counted["dispatched_flops"] == closed["gemm_flops"] + closed["attention_flops"]
    assert -0.02 < counted["dispatched_rel_difference"] < 0 or model == "llama-tiny"


@pytest.mark.parametrize("phase", PHASES)
def test_components_add_up_and_the_causal_half_is_less_than_the_square(phase):
    columns = closed_columns(spec("llama-3.2-1b", 8, 1024), phase)
    assert columns["model_flops"] == sum(columns[name] for name in COMPONENTS)
    if phase == "optimizer_step":
        assert columns["attention_flops"] == 0
    elif phase == "decode":
        assert columns["attention_causal_flops"] == columns["attention_flops"]
    else:
        assert columns["attention_causal_flops"] / columns["attention_flops"] == pytest.approx(1025 / 2048)
    whole = sum(closed_columns(spec("llama-3.2-1b", 8, 1024), p)["model_flops"] for p in ("forward", "backward"))
    assert closed_columns(spec("llama-3.2-1b", 8, 1024), "forward_backward")["model_flops"] == whole


def test_checkpointing_recomputes_what_the_dispatcher_sees_twice():
    plain, again = spec("llama-3.2-1b", 8, 1024), spec("llama-3.2-1b", 8, 1024, checkpointing=True)
    assert closed_columns(plain, "backward")["recomputed_flops"] == 0
    closed = closed_columns(again, "backward")
    assert closed["model_flops"] == closed_columns(plain, "backward")["model_flops"]
    seen = [dispatched_flops(point, "backward", 1)["dispatched_flops"] for point in (again, plain)]
    # the dispatcher sees no elementwise operations, a tenth of a percent
    assert seen[0] - seen[1] == pytest.approx(closed["recomputed_flops"], rel=3e-3)


# -- phases


def test_the_loss_is_that_of_guessing_and_gradients_reach_every_weight():
    step = workload()._step
    loss = step.forward()
    assert float(loss) == pytest.approx(torch.log(torch.tensor(512.0)).item(), rel=0.05)
    assert all(float(gradient.abs().sum()) > 0 for gradient in step.backward(loss))


def test_generating_agrees_with_a_whole_forward_pass():
    point = workload(tokens=12)
    logits = point.phase("inference")()
    first = point.phase("prefill")()
    torch.testing.assert_close(first[:, -1], logits[:, -1], rtol=1e-4, atol=1e-4)
    decode = point.phase("decode")
    once, twice = decode(), decode()
    assert once.shape == (2, 1, 512)
    torch.testing.assert_close(once, twice)  # the cache is put back: every iteration does the same work
    x = point._step.x
    longer = point._step.module.model(input_ids=torch.cat([x, x[:, :1]], dim=1), use_cache=False).logits
    torch.testing.assert_close(once[:, 0], longer[:, -1], rtol=1e-3, atol=1e-3)


def test_checkpointing_changes_no_gradient():
    gradients = [workload(checkpointing=flag).phase("backward")() for flag in (False, True)]
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def test_a_model_that_checkpoints_still_generates_from_its_cache():
    plain, again = (workload(checkpointing=flag) for flag in (False, True))
    for phase in ("prefill", "decode"):
        torch.testing.assert_close(plain.phase(phase)(), again.phase(phase)())
    again.phase("train_step")()
    torch.testing.assert_close(plain.phase("decode")(), again.phase("decode")())


def test_attention_is_forced_and_told():
    assert workload().attention_backend("forward") == "cpu_flash"
    assert workload(attention="math").attention_backend("forward") == "math"
    assert workload(attention="math").attention_backend("optimizer_step") is None


@pytest.mark.slow
def test_what_cannot_fit_is_refused_before_it_is_built_and_the_next_point_is_measured():
    with pytest.raises(OutOfMemory, match=r"predicted: .* at least 282\.2 GB, the device has 80\.0 GB"):
        BuiltPoint(spec("llama-3.1-70b"), device="cpu", seed=0, memory_bytes=80 * 10**9)
    with pytest.raises(OutOfMemory, match="train_step"):
        BuiltPoint(spec(), device="cpu", seed=0, memory_bytes=2_000_000).phase("train_step")
    settings = MeasureSettings(phases=PHASES, instruments=("time",), max_seconds=0.2, target_error=0.5)
    profiler = Profiler(Device("CPU", threads=1), settings).open()
    rows = profiler.measure_point(spec("llama-3.1-70b", 8, 1024))
    assert {row.status for row in rows} == {Status.OUT_OF_MEMORY}
    assert all(row.status_reason.startswith("predicted: ") for row in rows)
    rows = profiler.measure_point(spec())
    assert [row.status for row in rows] == [Status.OK] * len(PHASES), [row.status_reason for row in rows]
    assert {row.phase: row.tokens_per_iteration for row in rows}["decode"] == 2
    assert all(row.dispatched_flops for row in rows if row.phase != "optimizer_step")


def test_the_optimizer_keeps_nothing_for_phases_that_do_not_need_it():
    point = workload()
    point.phase("train_step")()
    assert point._step.optimizer.state
    point.phase("inference")
    assert not point._step.optimizer.state
    assert all(parameter.grad is None for parameter in point._step.parameters)


def test_the_old_name_of_tokens_still_works_and_is_not_in_the_help():
    parser = build_parser(Llama())
    assert parser.parse_args(["--tokens", "small", "8"]).axis_sequence_length == ["small", "8"]
    assert parser.parse_args(["--configs", "small", "8"]).axis_sequence_length == ["small", "8"]
    text = parser.format_help()
    assert "--tokens" in text
    assert "--configs" not in text
