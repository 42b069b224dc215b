"""What people see of a sweep: progress, live view, status, the run's log.

The sweep reports to `progress.Progress`; `status.status_of_run` needs a run's folder alone.
"""
