"""Turns of clients in the queue: no client's work stands before all work of another."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice

from app.domain.verification import Priority

_MAX_TURNS = 32
# One claim in so many begins with the least urgent work. A flood of callbacks then cannot stop retries and polls.
_LESS_URGENT_EVERY = 8


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """The due verifications of one priority that belong to one client."""

    priority: Priority
    client: str


def in_order(due: Collection[Turn], number: int) -> Sequence[Sequence[Turn]]:
    """Returns the turns in the order in which to claim, grouped by priority, at most 32.

    Within a group, one verification of each client is claimed, then a second one of each, and so on.

    Args:
        due: the turns with due verifications.
        number: the number of this claim. It decides which client is the first.
    """
    by_number = number // _LESS_URGENT_EVERY
    is_reversed = number % _LESS_URGENT_EVERY == 0
    start = by_number if is_reversed else number - by_number
    groups = []
    for _, turns in groupby(sorted(due), key=lambda turn: turn.priority):
        group = list(turns)
        first = start % len(group)
        groups.append(group[first:] + group[:first])
    if is_reversed:
        groups.reverse()
    allowed = set(islice(chain(*groups), _MAX_TURNS))
    return [[turn for turn in group if turn in allowed] for group in groups]
