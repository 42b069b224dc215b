"""The profiler that replays rows."""

from __future__ import annotations

import time

from flopray.records import PhaseRecord
from flopray.testing.replay import Replay
from flopray.workloads.registry import make_point


def test_a_point_gets_the_measured_rows_under_its_own_specification():
    first, second = (make_point("mlp", n_layers=2, width=width, tokens=8) for width in (16, 32))
    rows = [
        PhaseRecord.of(**first.fields(), run="r", trial_id=first.id, phase=phase, time_s=1.0).columns()
        for phase in ("forward", "backward")
    ]
    begin_s = time.time()
    records = Replay(rows, point_s=0.01).measure_point(second, order_index=3, attempt=2)
    assert [record.phase for record in records] == ["forward", "backward"]
    for record in records:
        assert (record.trial_id, record.width, record.order_index, record.attempt) == (second.id, 32, 3, 2)
        assert record.time_s == 1.0
        assert begin_s <= record.started_unix_s <= record.ended_unix_s


def test_a_subclass_can_misbehave_at_a_point():
    class Failing(Replay):
        def act(self, spec):
            return {"status": "failed", "status_reason": spec.label()}

    point = make_point("mlp", n_layers=2, width=16, tokens=8)
    row = PhaseRecord.of(**point.fields(), run="r", trial_id=point.id, phase="forward").columns()
    (record,) = Failing([row]).measure_point(point, order_index=None, attempt=1)
    assert (record.status, record.status_reason) == ("failed", "n=2 d=16 m=8 fp32 eager")
