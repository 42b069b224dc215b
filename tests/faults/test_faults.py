"""A few rounds of the campaign of `bench/faults.py`, one fault each."""

import pytest
from catalogue import KINDS
from rounds import play

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.mark.parametrize("kind", ["journal-torn", "actor-sigkill", "recorder-sigkill"])
def test_nothing_is_lost_doubled_or_left_untold(lane, kind):
    outcome = play(KINDS[kind], lane, seed=1)
    assert (outcome.lost, outcome.duplicates, outcome.hangs, outcome.wrong) == ([], [], [], []), outcome.log[-3000:]
    assert outcome.finished_before > 0 or "start-up" in outcome.conditions
