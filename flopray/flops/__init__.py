"""FLOPs of any callable: what it asks torch for, and what the chip executes.

`dispatched.count_dispatched` counts at torch's dispatcher, `by_module.count_by_module` also says in which module;
`executed` reads hardware counters through Nsight Compute.
"""
