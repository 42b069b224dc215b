"""A step is what a call runs: a call that only makes an object, a generator or a coroutine does no work."""

import functools

import pytest
import torch

import flopray
from flopray.errors import InputError

QUICK = {"max_seconds": 0.02, "device": "cpu"}
layer = torch.nn.Linear(4, 4)
x = torch.ones(2, 4)


class Trainer:
    def __call__(self, batch):
        return layer(batch)

    def step(self, batch, *, scale):
        return layer(batch) * scale


def batches():
    yield layer(x)


async def coroutine():
    layer(x)


async def agenerator():
    yield layer(x)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (layer, "step must be a callable without arguments, and this one needs the argument input: "),
        (torch.compile(layer), "needs the argument input: "),
        (Trainer(), "needs the argument batch: give it with its arguments, as lambda: f(batch)"),
        (Trainer().step, "needs the arguments batch, scale: "),
        (functools.partial(Trainer().step, x), "needs the argument scale: "),
        (Trainer, "step is the class Trainer: a call makes an object; give a function that runs it"),
        (batches, "step is a generator function: a call runs nothing; "),
        (functools.partial(batches), "step is a generator function"),
        (lambda: batches(), "the step returned a generator, which nobody has run: "),
        (coroutine, "step is a coroutine function: a call runs nothing; "),
        (lambda: coroutine(), "the step returned a coroutine, which nobody has run: "),
        (agenerator, "step is a generator function"),
        (lambda: agenerator(), "the step returned a generator"),
        (batches(), "step must be a callable, got generator"),
        (torch.optim.SGD(layer.parameters()), "got SGD: give its step method, as step=adam.step"),
    ],
)
@pytest.mark.parametrize("instruments", ["time", ("time", "flops")])
def test_what_a_call_does_not_run_is_refused_in_one_line(step, words, instruments, recwarn):
    with pytest.raises(InputError) as error:
        flopray.measure(step, instruments=instruments, **QUICK)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not [w for w in recwarn if "never awaited" in str(w.message)]


def test_a_phase_is_refused_by_its_name():
    loss = {"backward": lambda loss: loss.backward(retain_graph=True)}
    with pytest.raises(InputError, match="forward must be a callable without arguments, and this one needs the argum"):
        flopray.measure(forward=layer, **loss, **QUICK)
    with pytest.raises(InputError, match=r"optimizer must be .* got SGD: give its step method, as optimizer=adam.step"):
        flopray.measure(forward=lambda: layer(x).sum(), **loss, optimizer=torch.optim.SGD(layer.parameters()), **QUICK)
    with pytest.raises(InputError, match="backward is a generator function"):
        flopray.measure(forward=lambda: layer(x).sum(), backward=batches, **QUICK)


@pytest.mark.parametrize(
    "step",
    [
        functools.partial(layer, x),
        functools.partial(Trainer().step, x, scale=2),
        iter(lambda: layer(x), None).__next__,
    ],
)
def test_a_callable_with_its_arguments_is_measured(step):
    assert flopray.measure(step, instruments="flops", **QUICK).flops.dispatched_flops == 2 * 2 * 4 * 4


@pytest.mark.slow
def test_a_counted_function_that_returns_no_step_is_refused():
    with pytest.raises(InputError, match="needs the argument input"):
        flopray.count(lambda: layer, executed=False)
    with pytest.raises(InputError, match="is the class Trainer"):
        flopray.count(lambda: Trainer, executed=False)
