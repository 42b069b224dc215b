"""What a person sees of a running sweep: true counts, a rate, an ETA, and whole lines in a pipe."""

import io

import pytest
from rich.console import Console

from flopray.monitoring.progress import Progress
from flopray.records import PhaseRecord, Status


@pytest.fixture
def now(monkeypatch):
    clock = {"s": 100.0}
    monkeypatch.setattr("flopray.monitoring.progress.time.monotonic", lambda: clock["s"])
    return clock


def console(terminal=False, width=60) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, markup=False)


def text(of: Console) -> str:
    return of.file.getvalue()


def point(*statuses, window_s=0.5, wall_s=2.0):
    return [
        PhaseRecord.of(trial_id="0" * 16, phase=str(i), status=status, window_s=window_s, device_wall_s=wall_s)
        for i, status in enumerate(statuses)
    ]


OK = (Status.OK, Status.OK)


def test_points_are_counted_with_those_of_earlier_sessions(now):
    progress = Progress(console(), total=10, finished=3)
    assert progress.line() == "3/10 points"
    progress.update([point(*OK), point(*OK)], {})
    assert progress.line().startswith("5/10 points")
    assert progress.done == 2


def test_rate_and_eta_are_of_this_session_from_its_first_point_on(now):
    progress = Progress(console(), total=12, finished=2)
    now["s"] += 60  # Ray starts; that says nothing about the rate
    assert progress.eta_s is None
    progress.update([], {"a": "n=1"})
    now["s"] += 20
    progress.update([point(*OK)] * 4, {})
    assert progress.eta_s == pytest.approx(6 * 5.0)
    assert "0.20 points/s" in progress.line()
    assert "ETA 0:30" in progress.line()


@pytest.mark.parametrize(("seconds", "shown"), [(9, "ETA 0:09"), (75, "ETA 1:15"), (3600, "ETA 1:00:00")])
def test_the_eta_is_a_clock(now, seconds, shown):
    progress = Progress(console(), total=2)
    progress.update([], {"a": "n=1"})
    now["s"] += seconds
    progress.update([point(*OK)], {})
    assert shown in progress.line()


def test_a_finished_sweep_has_no_eta(now):
    progress = Progress(console(), total=1)
    now["s"] += 1
    progress.update([point(*OK)], {})
    assert "1/1 point" in progress.line()
    assert "ETA" not in progress.line()


def test_a_point_counts_as_its_worst_phase(now):
    progress = Progress(console(), total=9)
    progress.update(
        [
            point(Status.OK, Status.FAILED, Status.UNSUPPORTED),
            point(Status.OK, Status.UNSUPPORTED),
            point(Status.OUT_OF_MEMORY, Status.OK),
            point(*OK),
        ],
        {},
    )
    assert progress.done == 4
    assert sum(progress.problems.values()) == 3
    assert progress.problems[Status.FAILED] == 1
    assert all(f"1 {kind}" in progress.line() for kind in ("failed", "unsupported", "out_of_memory"))


def test_the_measured_fraction_is_windows_over_device_time(now):
    progress = Progress(console(), total=9)
    assert progress.measured_fraction is None
    progress.update([point(*OK, window_s=0.5, wall_s=2.0), point(*OK, window_s=0.5, wall_s=3.0)], {})
    assert progress.measured_fraction == pytest.approx(2.0 / 5.0)
    assert "40% of device time measured" in progress.line()


def test_a_point_that_was_not_measured_does_not_break_the_fraction(now):
    progress = Progress(console(), total=2)
    progress.update([point(Status.FAILED, window_s=None, wall_s=None)], {})
    assert progress.measured_fraction is None


def test_in_a_pipe_a_plain_line_every_few_seconds(now):
    pipe = console()
    progress = Progress(pipe, total=100)
    for _ in range(60):
        now["s"] += 0.25
        progress.update([point(*OK)], {"CPU@1": "n=2 d=16 m=8 fp32 eager"})
    lines = text(pipe).splitlines()
    assert 2 <= len(lines) <= 4  # fifteen seconds
    assert "\x1b" not in text(pipe)
    assert all("points" in line and "now n=2 d=16 m=8 fp32 eager" in line for line in lines)


def test_lines_in_a_pipe_are_never_wrapped(now):
    pipe = console(width=20)
    with Progress(pipe, total=100) as progress:
        progress.notice("no energy on CPU: " + "because " * 20)
        progress.update([point(*OK)], {"CPU@1": "n=2 d=16 m=8 fp32 eager"})
    assert len(text(pipe).splitlines()) == 3


def test_text_in_brackets_is_text(now):
    pipe = console()
    Progress(pipe, total=1).notice("folder [/tmp] and [bold]")
    assert "folder [/tmp] and [bold]" in text(pipe)


def test_the_last_state_stays(now):
    pipe = console()
    with Progress(pipe, total=3) as progress:
        now["s"] += 1
        progress.update([point(*OK)] * 3, {})
    assert text(pipe).splitlines()[-1].startswith("3/3 points")


def test_the_last_state_stays_also_after_an_interrupt(now):
    pipe = console()
    progress = Progress(pipe, total=3)
    progress.update([point(*OK)], {})
    with pytest.raises(KeyboardInterrupt), progress:
        raise KeyboardInterrupt
    assert text(pipe).splitlines()[-1].startswith("1/3 points")


def test_a_terminal_sees_what_each_actor_does(now):
    terminal = console(terminal=True, width=120)
    with Progress(terminal, total=3) as progress:
        progress.update([point(*OK)], {"H100@a:1": "n=8 d=1024", "H100@b:2": "n=4 d=512"})
        progress._live.refresh()
    shown = text(terminal)
    assert "1/3 points" in shown
    assert "n=8 d=1024" in shown
    assert "n=4 d=512" in shown
