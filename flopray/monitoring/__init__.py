"""What people see of a sweep: progress, live view, status, the run's log.

`progress.Progress` is fed by the sweep, `status.status_of_run` needs a run's folder alone.
"""
