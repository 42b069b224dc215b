"""Whether a run can be resumed, and what to do where it cannot."""

from __future__ import annotations

from collections.abc import Mapping

from flopray.errors import RunError
from flopray.store.manifests import of_own_tuner, of_reference, of_tune_results

#: What helps where a merged run lacks points.
MERGE_AGAIN = "resume the sources that can be resumed, or measure the missing points in a new run, and merge again"


def not_resumable(manifest: Mapping[str, object], subject: str = "it") -> str | None:
    """Why a run cannot be resumed; None if it can, like every sweep that was not merged.

    Args:
        manifest: of the run.
        subject: what the reason calls it.
    """
    if of_own_tuner(manifest):
        return f"a Tuner of your own decides on {'its points' if subject == 'it' else f'the points of {subject}'}"
    if of_tune_results(manifest):
        return f"{subject} holds results of Ray Tune, which can only be read"
    if of_reference(manifest):
        return f"{subject} comes with flopray and can only be read"
    merged = manifest.get("merged")
    reason = merged.get("not_resumable") if isinstance(merged, dict) else None
    return None if reason is None else str(reason)


def check_resumable(manifest: Mapping[str, object], address: str) -> None:
    """Refuse to resume a run that cannot be resumed.

    Raises:
        RunError: with what to do instead.
    """
    if reason := not_resumable(manifest):
        mend = MERGE_AGAIN
        if of_own_tuner(manifest):
            mend = "run your script again, which measures what is missing"
        elif of_tune_results(manifest):
            mend = "name the run's own folder"
        elif of_reference(manifest):
            mend = f"measure a run of your own, and flopray merge {address} RUN --into NEW unites them"
        raise RunError(f"run {address} cannot be resumed: {reason}; {mend}")
