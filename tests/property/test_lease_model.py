"""The lease protocol holds in every state of small worlds, and the search finds what is planted."""

from __future__ import annotations

import pytest

from tests.property.lease_model import Bug, Shape, search

ONE = Shape(units=1, nodes=1, books=1, purchases=2, epochs=1, recoverers=1)
"""One of everything: 31,000 states."""

WORLDS = {
    "leases over two books": Shape(units=1, nodes=1, books=2, purchases=2),
    "a recovery": ONE,
    "two recoverers at once": ONE._replace(purchases=1, recoverers=2),
}
"""What a second or two is enough for. Larger worlds are in the docstring of `lease_model`."""


@pytest.mark.parametrize("shape", WORLDS.values(), ids=WORLDS)
def test_no_unit_is_sold_twice_and_none_is_stranded(shape: Shape) -> None:
    found = search(shape)

    assert not found.broken, " > ".join(found.trail)
    assert found.states > 1_000
    assert found.final > 0, "it must come to rest somewhere, or nothing was seen to be stranded"


@pytest.mark.parametrize("bug", Bug)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    shape = ONE._replace(recoverers=2) if bug is Bug.NO_GUARD else ONE
    found = search(shape, bug)

    assert found.broken
    assert found.trail
