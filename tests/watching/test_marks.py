"""Marks from events that nobody waits for, on a simulated device with a known clock and queue."""

import numpy as np
import pytest

from flopray.watching.marks import EventMarks, HostMarks


class Device:
    """A stream: work queues up, events pass when the work before them is done. Its clock starts at another time."""

    def __init__(self, monkeypatch, epoch_s=1e4, drift=0.0):
        self.host_s, self.done_s, self.epoch_s, self.drift = 50.0, 50.0, epoch_s, drift
        monkeypatch.setattr("flopray.watching.marks.time.perf_counter", lambda: self.host_s)

    def launch(self, host_s, device_s):
        self.host_s += host_s
        self.done_s = max(self.done_s, self.host_s) + device_s

    def record(self, event):
        event = event or Event(self)
        event.passes_s = max(self.done_s, self.host_s)
        self.host_s += 2e-6
        return event


class Event:
    def __init__(self, device):
        self.device, self.passes_s = device, 0.0

    def query(self):
        return self.device.host_s >= self.passes_s

    def synchronize(self):
        self.device.host_s = max(self.device.host_s, self.passes_s)

    def elapsed_time(self, later):
        return np.float32((later.passes_s - self.passes_s) * (1 + self.device.drift) * 1e3)


@pytest.mark.parametrize(
    ("launch_s", "work_s", "drift"), [(0.012, 0.010, 0.0), (0.001, 0.010, 1e-5), (0.01, 0.01, 0.0)]
)
def test_marks_are_where_the_device_was_without_a_wait(monkeypatch, launch_s, work_s, drift):
    """A device that waits for launches, and one that is behind them, by at most 50 steps as a queue allows."""
    device = Device(monkeypatch, drift=drift)
    marks, truth_s = EventMarks(device.record), []
    rng = np.random.default_rng(0)
    for _ in range(5000):
        device.launch(launch_s * rng.uniform(0.8, 1.2), work_s * rng.uniform(0.8, 1.2))
        device.host_s = max(device.host_s, device.done_s - 50 * work_s)
        truth_s.append(max(device.done_s, device.host_s))
        marks.mark()
    known = marks.times_s()
    assert len(known) >= len(truth_s) - 60
    marks.finish()
    times_s = marks.times_s()
    assert len(times_s) == len(truth_s)
    off_s = times_s - truth_s
    assert np.max(np.abs(off_s)) < 0.005  # a twentieth of a tick
    np.testing.assert_allclose(np.diff(times_s).mean(), np.diff(truth_s).mean(), rtol=2e-5)


def test_events_are_used_again(monkeypatch):
    device = Device(monkeypatch)
    made = []

    def record(event):
        if event is None:
            made.append(1)
        return device.record(event)

    marks = EventMarks(record)
    for _ in range(1000):
        device.launch(0.01, 0.001)
        marks.mark()
    assert len(made) < 10


def test_host_marks_are_known_at_once():
    marks = HostMarks()
    marks.mark()
    marks.mark()
    first_s, second_s = marks.times_s()
    assert second_s >= first_s


def test_no_mark_has_no_time():
    assert len(EventMarks(lambda event: event).times_s()) == 0
