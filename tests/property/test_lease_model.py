"""The lease protocol holds in every state of small worlds, and the search finds what is planted."""

from __future__ import annotations

import pytest

from tests.property.lease_model import Bug, Shape, search

ONE = Shape(units=1, nodes=1, books=1, purchases=2, epochs=1, recoverers=1)
"""One of everything: 31,000 states."""

TWO = Shape(units=1, nodes=2, books=1, purchases=1, one_life=1)
"""A node takes a second lease while its first one may still be under way."""

WORLDS = {
    "leases over two books": Shape(units=1, nodes=1, books=2, purchases=2),
    "two leases of one node": TWO,
    "a recovery": ONE,
    "two recoverers at once": ONE._replace(purchases=1, recoverers=2),
}
"""What a second or two is enough for. Larger worlds are in the docstring of `lease_model`."""


WHERE_FOUND = {Bug.NO_GUARD: ONE._replace(recoverers=2), Bug.FENCE_LOSES: TWO}


@pytest.mark.parametrize("shape", WORLDS.values(), ids=WORLDS)
def test_no_unit_is_sold_twice_and_none_is_stranded(shape: Shape) -> None:
    found = search(shape)

    assert not found.broken, " > ".join(found.trail)
    assert found.states > 1_000
    assert found.final > 0, "it must come to rest somewhere, or nothing was seen to be stranded"


@pytest.mark.parametrize("bug", Bug)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    found = search(WHERE_FOUND.get(bug, ONE), bug)

    assert found.broken
    assert found.trail
