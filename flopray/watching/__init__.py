"""What a program costs that nobody slows down: steps, named regions and devices are watched while it runs.

`api.watch` stands in a training loop, `program.run_program` around any command. Both keep the ticks of energy counters
(`recording.Recording`) and regress them on step numbers (`step_energy.energy_per_step`). Nothing here synchronises a
device.
"""
