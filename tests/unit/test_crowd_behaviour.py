"""What buyers do with their answers, and whose turn it is."""

from __future__ import annotations

import msgspec
import pytest

from ticketrush.crowd import buyers as manner
from ticketrush.crowd import history as h
from ticketrush.crowd.agenda import COMEBACK_TURN, NS_PER_S, Agenda, Job
from ticketrush.crowd.behaviour import TRIES_MAX, Behaviour
from ticketrush.crowd.buyers import Buyers, Shares
from ticketrush.crowd.wire import Reply

QUIET = Shares(0, 0, 0, 0)
FAR_NS = 3_600 * NS_PER_S


def plan(**changes: object) -> h.Plan:
    base = h.Plan(
        doors=[h.Door("127.0.0.1", 1, connections=2)],
        sale="rush",
        item="second",
        buyers=10,
        tickets=5,
        arrivals=0.0,
        shares=QUIET,
        limit=2,
        hold_s=2.0,
        seed=1,
        secret=b"s" * 32,
        audience="ticketrush",
        expires_at_s=4_102_444_800,
    )
    return msgspec.structs.replace(base, **changes)


class World:
    """The buyers of a plan, their agenda, and a server's answers by hand."""

    def __init__(self, of: h.Plan | None = None) -> None:
        self.plan = of or plan()
        buyers = Buyers(self.plan.seed, self.plan.shares)
        self.agenda = Agenda(buyers, self.plan.buyers, self.plan.arrivals)
        self.agenda.start(0)
        self.crowd = Behaviour(self.plan, buyers, self.agenda)

    def tell(self, job: Job, status: int, code: str = "", body: object = None, retry_after_s: float = 0.0) -> None:
        text = msgspec.json.encode(body if body is not None else {"code": code})
        self.crowd.hear(job, Reply(status, code, retry_after_s, True, text), 1_000, 0)

    def win(self, job: Job, status: int = 201, state: str = "held", name: str = "") -> None:
        body = {"id": name or f"r{job.index}", "sale": "rush", "item": "second", "quantity": 1, "state": state}
        self.tell(job, status, body=body)

    def pay(self, job: Job, state: str = "paid") -> None:
        self.tell(job, 200, body={"order": {"id": job.order, "state": state}, "payment": {"state": "approved"}})

    def count(self, answer: int) -> int:
        return self.crowd.answers[answer]

    def rest(self) -> list[Job]:
        """All that is still wanted, at the end of time."""
        self.agenda.next_index = self.plan.buyers
        self.agenda.wake(FAR_NS)
        jobs = []
        while (job := self.agenda.take()) is not None:
            jobs.append(job)
        return jobs


def test_a_winner_pays_and_both_are_remembered_as_told() -> None:
    world = World()
    world.win(Job(3))
    (payment,) = world.rest()
    assert (payment.index, payment.order) == (3, "r3")
    world.pay(payment)
    name = "c1-000000003"
    assert world.crowd.told.acknowledged == {"r3": (name, f"{name}.0", "rush", "second", 1)}
    assert world.crowd.told.paid == {"r3"}
    assert (world.count(h.HELD), world.count(h.PAID)) == (1, 1)


def test_who_abandons_never_pays() -> None:
    world = World()
    world.win(Job(3, manner.ABANDONS))
    assert world.rest() == []


def test_a_limit_breaker_asks_for_more_with_a_new_key_and_takes_no_for_an_answer() -> None:
    world = World()
    world.win(Job(3, manner.ABANDONS | manner.BREAKS_LIMIT))
    (greedy,) = world.rest()
    assert (greedy.wish, greedy.quantity) == (1, 2)
    world.tell(greedy, 409, "purchase_limit")
    world.tell(greedy, 409, "all_held", retry_after_s=1)
    assert world.rest() == []
    assert world.count(h.PURCHASE_LIMIT) == 1


def test_a_replay_is_counted_and_does_not_pay_twice() -> None:
    world = World()
    world.win(Job(3))
    world.win(Job(3, twice=True), status=200)
    assert len(world.rest()) == 1
    assert (world.count(h.HELD), world.count(h.REPLAYED)) == (1, 1)


def test_a_second_reservation_under_the_same_key_is_remembered_too() -> None:
    world = World()
    world.win(Job(3), name="one")
    world.win(Job(3, twice=True), name="two")
    assert set(world.crowd.told.acknowledged) == {"one", "two"}


def test_a_reservation_that_has_already_expired_is_not_paid() -> None:
    world = World()
    world.win(Job(3), status=200, state="expired")
    assert world.rest() == []


def test_directly_repeated_requests_go_out_once_more_only() -> None:
    world = World()
    world.tell(Job(3, manner.REPEATS), 409, "sold_out")
    (again,) = world.rest()
    assert again.twice
    world.tell(again, 409, "sold_out")
    assert world.rest() == []
    assert world.crowd.left_sold_out == 1


def test_told_all_held_comes_back_after_retry_after_and_no_earlier() -> None:
    world = World()
    world.tell(Job(3), 409, "all_held", retry_after_s=2)
    world.agenda.next_index = world.plan.buyers
    world.agenda.wake(2 * NS_PER_S - 1)
    assert not world.agenda.waiting
    world.agenda.wake(3 * NS_PER_S)
    job = world.agenda.take()
    assert job is not None
    assert (job.index, job.back, job.wish) == (3, True, 0)
    assert world.crowd.left_waiting == 1
    world.tell(job, 409, "sold_out")
    assert (world.crowd.left_waiting, world.crowd.left_sold_out) == (0, 1)


def test_the_pool_of_those_who_wait_is_bounded() -> None:
    world = World(plan(comebacks_max=4))
    for index in range(10):
        world.tell(Job(index), 409, "all_held", retry_after_s=1)
    assert (world.crowd.left_waiting, world.crowd.gave_up) == (4, 6)
    assert len(world.rest()) == 4


def test_an_unknown_fate_is_asked_for_again_with_the_same_key_then_told_as_unknown() -> None:
    world = World()
    job = Job(3)
    for _ in range(TRIES_MAX):
        world.crowd.hear_nothing(job, 0)
        (job,) = world.rest()
        assert (job.index, job.wish) == (3, 0)
    world.crowd.hear_nothing(job, 0)
    assert world.rest() == []
    assert world.crowd.told.unknown == [("c1-000000003", "c1-000000003.0")]
    assert world.count(h.UNKNOWN) == TRIES_MAX + 1


def test_too_busy_is_no_error_and_is_asked_again() -> None:
    world = World()
    world.tell(Job(3), 503, "overloaded", retry_after_s=1)
    (again,) = world.rest()
    assert (again.index, again.tries) == (3, 1)
    assert (world.count(h.BUSY), world.count(h.ERROR)) == (1, 0)


@pytest.mark.parametrize(
    ("status", "code"), [(500, ""), (401, "unauthorized"), (422, "invalid_request"), (410, "closed")]
)
def test_any_other_answer_is_an_error_with_a_sample(status: int, code: str) -> None:
    world = World()
    world.tell(Job(3), status, code)
    assert world.count(h.ERROR) == 1
    assert world.crowd.samples[0].status == status
    assert world.rest() == []


def test_a_success_that_cannot_be_read_is_an_error() -> None:
    world = World()
    world.tell(Job(3), 201, body={"id": 7})
    world.crowd.hear(Job(4), Reply(201, "", 0.0, True, b"\xff"), 1, 0)
    assert world.count(h.ERROR) == 2


def test_a_pending_payment_is_asked_for_again_and_a_refunded_one_is_not() -> None:
    world = World()
    world.tell(Job(3, order="r3"), 202, body={})
    (again,) = world.rest()
    world.tell(again, 409, "payment_refunded")
    assert world.rest() == []
    assert (world.count(h.PENDING), world.count(h.REFUNDED)) == (1, 1)
    assert not world.crowd.told.paid


def test_a_late_payment_that_bought_other_units_is_remembered_by_their_reservation() -> None:
    world = World()
    order = {"id": "r3", "state": "expired", "replaced_by": "r9"}
    world.tell(Job(3, order="r3"), 200, body={"order": order, "payment": {"state": "approved"}})
    assert world.crowd.told.paid == {"r9"}
    assert world.count(h.PAYMENT_ERROR) == 0


def test_a_payment_answered_with_another_state_is_an_error() -> None:
    world = World()
    world.pay(Job(3, order="r3"), state="held")
    assert world.count(h.PAYMENT_ERROR) == 1
    assert not world.crowd.told.paid


def test_newcomers_come_in_order_and_those_who_come_back_get_one_turn_in_some() -> None:
    world = World(plan(buyers=100))
    for index in range(100, 103):
        world.agenda.put_off(Job(index, back=True), 0, 0.0)
    world.agenda.wake(1)
    taken = [job for job in (world.agenda.take() for _ in range(3 * COMEBACK_TURN)) if job]
    assert [job.index for job in taken if job.back] == [100, 101, 102]
    assert [job.index for job in taken if not job.back] == list(range(3 * COMEBACK_TURN - 3))
    assert [number for number, job in enumerate(taken, start=1) if job.back] == [8, 16, 24]


def test_in_an_open_loop_buyers_are_due_at_an_even_pace_whether_sent_or_not() -> None:
    world = World(plan(buyers=100, arrivals=10.0))
    world.agenda.wake(int(0.95 * NS_PER_S))
    due = []
    while (job := world.agenda.take()) is not None:
        due.append(job.due_ns / NS_PER_S)
    assert due == pytest.approx([number / 10 for number in range(10)])


def test_who_sends_twice_at_once_has_a_second_copy_that_cannot_wait() -> None:
    world = World(plan(shares=Shares(0, 1, 0, 0), buyers=40))
    first = next(job for job in iter(world.agenda.take, None) if job.manners & manner.REPEATS_AT_ONCE)
    copy = world.agenda.take()
    assert copy is not None
    assert (copy.index, copy.twice, first.twice) == (first.index, True, False)
