"""Calls counted as Tencent counts them: by their arrival, in a sliding second."""

from collections.abc import Sequence


def per_second(arrivals: Sequence[float]) -> Sequence[int]:
    """How many arrived within the second that ends at each of these instants, itself included; they are ascending."""
    counts, first = [], 0
    for last, at in enumerate(arrivals):
        while arrivals[first] <= at - 1:
            first += 1
        counts.append(last - first + 1)
    return counts
