"""The cost of a program that is not slowed down: steps, named regions and devices are watched while it runs.

`api.watch` is for a training loop, `program_run.run_program` for any command. Both keep the ticks of energy counters
(`recording.Recording`) and regress them on step numbers (`step_energy.energy_per_step`). Nothing here synchronises a
device.
"""
