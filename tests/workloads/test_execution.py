"""The phases of a training step: each does its own work and nothing else, at the requested precision."""

import shutil
import subprocess
import sys
import weakref
from copy import deepcopy

import pytest
import torch
import torch._dynamo.utils
from torch.utils._python_dispatch import TorchDispatchMode

from flopray.errors import Unsupported
from flopray.point import Point
from flopray.records import TRAINING_PHASES
from flopray.workloads.compilation import repeated_layers
from flopray.workloads.execution import TrainingStep, is_out_of_memory, phase_work
from flopray.workloads.mlp import MLP
from flopray.workloads.phases import BuiltPoint, check_precision, imported_by_optimizers
from flopray.workloads.registry import make_point

PHASES = TRAINING_PHASES

N, D, M = 3, 24, 10


def spec(**fields) -> Point:
    defaults = {"workload": "mlp", "device_type": "CPU", "n_layers": N, "width": D, "tokens": M}
    return make_point(**{**defaults, **fields})


def training_step(execution="eager", dtype=torch.float32, device="cpu") -> TrainingStep:
    built = MLP().build(spec(), device=device, dtype=dtype, seed=0)
    return TrainingStep(built.module, built.x, built.gradient, execution=execution)


class Operations(TorchDispatchMode):
    """Names of the operations that were dispatched."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func.name()).removeprefix("aten::").split(".")[0])
        return func(*args, **(kwargs or {}))

    def count(self, *names):
        return sum(self.names.count(name) for name in names)


def operations(work) -> Operations:
    work()  # what is made once (state of the optimizer) is not part of an iteration
    with Operations() as seen:
        work()
    return seen


def by_hand(step):
    """Output and gradients of every weight, from the formulas and no autograd."""
    weights = [parameter.detach() for parameter in step.parameters]
    outputs = [step.x]
    for weight in weights:
        outputs.append(1 / (1 + torch.exp(-(weight @ outputs[-1]))))
    gradients, above = [], step.gradient
    for weight, below, out in zip(reversed(weights), reversed(outputs[:-1]), reversed(outputs[1:]), strict=True):
        inner = above * out * (1 - out)
        gradients.insert(0, inner @ below.T)
        above = weight.T @ inner
    return outputs[-1], gradients


def test_forward_and_backward_compute_the_formulas():
    step = training_step()
    y, gradients = by_hand(step)
    torch.testing.assert_close(phase_work(step, "forward", "eager")(), y)
    for got, wanted in zip(phase_work(step, "backward", "eager")(), gradients, strict=True):
        torch.testing.assert_close(got, wanted)


def test_forward_is_n_products_and_keeps_what_backward_needs():
    step = training_step()
    seen = operations(phase_work(step, "forward", "eager"))
    assert seen.count("mm") == N
    assert seen.count("sigmoid") == N
    assert step.forward().requires_grad


def test_backward_is_the_products_of_the_closed_form_and_no_forward():
    seen = operations(phase_work(training_step(), "backward", "eager"))
    assert seen.count("sigmoid") == 0
    assert seen.count("sigmoid_backward") == N
    assert seen.count("mm") == 2 * (N - 1) + 1  # the input needs no gradient


def test_backward_can_be_repeated_and_gives_the_same_without_adding_up():
    step = training_step()
    work = phase_work(step, "backward", "eager")
    first = [gradient.clone() for gradient in work()]
    for _ in range(5):
        last = work()
    for a, b in zip(first, last, strict=True):
        assert torch.equal(a, b)
    assert all(parameter.grad is None for parameter in step.parameters)


def test_forward_backward_is_both():
    seen = operations(phase_work(training_step(), "forward_backward", "eager"))
    assert seen.count("mm") == N + 2 * (N - 1) + 1
    assert seen.count("sigmoid") == seen.count("sigmoid_backward") == N


def test_the_optimizer_step_has_no_product_and_leaves_the_weights():
    step = training_step()
    before = [parameter.detach().clone() for parameter in step.parameters]
    work = phase_work(step, "optimizer_step", "eager")
    seen = operations(work)
    assert seen.count("mm", "sigmoid", "sigmoid_backward") == 0
    assert seen.names  # it does something
    for _ in range(20):
        work()
    for parameter, weight in zip(step.parameters, before, strict=True):
        assert torch.equal(parameter, weight)
        state = step.optimizer.state[parameter]
        assert state["exp_avg"].abs().max() > 0  # real gradients went in
        assert int(state["step"]) == 22


def test_the_train_step_is_the_whole_and_leaves_gradients_and_the_weights():
    step = training_step()
    before = [parameter.detach().clone() for parameter in step.parameters]
    _, gradients = by_hand(step)
    work = phase_work(step, "train_step", "eager")
    seen = operations(work)
    assert seen.count("mm") == N + 2 * (N - 1) + 1
    assert seen.count("sigmoid") == N
    for parameter, weight, gradient in zip(step.parameters, before, gradients, strict=True):
        assert torch.equal(parameter, weight)
        torch.testing.assert_close(parameter.grad, gradient)


def test_the_tiny_rate_is_the_only_reason_why_weights_stay():
    step = training_step()
    for group in step.optimizer.param_groups:
        group["lr"] = 0.1
    before = [parameter.detach().clone() for parameter in step.parameters]
    phase_work(step, "train_step", "eager")()
    assert all(not torch.equal(p, w) for p, w in zip(step.parameters, before, strict=True))


def test_phases_do_not_disturb_one_another_on_one_step():
    alone = {phase: operations(phase_work(training_step(), phase, "eager")).names for phase in PHASES}
    shared = training_step()
    for phase in (*PHASES, *reversed(PHASES)):
        assert operations(phase_work(shared, phase, "eager")).names == alone[phase]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_thousand_train_steps_in_half_precision_give_ordinary_numbers(dtype):
    step = training_step(dtype=dtype)
    before = [parameter.detach().clone() for parameter in step.parameters]
    work = phase_work(step, "train_step", "eager")
    for _ in range(1000):
        work()
    for parameter, weight in zip(step.parameters, before, strict=True):
        assert torch.equal(parameter, weight)
        state = step.optimizer.state[parameter]
        for tensor in (parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"]):
            assert torch.isfinite(tensor).all()


@pytest.mark.parametrize(("precision", "least", "most"), [("bf16", 1e-4, 2e-2), ("fp16", 1e-5, 2e-3)])
def test_half_precision_is_computed_in_half_precision(precision, least, most):
    exact = BuiltPoint(spec(width=64), device="cpu", seed=0)
    half = BuiltPoint(spec(width=64, precision=precision), device="cpu", seed=0)
    y = half.phase("forward")()
    assert y.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    # The same numbers at a coarser grid: the generator draws other ones at another type, so compare on the same input.
    weights = [parameter.detach().float() for parameter in half._step.parameters]
    x = half._step.x.float()
    for weight in weights:
        x = torch.sigmoid(weight @ x)
    error = float((y.float() - x).abs().max().detach())
    assert least < error < most
    assert exact.phase("forward")().dtype == torch.float32


def test_the_seed_fixes_weights_input_and_gradient():
    first, same, other = (BuiltPoint(spec(), device="cpu", seed=seed)._step for seed in (5, 5, 6))
    for name in ("x", "gradient"):
        assert torch.equal(getattr(first, name), getattr(same, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters, same.parameters, strict=True))


def test_sigmoids_are_not_saturated_so_that_gradients_are_ordinary_numbers():
    workload = BuiltPoint(spec(n_layers=8, width=256, tokens=32), device="cpu", seed=0)
    gradients = workload.phase("backward")()
    assert all(float(gradient.abs().mean()) > 1e-6 for gradient in gradients)


def test_what_a_cpu_cannot_do_is_unsupported():
    with pytest.raises(Unsupported, match="tf32"):
        check_precision("tf32", "cpu")
    for precision in ("fp32", "bf16", "fp16"):
        check_precision(precision, "cpu")
    for phase in PHASES:
        with pytest.raises(Unsupported, match="needs a CUDA device"):
            phase_work(training_step(), phase, "graph")
    with pytest.raises(Unsupported, match="execution compile_graph needs a CUDA device"):
        phase_work(training_step("compile_graph"), "forward", "compile_graph")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs a C++ compiler (g++)")
def test_compiled_phases_equal_eager_ones_also_when_repeated():
    compiled, eager = training_step("compile"), training_step()
    torch.testing.assert_close(phase_work(compiled, "forward", "compile")(), phase_work(eager, "forward", "eager")())
    backward = phase_work(compiled, "backward", "compile")
    wanted = phase_work(eager, "backward", "eager")()
    for _ in range(3):
        for got, want in zip(backward(), wanted, strict=True):
            torch.testing.assert_close(got, want)


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(16, 16)

    def forward(self, x):
        return torch.nn.functional.gelu(self.inner(x))


class Stack(torch.nn.Module):
    """Equal layers with parts of their own between two that are not."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(8, 16), torch.nn.Linear(16, 4)
        self.layers = torch.nn.ModuleList(Block() for _ in range(layers))

    def forward(self, x):
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        return self.last(x)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs a C++ compiler (g++)")
def test_a_stack_of_equal_layers_is_compiled_once_and_computes_the_same():
    torch.manual_seed(0)
    stack, x = Stack(12), torch.randn(3, 8)
    copy = deepcopy(stack)
    compiled = TrainingStep(stack, x, torch.ones(3, 4), execution="compile")
    eager = TrainingStep(copy, x, torch.ones(3, 4), execution="eager")
    torch._dynamo.utils.counters.clear()
    for phase in ("forward", "backward"):
        got, want = phase_work(compiled, phase, "compile")(), phase_work(eager, phase, "eager")()
        torch.testing.assert_close(got, want)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    for phase in ("optimizer_step", "train_step"):
        phase_work(compiled, phase, "compile")()
    torchs_own = torch.nn.ModuleList(torch.nn.Sequential(torch.nn.Linear(2, 2)) for _ in range(3))
    assert repeated_layers(torchs_own) == []  # which torch would run as it is written, without a word
    assert repeated_layers(MLP().build(spec(), device="cpu", dtype=torch.float32, seed=0).module) == []


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs a C++ compiler (g++)")
def test_what_a_phase_prepares_once_is_not_compiled():
    class Once:
        prepared = steps = 0

        def prepare(self):
            if not self.prepared:
                assert not torch.compiler.is_compiling()
                self.prepared = 1

        def step(self):
            assert torch.compiler.is_compiling()
            return torch.ones(2) * 2

    once = Once()
    step = TrainingStep(Stack(2), torch.randn(3, 8), torch.ones(3, 4), execution="compile", others={"decode": once})
    work = phase_work(step, "decode", "compile")
    assert work().tolist() == work().tolist() == [2.0, 2.0]
    assert once.prepared == 1


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs a C++ compiler (g++)")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_compiled_optimizer_leaves_weights_without_a_gradient_as_they_are(dtype):
    step = training_step("compile", dtype)
    step.gradient.zero_()
    before = [parameter.detach().clone() for parameter in step.parameters]
    work = phase_work(step, "optimizer_step", "compile")
    for _ in range(5):
        work()
    assert all(torch.equal(parameter, weight) for parameter, weight in zip(step.parameters, before, strict=True))


def test_a_model_that_nobody_holds_is_gone_at_once():
    module = MLP().build(spec(), device="cpu", dtype=torch.float32, seed=0).module
    weights = [weakref.ref(weight) for weight in module.parameters()]
    del module
    assert [weight() for weight in weights] == [None] * N


def test_out_of_memory_is_known_by_all_its_names():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    ended = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    assert not is_out_of_memory(ended)
    ended.__context__ = RuntimeError("CUDA error: out of memory")
    assert is_out_of_memory(ended)


@pytest.mark.gpu
class TestOnAGpu:
    """What needs a GPU; the captured backward and train step are in `test_graphs.py`."""

    def workload(self, **fields) -> BuiltPoint:
        defaults = {"device_type": "GPU", "n_layers": 4, "width": 256, "tokens": 64}
        return BuiltPoint(spec(**{**defaults, **fields}), device="cuda:0", seed=0)

    @pytest.mark.parametrize("execution", ["graph", "compile", "compile_graph"])
    @pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
    def test_gradients_and_state_equal_eager(self, execution, precision):
        other, eager = self.workload(execution=execution, precision=precision), self.workload(precision=precision)
        for workload in (other, eager):
            work = workload.phase("train_step")
            for _ in range(3):
                work()
        torch.cuda.synchronize()
        tolerance = {"fp32": 1e-5, "tf32": 1e-3, "bf16": 3e-2, "fp16": 5e-3}[precision]
        for a, b in zip(other._step.parameters, eager._step.parameters, strict=True):
            assert torch.equal(a, b)
            scale = float(b.grad.abs().max())
            assert scale > 0
            torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=tolerance * scale)

    @pytest.mark.parametrize("phase", ["forward", "forward_backward"])
    def test_a_replayed_graph_writes_what_eager_returns(self, phase):
        work = self.workload(execution="graph").phase(phase)
        if phase == "forward":
            captured = work._kept
            with torch.no_grad():
                captured.zero_()
            work()
            torch.cuda.synchronize()
            torch.testing.assert_close(captured, self.workload().phase("forward")())
        else:
            for _ in range(100):
                work()
            torch.cuda.synchronize()

    def test_compile_backward_can_be_repeated(self):
        compiled, eager = self.workload(execution="compile").phase("backward"), self.workload().phase("backward")
        wanted = eager()
        for _ in range(3):
            for got, want in zip(compiled(), wanted, strict=True):
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)

    def test_precisions_really_differ_from_fp32(self):
        def product(precision):
            workload = self.workload(precision=precision, n_layers=1, width=1024, tokens=512)
            weight, x = workload._step.parameters[0].detach(), workload._step.x
            exact = weight.double() @ x.double()
            return float(((weight @ x).double() - exact).abs().max() / exact.abs().max())

        error = {precision: product(precision) for precision in ("fp32", "tf32", "bf16", "fp16")}
        assert error["fp32"] < 1e-5
        assert error["tf32"] > 20 * error["fp32"]
        assert error["bf16"] > 20 * error["fp32"]
        assert error["fp16"] > 20 * error["fp32"]
        assert product("fp32") < 1e-5  # the switch goes back after tf32

    def test_fp32_and_tf32_hold_for_convolutions_too(self):
        """For convolutions torch allows the shorter mantissa by default: fp32 was 17 % above the peak of fp32."""

        def error(precision):
            self.workload(precision=precision)
            torch.manual_seed(0)
            x, weight = (torch.randn(shape, device="cuda:0") for shape in ((32, 64, 32, 32), (64, 64, 3, 3)))
            exact = torch.nn.functional.conv2d(x.double(), weight.double(), padding=1)
            found = torch.nn.functional.conv2d(x, weight, padding=1).double()
            return float((found - exact).abs().max() / exact.abs().max())

        errors = [error(precision) for precision in ("fp32", "tf32", "fp32")]
        assert errors[0] < 1e-5
        assert errors[2] < 1e-5
        assert errors[1] > 20 * errors[0]

    @pytest.mark.parametrize("execution", ["eager", "graph"])
    def test_a_thousand_train_steps_in_fp16_give_ordinary_numbers(self, execution):
        workload = self.workload(execution=execution, precision="fp16")
        work = workload.phase("train_step")
        for _ in range(1000):
            work()
        torch.cuda.synchronize()
        for parameter in workload._step.parameters:
            assert torch.isfinite(parameter).all()
            assert torch.isfinite(parameter.grad).all()

    def test_running_out_of_memory_is_a_typed_row_and_the_next_point_is_measured(self):
        from flopray.measurement.device import Device
        from flopray.measurement.profiler import Profiler
        from flopray.records import Status
        from flopray.settings import MeasureSettings

        settings = MeasureSettings(phases=("forward",), instruments=("time",), max_seconds=0.3, sentinel_every_s=0)
        profiler = Profiler(Device("GPU"), settings).open()
        huge = spec(device_type="GPU", n_layers=64, width=2**16, tokens=16)  # 64 x 16 GiB of weights
        assert [row.status for row in profiler.measure_point(huge)] == [Status.OUT_OF_MEMORY]
        small = spec(device_type="GPU", width=256)
        (row,) = profiler.measure_point(small)
        assert row.status == Status.OK
        assert row.memory_peak_bytes < 2**30
        profiler.close()


_WITHOUT_COMPILER = """
import sys
from flopray.workloads.phases import BuiltPoint, imported_by_optimizers
from flopray.workloads.registry import make_point

point = make_point(workload="mlp", device_type="CPU", execution="eager", n_layers=1, width=8, tokens=4)
built = BuiltPoint(point, device="cpu", seed=0)
for phase in ("inference", "forward", "backward"):
    built.phase(phase)()
before = "torch._dynamo" in sys.modules
built.phase("train_step")()
print(before, imported_by_optimizers(["forward", "train_step"]) in sys.modules)
"""


@pytest.mark.slow
def test_torchs_compiler_is_imported_by_the_first_optimizer_and_not_before():
    # It takes seconds, which a process that measures spends while it wakes the device.
    told = subprocess.run([sys.executable, "-c", _WITHOUT_COMPILER], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "True"]
    assert imported_by_optimizers(["inference", "forward", "backward"]) is None
