"""What a search has found, in words and numbers."""

import io
import re
from pathlib import Path

from rich.console import Console

from flopray.cli.run_figures import draw_winners
from flopray.store.run import RunFolder
from flopray.sweep.objectives import objectives_of
from flopray.sweep.winners import columns_of, print_winners, winners_of

RUN = RunFolder.open(Path(__file__).resolve().parents[2] / "docs" / "results" / "h100_mlp_fp32")
PHASES = tuple(dict.fromkeys(RUN.load(["phase"]).phase))


def found(*texts, frame=None):
    objectives = objectives_of(texts, PHASES, PHASES)
    frame = RUN.load(columns_of(objectives, RUN.workload)) if frame is None else frame
    return winners_of(frame, objectives, RUN.workload)


def printed(winners):
    out = io.StringIO()
    print_winners(Console(file=out, width=160), winners)
    return out.getvalue()


def test_the_best_point_is_told_with_its_error():
    phase = PHASES[-1]
    winners = found(f"{phase}/energy_j")
    rows = RUN.load().query("phase == @phase and energy_j == energy_j")
    best = rows.loc[rows.energy_j.idxmin()]
    assert [winners.trial_ids[place] for place in winners.best] == [best.trial_id]
    (row,) = winners.to_dict()
    assert row[f"{phase}/energy_j"] == {"value": best.energy_j, "rel_error": best.energy_rel_error}
    said = printed(winners)
    assert re.search(rf"^best {phase}/energy_j: [\d.]+ .?J ±{best.energy_rel_error:.1%} at n={best.n_layers} d=", said)


def test_a_larger_rate_is_better():
    winners = found("flops_per_s")
    assert winners.values[winners.best[0], 0] == winners.values.max()


def test_the_front_is_printed_and_drawn(tmp_path):
    winners = found(f"{PHASES[-1]}/energy_j", f"{PHASES[-1]}/flops_per_s")
    values = winners.values[list(winners.best)]
    assert 1 < len(values) < len(winners.values)
    assert (values[1:, 0] > values[:-1, 0]).all()
    assert (values[1:, 1] > values[:-1, 1]).all(), "what takes more energy must be faster to stay"
    said = printed(winners)
    assert f"Pareto front, {len(values)} points" in said
    assert winners.labels[winners.best[0]] in said
    draw_winners("r", winners, tmp_path, Console(file=io.StringIO()))
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"pareto.png", "pareto.svg"}


def test_one_objective_has_no_figure(tmp_path):
    draw_winners("r", found("time_s"), tmp_path, Console(file=io.StringIO()))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_true_wins_nothing_and_is_told():
    frame = RUN.load()
    fastest = frame[frame.phase == PHASES[0]].time_s.idxmin()
    frame.at[fastest, "findings"] = ["impossible:flops_above_peak", "note:no_limit_known"]
    winners = found("time_s", frame=frame)
    assert frame.loc[fastest, "trial_id"] not in winners.trial_ids
    assert winners.doubted == 1
    assert "1 point is left out" in printed(winners)


def test_points_without_a_number_are_no_candidates_and_none_at_all_is_told():
    frame = RUN.load()
    frame["energy_j"] = float("nan")
    winners = found("time_s", "energy_j", frame=frame)
    assert winners.to_dict() == []
    assert f"no point has all of: {PHASES[0]}/time_s, {PHASES[0]}/energy_j" in printed(winners)


def test_an_error_that_is_not_known_is_a_question_mark_and_never_zero():
    frame = RUN.load()
    frame["time_rel_error"] = float("nan")
    winners = found("time_s", frame=frame)
    assert winners.to_dict()[0][f"{PHASES[0]}/time_s"]["rel_error"] is None
    assert "±?" in printed(winners)
