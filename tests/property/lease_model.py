"""The lease protocol in small, and a search through every state that it can get into.

The world: one item of a few units, nodes that lease them, books that record what is bought, the
stock key that grants leases, a reaper, and recoverers. A message to the stock or to a book may be
delivered late, after its sender has died, or its reply may be lost. The reaper may take a living
node for dead at any moment (a zombie), and may stop between any two of its steps and begin again.

A recoverer may raise the epoch at any time: on every book, one by one; then it reads each book; then
it writes the stock anew, all leases void. It may stop between any two steps, and several may be at
it at once. A book refuses purchases of another epoch, the stock refuses everything of another epoch.

In a world of `one_life` the nodes are the leases that one node takes one after the other. They are closed by number:
who closes one on a book closes those before it as well, and the stock refuses all up to the highest that was
reclaimed; what of them is still to be reclaimed is so in its time. When a lease has been reclaimed, the books forget
what was spent of it.

Checked in every state that can be reached:
  conservation   capacity = available + unspent leases + held + released and not yet taken over
  no oversell    held <= capacity, available >= 0, no lease spent beyond its grant, no void one at all
Checked in every state in which nothing more needs to happen:
  no stranded unit   available + held = capacity, and nothing refuses to sell it

``python -m tests.property.lease_model 1 2 1 2 0 0 1`` searches a world of one's own: units, nodes, books,
purchases, epochs to come, recoverers, one life. It grows fast.
"""

from __future__ import annotations

import enum
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

OPEN, CLOSING, GONE = range(3)
"""States of a lease on the stock key."""

REFILL, SPEND, BACK, COLLECT = range(4)
"""Messages: (REFILL, node, epoch) (SPEND, node, epoch, book, number) (BACK, node, epoch, total)
(COLLECT, book, epoch, total)."""

RELEASES_MAX = 1
"""Holds of a book that may expire, to keep the world finite."""


class Bug(enum.StrEnum):
    """A bug that may be planted, for a search that finds nothing shows nothing."""

    NO_FENCE = "a book sells from a closed lease"
    RECLAIM_EARLY = "a lease is reclaimed before every book has closed it"
    BACK_LATE = "the stock takes units back from a lease that it is closing"
    NO_GUARD = "the stock is written without a look at its epoch"
    READ_EARLY = "a book is read before its epoch is raised"
    ANY_EPOCH = "a book sells in whatever epoch"
    FORGET_EARLY = "a book forgets what was spent of a lease before it is reclaimed"
    FENCE_LOSES = "a lease is taken for reclaimed because a later one is"


class Shape(NamedTuple):
    """How large a world is."""

    units: int
    nodes: int
    books: int
    purchases: int
    epochs: int = 0
    recoverers: int = 0
    one_life: int = 0
    """Whether the nodes are the leases that one node takes one after the other."""


class Recoverer(NamedTuple):
    """Somebody who recovers to epoch `target`, 0 for nobody. `done` steps of it are done."""

    target: int = 0
    done: int = 0
    read: tuple[tuple[int, int], ...] = ()
    """For each book that was read: units held, units released."""


Ints = tuple[int, ...]
Message = tuple[int, ...]


class World(NamedTuple):
    """One state of everything."""

    # the stock key; totals of the leases of this epoch only
    epoch: int
    available: int
    granted: Ints
    given_back: Ints
    status: Ints
    seen: Ints
    """For each book the released units that are taken over."""
    # the books
    book_epoch: Ints
    spent: tuple[Ints, ...]
    """For each book and each lease of the stock's epoch; only grows."""
    closed: tuple[Ints, ...]
    held: Ints
    released: Ints
    # the nodes
    alive: Ints
    node_epoch: Ints
    unit: Ints
    """Units that the node believes to own."""
    returned: Ints
    """All that it has decided to give back."""
    known: Ints
    """The total of grants that it has heard of."""
    # the rest
    recoverers: tuple[Recoverer, ...]
    net: frozenset[Message]
    todo: int
    """Purchases that may still be tried."""

    @property
    def newest(self) -> int:
        """The newest epoch that is written anywhere."""
        return max(self.epoch, *self.book_epoch)


Step = tuple[str, World]
T = TypeVar("T")


class Broken(Exception):
    """A state that must not be."""


class Model:
    """A world of `shape`, with a planted bug or without."""

    def __init__(self, shape: Shape, bug: Bug | None = None) -> None:
        self.shape, self.bug = shape, bug
        self._nodes, self._books = range(shape.nodes), range(shape.books)
        self._grants_max = shape.units + 1

    def first(self) -> World:
        """The state at the beginning."""
        nodes, books = (0,) * self.shape.nodes, (0,) * self.shape.books
        grid, alive = (nodes,) * self.shape.books, (1,) * self.shape.nodes
        somebody = (Recoverer(),) * self.shape.recoverers
        stock = (0, self.shape.units, nodes, nodes, nodes, books)
        return World(
            *stock, books, grid, grid, books, books, alive, nodes, nodes, nodes, nodes, somebody, frozenset(),
            self.shape.purchases,
        )  # fmt: skip

    # --- what may happen ----------------------------------------------------------------------

    def steps(self, w: World) -> Iterator[Step]:
        """Everything that may happen next, with its name."""
        for n in self._nodes:
            if w.alive[n]:
                yield from self._node(w, n)
            yield from self._reaper(w, n)
        for message in w.net:
            yield from self._deliver(w._replace(net=w.net - {message}), message)
        for k in self._books:
            if w.held[k] and w.released[k] < RELEASES_MAX:
                yield "expire", w._replace(held=plus(w.held, k, -1), released=plus(w.released, k, 1))
            collect = (COLLECT, k, w.epoch, w.released[k])
            if w.released[k] > w.seen[k] and collect not in w.net:
                yield "collect", w._replace(net=w.net | {collect})
        for r, recoverer in enumerate(w.recoverers):
            for name, v, now in self._recover(w, recoverer):
                # which of them is the first makes no difference
                yield name, v._replace(recoverers=tuple(sorted(put(w.recoverers, r, now))))

    def _deliver(self, rest: World, message: Message) -> Iterator[Step]:
        match message:
            case (0, n, epoch):
                yield from self._refill(rest, n, epoch)
            case (1, n, epoch, k, _):
                yield from self._spend(rest, n, epoch, k)
            case (2, n, epoch, total):
                yield from self._take_back(rest, message, n, epoch, total)
            case (3, k, epoch, total):
                yield from self._take_over(rest, message, k, epoch, total)

    def _node(self, w: World, n: int) -> Iterator[Step]:
        epoch, unit = w.node_epoch[n], w.unit[n]
        if epoch != w.epoch:
            yield "hear of the epoch", _forget(w, n)._replace(node_epoch=put(w.node_epoch, n, w.epoch))
        refill = (REFILL, n, epoch)
        if not unit and w.todo and refill not in w.net:
            yield "ask", w._replace(net=w.net | {refill})
        if unit:
            less = put(w.unit, n, unit - 1)
            if w.todo:
                for k in self._books:
                    spend = (SPEND, n, epoch, k, w.todo)
                    yield "buy", w._replace(unit=less, todo=w.todo - 1, net=w.net | {spend})
            total = w.returned[n] + 1
            back = (BACK, n, epoch, total)
            yield "idle", w._replace(unit=less, returned=put(w.returned, n, total), net=w.net | {back})
        yield "die", _forget(w, n)._replace(alive=put(w.alive, n, 0), node_epoch=put(w.node_epoch, n, 0))

    def _reaper(self, w: World, n: int) -> Iterator[Step]:
        if w.status[n] == OPEN:
            yield "close", w._replace(status=put(w.status, n, CLOSING))
        if w.status[n] == GONE or (w.status[n] == CLOSING and self.bug is Bug.FORGET_EARLY):
            for k in self._books:
                if w.spent[k][n]:
                    yield "forget", w._replace(spent=put(w.spent, k, put(w.spent[k], n, 0)))
        if w.status[n] != CLOSING:
            return
        for k in self._books:
            if not w.closed[k][n]:
                closed = (*((1,) * n if self.shape.one_life else w.closed[k][:n]), 1, *w.closed[k][n + 1 :])
                yield "close on a book", w._replace(closed=put(w.closed, k, closed))
        if all(w.closed[k][n] for k in self._books) or self.bug is Bug.RECLAIM_EARLY:
            available = w.available + self._unspent(w, n)
            status = put(w.status, n, GONE)
            if self.bug is Bug.FENCE_LOSES:
                status = ((GONE,) * n + status[n:]) if self.shape.one_life else status
            yield "reclaim", w._replace(available=available, status=status)

    def _is_fenced(self, w: World, n: int) -> bool:
        """Whether the stock refuses lease n, for itself or for a later one of the same life."""
        return w.status[n] != OPEN or (bool(self.shape.one_life) and GONE in w.status[n:])

    def _refill(self, w: World, n: int, epoch: int) -> Iterator[Step]:
        if epoch != w.epoch or self._is_fenced(w, n) or not w.available or w.granted[n] >= self._grants_max:
            yield "refuse a refill", w
            return
        v = w._replace(available=w.available - 1, granted=plus(w.granted, n, 1))
        yield "refill, reply lost", v
        if w.alive[n] and w.node_epoch[n] == epoch:
            new = v.granted[n] - w.known[n]
            yield "refill", v._replace(unit=plus(w.unit, n, new), known=put(w.known, n, v.granted[n]))

    def _spend(self, w: World, n: int, epoch: int, k: int) -> Iterator[Step]:
        if epoch != w.book_epoch[k] and self.bug is not Bug.ANY_EPOCH:
            yield "refuse another epoch", w
            return
        if epoch == w.epoch and w.closed[k][n] and self.bug is not Bug.NO_FENCE:
            yield "refuse a closed lease", w
            return
        v = w._replace(held=plus(w.held, k, 1))
        if epoch == w.epoch:  # nobody asks any more what was spent of a lease of an older one
            v = v._replace(spent=put(w.spent, k, plus(w.spent[k], n, 1)))
        yield "sell", v
        if w.alive[n] and w.node_epoch[n] == epoch:
            yield "reject the buyer", w._replace(unit=plus(w.unit, n, 1))

    def _take_back(self, w: World, message: Message, n: int, epoch: int, total: int) -> Iterator[Step]:
        if epoch != w.epoch or (self._is_fenced(w, n) and self.bug is not Bug.BACK_LATE):
            yield "refuse to take back", w
            return
        more = max(0, total - w.given_back[n])
        v = w._replace(available=w.available + more, given_back=plus(w.given_back, n, more))
        yield "take back", v
        yield "take back, sent again", v._replace(net=w.net | {message})

    def _take_over(self, w: World, message: Message, k: int, epoch: int, total: int) -> Iterator[Step]:
        if epoch != w.epoch:
            yield "refuse to take over", w
            return
        more = max(0, total - w.seen[k])
        v = w._replace(available=w.available + more, seen=plus(w.seen, k, more))
        yield "take over", v
        yield "take over, sent again", v._replace(net=w.net | {message})

    # --- recovery -----------------------------------------------------------------------------

    def _recover(self, w: World, r: Recoverer) -> Iterator[tuple[str, World, Recoverer]]:
        """Steps of one recoverer, each with what it knows afterwards."""
        if not r.target:
            if w.newest > w.epoch:
                yield "recover what was left half done", w, Recoverer(w.newest)
            if w.newest < self.shape.epochs:
                yield RECOVER, w, Recoverer(w.newest + 1)
            return
        yield "stop recovering", w, Recoverer()
        if r.done == 2 * self.shape.books:
            if w.epoch < r.target or self.bug is Bug.NO_GUARD:
                yield "write the stock", self._write_stock(w, r), Recoverer()
            else:
                yield "the stock is written already", w, Recoverer()
            return
        half, k = divmod(r.done, self.shape.books)
        reads = half == (0 if self.bug is Bug.READ_EARLY else 1)
        if reads:
            levels = (w.held[k], w.released[k])
            yield "read a book", w, r._replace(done=r.done + 1, read=(*r.read, levels))
        elif w.book_epoch[k] <= r.target:
            v = w._replace(book_epoch=put(w.book_epoch, k, r.target))
            yield "raise the epoch of a book", v, r._replace(done=r.done + 1)
        else:
            yield "see a newer epoch", w, Recoverer()

    def _write_stock(self, w: World, r: Recoverer) -> World:
        nodes = (0,) * self.shape.nodes
        grid = (nodes,) * self.shape.books
        return w._replace(
            epoch=r.target,
            available=self.shape.units - sum(held for held, _ in r.read),
            granted=nodes,
            given_back=nodes,
            status=nodes,
            seen=tuple(released for _, released in r.read),
            spent=grid,
            closed=grid,
        )

    # --- what must hold -----------------------------------------------------------------------

    def _unspent(self, w: World, n: int) -> int:
        return w.granted[n] - w.given_back[n] - sum(w.spent[k][n] for k in self._books)

    def check(self, w: World) -> None:
        """Raises Broken for a state that must not be."""
        held = sum(w.held)
        if w.available < 0 or held > self.shape.units:
            raise Broken("oversold")
        unspent = [self._unspent(w, n) for n in self._nodes if w.status[n] != GONE]
        if any(units < 0 for units in unspent):
            raise Broken("spent beyond the grant")
        if w.available + sum(unspent) + held + sum(w.released) - sum(w.seen) != self.shape.units:
            raise Broken("not conserved")

    def check_final(self, w: World) -> None:
        """Raises Broken for a state that must not last."""
        if w.available + sum(w.held) != self.shape.units:
            raise Broken("stranded")
        if any(epoch != w.epoch for epoch in w.book_epoch):
            raise Broken("nobody can buy")


RECOVER = "recover"
"""The one step that nothing makes necessary."""


def _forget(w: World, n: int) -> World:
    """What node n knew is gone."""
    return w._replace(unit=put(w.unit, n, 0), returned=put(w.returned, n, 0), known=put(w.known, n, 0))


def put(row: tuple[T, ...], at: int, value: T) -> tuple[T, ...]:
    """`row` with another value at one place."""
    return (*row[:at], value, *row[at + 1 :])


def plus(row: Ints, at: int, more: int) -> Ints:
    """`row` with `more` added at one place."""
    return (*row[:at], row[at] + more, *row[at + 1 :])


class Finding(NamedTuple):
    """What a search has found: "" and how many states, or what is broken and the steps that lead there."""

    broken: str
    trail: tuple[str, ...]
    states: int
    final: int


def search(shape: Shape, bug: Bug | None = None) -> Finding:
    """Look at every state that a world of `shape` can get into, the nearest ones first."""
    model = Model(shape, bug)
    first = model.first()
    parents: dict[World, tuple[World, str] | None] = {first: None}
    queue, final = deque([first]), 0
    while queue:
        w = queue.popleft()
        is_final = True
        try:
            model.check(w)
            for name, v in model.steps(w):
                if v == w:
                    continue
                is_final = is_final and name == RECOVER
                if v not in parents:
                    parents[v] = (w, name)
                    queue.append(v)
            if is_final:
                final += 1
                model.check_final(w)
        except Broken as broken:
            return Finding(str(broken), _trail(parents, w), len(parents), final)
    return Finding("", (), len(parents), final)


def _trail(parents: dict[World, tuple[World, str] | None], w: World) -> tuple[str, ...]:
    names: list[str] = []
    while (parent := parents[w]) is not None:
        w, name = parent
        names.append(name)
    return tuple(reversed(names))


def main() -> None:
    """Search the world that the arguments describe."""
    shape = Shape(*map(int, sys.argv[1:])) if sys.argv[1:] else Shape(1, 2, 1, 2)
    for bug in (None, *Bug):
        start_s = time.monotonic()
        found = search(shape, bug)
        print(f"{bug or 'the protocol'}: {found.broken or 'holds'}, {found.states:,} states ({found.final:,} final), "
              f"{time.monotonic() - start_s:.1f} s")  # fmt: skip
        if found.trail:
            print("   " + ", ".join(found.trail))


if __name__ == "__main__":
    main()
