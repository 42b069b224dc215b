"""An operation is counted at the first of equal ones, and only if it succeeded."""

from contextlib import contextmanager

import pytest
import torch

from flopray.measurement.counting.walk import Operations, Walk


def walk(operations, ranges, precision="fp32"):
    @contextmanager
    def within(number):
        ranges.append(number)
        yield

    return Walk(operations, precision, within)


def test_equal_operations_share_a_number_and_others_do_not():
    operations, ranges = Operations(), []
    a, b = torch.ones(4, 4), torch.ones(4, 8)
    with walk(operations, ranges) as first:
        for _ in range(3):
            a @ b
        a.t() @ b
    products = [n for n, name in enumerate(operations.names) if name.startswith("aten.mm")]
    assert [first.counts[n] for n in products] == [3, 1]  # other strides are another operation
    with walk(operations, ranges, "tf32"):
        a @ b
    assert len([name for name in operations.names if name.startswith("aten.mm")]) == 3
    assert ranges == list(range(len(operations.names)))


def test_an_operation_that_failed_is_counted_when_it_succeeds():
    operations, ranges = Operations(), []

    class Full:
        left = True

    @contextmanager
    def within(number):
        ranges.append(number)
        if Full.left:
            Full.left = False
            raise torch.OutOfMemoryError("CUDA out of memory.")
        yield

    a = torch.ones(4, 4)
    with pytest.raises(torch.OutOfMemoryError), Walk(operations, "fp32", within):
        a @ a
    with Walk(operations, "fp32", within) as again:
        a @ a
        a @ a
    assert ranges == [0, 1]
    assert again.counts == {1: 2}
