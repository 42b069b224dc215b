"""A running watch: what the loop says to it, and what is known so far."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flopray.energy.meter import Meter
from flopray.energy.nvml import list_gpus
from flopray.errors import FloprayError, MeasurementError, check_path, one_line
from flopray.watching.devices import gpu_uuid, used_gpus
from flopray.watching.marks import EventMarks, HostMarks, Marks, cuda_marks
from flopray.watching.recording import Recorder, record_cpu, record_gpu, record_meter
from flopray.watching.series import Series, checked_folder, save_series, series_of
from flopray.watching.step_energy import StepEnergy
from flopray.watching.summary import Summary, step_energy, step_time, summarise
from flopray.watching.timeline import BEGIN, EDGE, END, GIVE_UP, INTERRUPT, RESUME, Region, TimelineBuilder

if TYPE_CHECKING:
    import pandas as pd

#: Ticks that `Watch.window` uses at most: a fit of more would hold up the loop for longer.
WINDOW_TICKS = 100


class Watch:
    """A running watch; see `watch`. One thread makes its steps and regions."""

    def __init__(
        self,
        named: Sequence[str] | None,
        every_s: float,
        cpu: bool,
        leave_out: int,
        meter: Meter | None,
        save: Path | None,
    ) -> None:
        self._named, self._leave_out, self._save, self._meter = named, leave_out, save, meter
        self.started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._origin_s = self._end_s = time.perf_counter()
        self._builder, self._marks = TimelineBuilder(), None
        self._in_step = self._interrupting = self._stopped = False
        self._steps = self._handles = 0
        self._open: dict[int, tuple[str, int]] = {}
        self._earlier: list[Region] = []
        self._context = _Step(self)
        recordings = [record_gpu(uuid) for uuid in named or ()]
        recordings += [record_meter(meter)] if meter is not None else []
        recordings += [record_cpu()] if cpu else []
        find = used_gpus if named is None and meter is None else None
        self._recorder = Recorder(recordings, every_s, find)

    # --- what the loop says -------------------------------------------------------------------------------------

    def step(self) -> _Step:
        """A block that is one step: `with w.step():`. A block that raises does not count.

        The pause up to the next block belongs to the step if most steps have one like it, such as waiting for data: no
        counter can tell it apart. `Summary.time.pause_share` says how much of the time that is.
        """
        return self._context

    def steps(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The same batches; the time from one to the next is a step, waiting for the next one included.

        A region inside is not part of the step: `with w.region("eval"):`.
        """
        try:
            for batch in batches:
                self.next_step()
                yield batch
            if self._in_step:
                self.end_step()
        finally:
            self.give_up_step()
            self._interrupting = False

    def begin_step(self) -> None:
        """A step begins here; for callbacks of other libraries, which have no block.

        Raises:
            RuntimeError: one has begun and has not ended.
        """
        self._check_runs()
        if self._in_step:
            raise RuntimeError("a step has begun and has not ended: steps do not lie inside each other")
        if self._marks is None or (self._steps < 2 and isinstance(self._marks, HostMarks)):
            self._choose_marks()
        self._in_step = True
        self._mark(BEGIN)

    def end_step(self) -> None:
        """The step ends here.

        Raises:
            RuntimeError: none has begun.
        """
        if not self._in_step:
            raise RuntimeError("no step has begun")
        self._in_step = False
        self._steps += 1
        self._mark(END)

    def next_step(self) -> None:
        """The step that has begun, if one has, ends here, and the next one begins; regions interrupt it."""
        self._interrupting = True
        if self._in_step:
            self.end_step()
        self.begin_step()

    def give_up_step(self) -> None:
        """The step that has begun, if one has, is dropped."""
        if self._in_step:
            self._in_step = False
            self._mark(GIVE_UP)

    @contextmanager
    def region(self, name: str) -> Iterator[None]:
        """A block with a name, such as `eval`; in a step of `steps` it interrupts the step."""
        region = self.open_region(name, interrupts=self._interrupting)
        try:
            yield
        finally:
            self.close_region(region)

    def open_region(self, name: str, *, interrupts: bool) -> tuple[int, bool]:
        """A region begins here; for callbacks, which have no block. What it returns is for `close_region`.

        Args:
            name: of the region.
            interrupts: a step that has begun stands still until the region ends; else the region is part of it.
        """
        self._check_runs()
        interrupts = interrupts and self._in_step
        if self._marks is None:
            self._choose_marks()
        self._handles += 1
        said = one_line(str(name))  # else the files could not be written when the loop has ended
        self._open[self._handles] = (said, self._builder.begin_region(said))
        self._mark(INTERRUPT if interrupts else EDGE)
        # A region inside this one is in no step.
        self._in_step = self._in_step and not interrupts
        return self._handles, interrupts

    def close_region(self, region: tuple[int, bool]) -> None:
        """A region ends here."""
        handle, interrupts = region
        self._builder.end_region(self._open.pop(handle)[1])
        self._in_step = self._in_step or interrupts
        self._mark(RESUME if interrupts else EDGE)

    def _check_runs(self) -> None:
        if self._stopped:
            raise RuntimeError("this watch has ended: each one watches once, so begin another with flopray.watch()")

    def _mark(self, code: int) -> None:
        if self._stopped:
            return  # a block that outlives its watch
        assert self._marks is not None  # every way to here chooses them first
        self._marks.mark()
        self._builder.add(code)

    def _choose_marks(self) -> None:
        """CUDA events if torch uses a GPU by now; a loop whose first step moved it there begins again."""
        torch = sys.modules.get("torch")
        marks: Marks = HostMarks()
        if torch is not None and torch.cuda.is_initialized():
            used, current = used_gpus(), torch.cuda.current_device()
            index = _index_of(self._named if self._named is not None else used, current)
            if index is not None:
                marks = cuda_marks(index)
        if self._marks is None or isinstance(marks, EventMarks):
            self._earlier += self._builder.regions(self._times_s())
            self._marks, self._builder, self._steps = marks, TimelineBuilder(), 0
            self._open = {h: (name, self._builder.begin_region(name)) for h, (name, _) in self._open.items()}
            self._recorder.look()

    # --- what is known ------------------------------------------------------------------------------------------

    def stop(self) -> Watch:
        """Ends the watch: waits for the last event, ends the threads, saves where that was asked for."""
        if self._stopped:
            return self
        self.give_up_step()
        self._stopped = True
        if self._marks is not None:
            self._marks.finish()
        self._recorder.stop()
        self._end_s = time.perf_counter()
        if self._save is not None:
            self.save(self._save)
        return self

    def __enter__(self) -> Watch:
        self._check_runs()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        """The summary so far, as a notebook shows it."""
        return repr(self.summary())

    def summary(self) -> Summary:
        """The summary so far; also while the loop runs."""
        self._look()
        times_s = self._times_s()
        return summarise(
            self._recorder.recordings,
            self._builder.timeline(times_s),
            self._regions(times_s),
            time_s=(self._end_s if self._stopped else time.perf_counter()) - self._origin_s,
            clock=self._marks.clock if self._marks else HostMarks.clock,
            left_out=self._leave_out,
            no_gpu=_why_no_gpu(),
            warnings=[self._recorder.failure] if self._recorder.failure else [],
        )

    def window(
        self, first_step: int, least_s: float = 0.0
    ) -> tuple[float | None, dict[str, StepEnergy], dict[str, str]]:
        """Ended steps from a number on, for loggers: faster than `summary`, and without regions.

        Args:
            first_step: number of the first one, from 0.
            least_s: earlier steps are included until the window is this long, except those that are left out.

        Returns:
            The mean time of a step in seconds (None without a step), energy of a step by the UUID of each GPU (by `CPU`
            where there is none), and the reasons of devices that have none.
        """
        if not self._stopped:
            self._recorder.take()
        times_s = self._times_s()
        timeline = self._builder.timeline(times_s)
        if timeline.steps:
            early = int(np.searchsorted(timeline.step_starts_s, timeline.end_s[-1] - least_s))
            timeline = timeline.since(max(self._leave_out, min(first_step, early)))
            timeline = timeline.with_pauses(self._regions(times_s))
        recordings = self._recorder.recordings
        gpus = [recording for recording in recordings if recording.device.kind == "GPU"]
        energies: dict[str, StepEnergy] = {}
        reasons: dict[str, str] = {} if recordings else {"GPU": _why_no_gpu()}
        for recording in gpus or recordings:
            try:
                energies[recording.device.uuid] = step_energy(recording, timeline, WINDOW_TICKS)
            except MeasurementError as error:
                reasons[recording.device.uuid] = str(error)
        time_s = step_time(timeline, "").time_s if timeline.steps else None
        return time_s, energies, reasons

    @property
    def step_count(self) -> int:
        """Steps that have ended, for the host; the device may not have finished them."""
        return self._steps

    @property
    def frame(self) -> pd.DataFrame:
        """The samples: a row a sample and device, with energy, power, temperature, clocks, memory, step and region."""
        return self.series().samples

    def series(self) -> Series:
        """All tables: samples, ticks, steps and regions."""
        summary, times_s = self.summary(), self._times_s()
        return series_of(
            self._recorder.recordings,
            self._builder.timeline(times_s),
            self._regions(times_s),
            self._origin_s,
            {"started_at": self.started_at, "origin_s": self._origin_s, "summary": summary.to_dict()},
        )

    def save(self, folder: str | Path) -> Path:
        """Write the tables as Parquet and the summary as JSON into a folder; `flopray.watching.series` says which.

        Raises:
            InputError: it cannot be written, or holds another watch.
        """
        return save_series(self.series(), checked_folder(folder))

    def plot(self, stem: str | Path, *, formats: Sequence[str] = ("png",), html: bool | None = None) -> list[Path]:
        """Draw power, temperature, clock, memory and the time of steps over time, with the regions as bands.

        Args:
            stem: path of the figure; its ending may be left out. One of an image is that image's.
            formats: of images.
            html: also an interactive page; by default where plotly is installed.

        Returns:
            The files that were written.

        Raises:
            InputError: nothing to draw, an unknown format, or `html` without plotly.
        """
        from flopray.report.plot.figures import IMAGE_FORMATS
        from flopray.report.series.figure import draw_series

        check_path("stem", stem)
        stem, series = Path(stem), self.series()
        ending = stem.suffix.lower().lstrip(".")
        if ending in IMAGE_FORMATS:
            formats = list(dict.fromkeys([*(formats if formats != ("png",) else ()), ending]))
        if ending in (*IMAGE_FORMATS, "html"):
            stem = stem.with_suffix("")
        return draw_series(series.samples, series.regions, stem, steps=series.steps, formats=formats, html=html)

    def _look(self) -> None:
        if not self._stopped:
            self._recorder.look()

    def _regions(self, times_s: np.ndarray) -> list[Region]:
        return self._earlier + self._builder.regions(times_s)

    def _times_s(self) -> np.ndarray:
        return self._marks.times_s() if self._marks else np.zeros(0)


class _Step:
    """The block of a step; one for all steps, since each would cost the loop an object."""

    __slots__ = ("_watch",)

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __enter__(self) -> None:
        self._watch.begin_step()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._watch.end_step()
        else:
            self._watch.give_up_step()


def _index_of(uuids: Sequence[str], current: int) -> int | None:
    """Torch's index of the GPU whose stream is marked: the current one if it is watched, else the first that is."""
    if gpu_uuid(current) in uuids:
        return current
    torch = sys.modules["torch"]
    return next((index for index in range(torch.cuda.device_count()) if gpu_uuid(index) in uuids), None)


def _why_no_gpu() -> str:
    """Why this process has no GPU to watch, as far as NVML knows."""
    try:
        count = len(list_gpus())
    except FloprayError as error:
        return str(error)
    return "there is no GPU" if not count else "torch holds no memory on a GPU in this process: name devices"
