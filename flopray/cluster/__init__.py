"""Connecting to a Ray cluster, and its devices.

`connection.connected` joins or starts Ray and leaves it again, `devices.inspect_cluster` lists the devices, `doctor`
says what each node can measure.
"""
