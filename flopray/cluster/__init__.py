"""Reaching a Ray cluster, and the devices that it has.

`connection.connected` joins or starts Ray and leaves it again, `devices.inspect_cluster` lists the devices, `doctor`
says what each node can measure.
"""
