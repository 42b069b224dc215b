"""What is known of the power of an open device: its meter, idle powers, temperature and the factor of its board."""

from __future__ import annotations

import time

from flopray.energy.estimator import PowerEstimate
from flopray.energy.idle import idle_power
from flopray.energy.meter import Meter
from flopray.energy.thermal import BoardTemperature, Condition
from flopray.errors import MeasurementError, NoEnergySource
from flopray.measurement.board_calibration import known_factor
from flopray.measurement.device import Device
from flopray.measurement.phase import NOT_REQUESTED
from flopray.measurement.result import Energy
from flopray.measurement.start_up import StartUp
from flopray.records import Row, Status
from flopray.settings import MeasureSettings

_IDLE_SECONDS = 1.0
_AWAKE_IDLE_SECONDS = 0.6
#: The counter shows a load for this long after its end.
_AFTER_LOAD_S = 0.15
_IDLE_CLOCKS_CAP_S = 10.0
#: Reason for the missing energy of a phase that failed.
_NOT_MEASURED = Energy(str(Status.FAILED), "the phase was not measured, see its status")


class DevicePower:
    """Owns the meter of a device, and keeps what it measures besides the points.

    Args:
        device: the device, whole.
        settings: whether energy is asked for, and whether the board is to be calibrated.
        columns: of the device.

    Attributes:
        meter: None before `open`, after `close`, and where there is no energy.
        without: why a phase without energy has none; "not requested" where the device has energy.
        board: how the power of a GPU follows its temperature; None on a CPU.
        idle_power_w: of this process, which holds its CUDA context, while it does nothing.
        awake_idle_power_w: the same between points, clocks still up.
        tick_period_s: of the meter's counter.
        factor: columns of the board's factor.
        factor_reason: why a calibration that was asked for gave no factor; None where it gave one.
    """

    def __init__(self, device: Device, settings: MeasureSettings, columns: Row) -> None:
        self._device, self._settings = device, settings
        self._highest_hz = columns.get("max_sm_clock_hz")
        self.meter: Meter | None = None
        self.without = NOT_REQUESTED
        self.board: BoardTemperature | None = None
        if device.is_cuda:
            self.board = BoardTemperature(columns.get("device_name"), columns.get("power_limit_w"))
        self.idle_power_w: float | None = None
        self.awake_idle_power_w: float | None = None
        self.tick_period_s: float | None = None
        self.factor: dict[str, float | None] = {}
        self.factor_reason: str | None = None

    def open(self, start_up: StartUp) -> None:
        """Take the meter, wait until the device is idle, measure its idle power, and find the factor of the board.

        Args:
            start_up: where the seconds of these parts are noted.

        Raises:
            MeterError: the GPU is lost.
        """
        self._open_meter()
        start_up.mark("meter")
        self._wait_for_idle_clocks()
        start_up.mark("idle clocks")
        self.idle_power_w = _power_of(self._idle(_IDLE_SECONDS))
        start_up.mark("idle power")
        self._find_factor()
        start_up.mark("board factor")

    def close(self) -> None:
        """Close the meter; a second call does nothing."""
        if self.meter:
            self.meter.close()
            self.meter = None

    def measure_awake_idle(self) -> None:
        """Measure idle power with the clocks still up; the board learns from it."""
        time.sleep(_AFTER_LOAD_S)
        idle = self._idle(_AWAKE_IDLE_SECONDS)
        self.awake_idle_power_w = _power_of(idle)
        if idle is not None and self.board is not None:
            self.board.learn("awake idle", Condition(idle.temperature_c, idle.power_w, idle.power_rel_error))

    def energy_without(self, *, failed: bool) -> Energy:
        """Why a phase that was not measured has no energy.

        Args:
            failed: the phase failed; it would have had energy.
        """
        asked = self.without is NOT_REQUESTED and self.meter is not None
        return _NOT_MEASURED if failed and asked else self.without

    def _open_meter(self) -> None:
        if "energy" not in self._settings.instruments:
            return
        try:
            self.meter = self._device.open_meter()
        except NoEnergySource as error:
            self.without = Energy(str(Status.NO_ENERGY_SOURCE), str(error))

    def _idle(self, seconds: float) -> PowerEstimate | None:
        """Power of this process, which holds its CUDA context, while it does nothing; None without a meter.

        The first call also learns the counter's tick period.
        """
        if self.meter is None:
            return None
        try:
            idle = idle_power(self.meter, seconds)
        except MeasurementError:
            return None  # the rows of the points say what is wrong with the meter
        self.tick_period_s = idle.tick_period_s
        return idle

    def _wait_for_idle_clocks(self) -> None:
        """Wait before idle power is measured: after another actor the clocks are high. Some boards keep them high."""
        until = time.monotonic() + _IDLE_CLOCKS_CAP_S
        while self.meter and self._highest_hz and time.monotonic() < until:
            state = self._device.state()
            if state is None or state.sm_clock_hz is None or state.sm_clock_hz < self._highest_hz / 2:
                return
            time.sleep(0.5)

    def _find_factor(self) -> None:
        """The factor of this board, from a stored calibration or, where that was asked for, from a new one."""
        if self.board is None or self.meter is None:
            return
        found = known_factor(self._device, self.meter, self._settings, self.board)
        self.factor = {"board_factor": found.factor, "board_factor_rel_error": found.work_rel_error}
        self.factor_reason = found.reason if self._settings.calibrate else None
        self._device.release()


def _power_of(idle: PowerEstimate | None) -> float | None:
    return None if idle is None else idle.power_w
