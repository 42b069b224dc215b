"""From a search space to finished points: Ray Tune, its trials, and what happens when they fail.

`definition.Sweep` says what is measured, `driver.run_sweep` measures it, `trial.PointTrial` is what Tune runs.
"""
