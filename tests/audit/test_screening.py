"""Screening a table by its columns gives the findings of the rules, row by row."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from flopray.audit import audit_rows, table
from flopray.audit.screening import _NUMBERS, alike
from tests.audit.test_audit import GOOD

#: A row whose derived columns follow from its parts, with everything that a rule compares.
FULL = GOOD | {
    "flops_per_s": 5e13,
    "flops_per_j": 50e9 / 0.6,
    "mfu": 5e13 / 67e12,
    "energy_per_token_j": 0.6 / 128,
    "tokens_per_iteration": 128,
    "active_energy_j": 0.53,
    "executed_flops": 51e9,
    "executed_tensor_flops": 50e9,
    "executed_cuda_flops": 1e9,
    "gemm_flops": 50_000_000_000,
    "executed_gemm_flops": 50e9,
    "executed_elementwise_flops": 1e9,  # so that the classes are the whole
    "hfu": 5e13 / 67e12,
    "executed_other_rel": 0.0,
    "energy_status": "ok",
    "time_converged": "True",
}
_ODD = st.sampled_from(
    (
        *(None, math.nan, math.inf, -math.inf, True, False, "", "n/a", "1.5", "1e-3", "many", [1], 10**400, -(10**400)),
        *(-1, -0.5, 0, 0.0, -0.0, 1, 5e-324, 1e-200, 1e300, 2**63, np.float64(0.4), np.int64(3), np.float32(0.01)),
    )
)
#: Near the bounds of the rules, from both sides.
_FACTOR = st.sampled_from(
    [1.0, 0.95, 1.05, 1 / 0.95, 1.05 * (1 + 1e-15), 0.5, 1.1, 1.34, 2.0, 20.0, 1e3, 1e-3, -1.0, 1 + 1e-15]
)
_WORDS = {
    "device_name": [None, "", "NVIDIA H100 80GB HBM3", " a100 ", "Some CPU", 7, math.nan, "V100-SXM2-16GB"],
    "device_type": [None, "H100", "CPU", "A100"],
    "precision": [None, "fp32", "bf16", "torch.bfloat16", "float32", "fp8", 32],
    "phase": ["forward", "backward", "optimizer_step", "forward_backward", None],
    "compute_capability": [None, "9.0", "8.0", 9.0],
    "energy_status": [None, "ok", "no_counter", " ok "],
    "time_converged": [None, True, False, "False", "True"],
    "throttle_end": [None, "", "SwPowerCap", "HwSlowdown|SwPowerCap", "none", "GpuIdle", math.nan],
    "status": ["ok", "failed", None, "True"],
    "ngpus": [None, 1, 2, "0,1", "what"],
}


@st.composite
def _rows(draw):
    kinds = [FULL, GOOD]
    for _ in range(draw(st.integers(1, 4))):
        kind = dict(draw(st.sampled_from([FULL, GOOD])))
        for name in draw(st.lists(st.sampled_from([*_NUMBERS, "x_rel_error", "n_layers"]), max_size=4)):
            number = FULL.get(name)
            near = isinstance(number, (int, float)) and not isinstance(number, bool) and draw(st.booleans())
            kind[name] = number * draw(_FACTOR) if near else draw(_ODD)
        for name in draw(st.lists(st.sampled_from(sorted(_WORDS)), max_size=3)):
            kind[name] = draw(st.sampled_from(_WORDS[name]))
        for name in draw(st.lists(st.sampled_from(sorted(FULL)), max_size=3)):
            kind.pop(name, None)
        kinds.append(kind)
    return [{**draw(st.sampled_from(kinds)), "trial_id": str(place)} for place in range(draw(st.integers(1, 12)))]


def _told(rows, monkeypatch, few):
    monkeypatch.setattr(table, "_FEW", few)
    # by their text: NaN is not itself, and a sentence of a number tells its type
    return [repr(finding) for finding in audit_rows(rows)]


@pytest.mark.slow
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=_rows())
def test_screened_rows_get_the_findings_of_the_rules_row_by_row(rows):
    with pytest.MonkeyPatch.context() as patch:
        assert _told(rows, patch, 0) == _told(rows, patch, math.inf)


@pytest.mark.parametrize("row", [GOOD, FULL])
def test_rows_without_a_finding_are_judged_once(row):
    rows = [row | {"trial_id": str(place), "time_rel_error": 0.001 + place * 1e-6} for place in range(500)]
    assert len(alike(rows, [False] * 500)) == 1


def test_throttled_rows_are_judged_once_and_each_is_named():
    rows = [GOOD | {"trial_id": str(place), "throttle_end": "SwPowerCap"} for place in range(500)]
    assert len(alike(rows, [False] * 500)) == 1
    found = [finding for finding in audit_rows(rows) if finding.rule == "throttled"]
    assert [(finding.rows[0], finding.keys["trial_id"]) for finding in found] == [(p, str(p)) for p in range(500)]


def test_a_row_that_breaks_a_rule_among_many_is_alone():
    rows = [GOOD | {"trial_id": str(place)} for place in range(500)]
    rows[123] |= {"time_s": 1e-6}
    assert [123] in alike(rows, [False] * 500)
    found = {finding.code for finding in audit_rows(rows) if 123 in finding.rows}
    assert "impossible:rate_above_limit" in found


def test_the_smallest_number_is_a_number():
    """The ratio of it and any size is 0, whose logarithm does not exist."""
    found = audit_rows([FULL | {"sm_count": 5e-324}])
    assert all("factor of 1e" not in finding.sentence for finding in found)
