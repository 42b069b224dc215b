"""What the last-level cache of a GPU can change at most between a whole step and its phases, each repeated by itself.

A phase that is repeated by itself may find in the cache what it used one iteration ago; in the whole step another phase
has run in between. Or the whole step finds what the phase before it left, where a phase by itself evicts its own
operands. Either way the difference is in bytes that come from memory instead of the cache. In an iteration a phase can
lose or gain no more bytes than it touches, nor more than the cache holds:

    bytes <= sum over phases of min(cache, bytes that the phase touches)

A whole that touches at most a quarter of the cache evicts nothing, so it cannot cost more than its parts for this
reason; nor can it cost less because of a part that touches no more than that. A quarter, since NVIDIA's caches have
two partitions that may hold the same line (https://developer.nvidia.com/blog/nvidia-ampere-architecture-in-depth/), and
half of what is left for imperfect replacement and for workspaces that are in no closed form.

    time   <= bytes / peak bandwidth, or up to three times that where it is at most a tenth of the parts
    energy <= bytes * joules per byte + idle power * the difference in time that was measured

Kernels of a few microseconds do not reach the peak of the memory: they have few bytes on the way at any moment, so each
load waits for its latency (Little's law, https://en.wikipedia.org/wiki/Little%27s_law). Hence the second bound of
time. Larger kernels hide most of their loads behind arithmetic, which makes the first one too large. Joules per byte
are twice a published figure (`flopray.audit.hardware`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from flopray.audit.findings import Row, device_name, number
from flopray.audit.hardware import Cache, cache_of

#: Share of the cache that surely stays from one iteration to the next.
SURELY_KEPT = 0.25
#: Where no row says what its phase touches, a small phase would be allowed all of the cache, many times what it costs.
#: So no more is allowed than this share of the sum of the parts in energy: a little above the largest difference
#: measured so far, 6.8 % (MLP n4 d512 m256 in fp32 on an H200).
UNKNOWN_SHARE = 0.08
#: Times the seconds that bytes take at the peak of the memory: what small kernels may need for them. The largest
#: difference measured so far needed 2.5 times (MLP n32 d256 m128 in fp32 on an H200).
SMALL_KERNELS = 3.0
#: Share of the sum of the parts in time that slow loads explain at most: a little above the largest difference measured
#: so far, 9.0 % (MLP n4 d512 m256 in fp32 on an H200).
TIME_SHARE = 0.10


def lost_bytes(whole: Row, parts: Sequence[Row], *, costs_more: bool) -> float:
    """Bytes that come from memory in the whole or in its parts, and not in the other, at most.

    Args:
        whole: the row of the whole.
        parts: rows of its parts.
        costs_more: whether the whole costs more than its parts.
    """
    cache = cache_of(device_name(whole))
    kept = SURELY_KEPT * cache.size_bytes
    touched = [touched_bytes(row) for row in parts]
    if costs_more and touched_bytes(whole) <= kept:
        return 0.0
    return sum(min(cache.size_bytes, size) for size in touched if costs_more or size > kept)


def time_bound_s(whole: Row, parts: Sequence[Row], total_s: float, *, costs_more: bool) -> float:
    """Difference in time that a cache can explain at most, in s.

    Args:
        whole: the row of the whole.
        parts: rows of its parts.
        total_s: sum of the parts.
        costs_more: whether the whole costs more than its parts.
    """
    at_peak = lost_bytes(whole, parts, costs_more=costs_more) / _cache(whole).bytes_per_s
    slowly = min(SMALL_KERNELS * at_peak, TIME_SHARE * total_s)
    return max(at_peak, slowly) if _bytes_are_known(parts) else slowly


def energy_bound_j(
    whole: Row, parts: Sequence[Row], total_j: float, time_difference_s: float, *, costs_more: bool
) -> float:
    """Difference in energy that a cache can explain at most, in J.

    Args:
        whole: the row of the whole.
        parts: rows of its parts.
        total_j: sum of the parts.
        time_difference_s: between the whole and its parts; 0 where their times are not known.
        costs_more: whether the whole costs more than its parts.
    """
    idle_w = max((number(whole, name) or 0.0 for name in ("idle_power_w", "awake_idle_power_w")), default=0.0)
    bound = lost_bytes(whole, parts, costs_more=costs_more) * _cache(whole).j_per_byte
    if bound <= 0:  # idle power alone follows the time: without bytes there is nothing that a cache explains
        return 0.0
    bound += idle_w * abs(time_difference_s)
    return bound if _bytes_are_known(parts) else min(bound, UNKNOWN_SHARE * total_j)


def touched_bytes(row: Row) -> float:
    """Bytes that a phase touches: what its closed form says, else the peak of its memory, else no bound."""
    for column in ("least_moved_bytes", "memory_peak_bytes"):
        stated = number(row, column)
        if stated is not None and stated > 0:
            return stated
    return math.inf


def _cache(row: Row) -> Cache:
    return cache_of(device_name(row))


def _bytes_are_known(parts: Sequence[Row]) -> bool:
    return all((number(row, "least_moved_bytes") or 0) > 0 for row in parts)
