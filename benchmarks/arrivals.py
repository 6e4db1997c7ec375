"""Counts calls as Tencent does: by their arrival, in a sliding second."""

from collections.abc import Sequence


def per_second(arrivals: Sequence[float]) -> Sequence[int]:
    """Returns for each of the ascending instants how many arrived in the second that ends with it, including itself."""
    counts, first = [], 0
    for last, at in enumerate(arrivals):
        while arrivals[first] <= at - 1:
            first += 1
        counts.append(last - first + 1)
    return counts
