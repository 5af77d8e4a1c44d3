"""Buyers are a pure function of the seed, and their tokens are tokens."""

from __future__ import annotations

import jwt
import pytest

from ticketrush.crowd import buyers as manner
from ticketrush.crowd.buyers import Asked, Buyers, Shares, minter
from ticketrush.crowd.errors import CrowdError, OptionError
from ticketrush.crowd.options import RushOptions

SECRET = b"s" * 40


def test_the_same_seed_sends_the_same_people() -> None:
    one, again, other = Buyers(7, Shares()), Buyers(7, Shares()), Buyers(8, Shares())
    many = range(5_000)
    backwards = {index: again.manners(index) for index in reversed(many)}
    assert [one.manners(index) for index in many] == [backwards[index] for index in many]
    assert [one.manners(index) for index in many] != [other.manners(index) for index in many]
    assert one.name(3) != other.name(3)
    assert one.fraction(3) == again.fraction(3)


def test_manners_have_the_shares_that_were_asked_for() -> None:
    many = 50_000
    buyers = Buyers(1, Shares(abandon=0.2, duplicates=0.05, cuts=0.02, breakers=0.01))
    drawn = [buyers.manners(index) for index in range(many)]

    def share(bit: int) -> float:
        return sum(bool(manners & bit) for manners in drawn) / many

    assert share(manner.ABANDONS) == pytest.approx(0.2, abs=0.01)
    assert share(manner.REPEATS) == pytest.approx(0.05, abs=0.005)
    assert share(manner.REPEATS_AT_ONCE) == pytest.approx(0.025, abs=0.005)
    assert share(manner.CUTS) == pytest.approx(0.02, abs=0.004)
    assert share(manner.BREAKS_LIMIT) == pytest.approx(0.01, abs=0.003)


def test_shares_of_none_and_all() -> None:
    none = Buyers(1, Shares(0, 0, 0, 0))
    every = Buyers(1, Shares(1, 1, 1, 1))
    assert {none.manners(index) for index in range(1_000)} == {0}
    assert all(every.manners(index) & manner.ABANDONS and every.manners(index) & manner.CUTS for index in range(1_000))


def test_asked_for_recognises_every_key_of_the_crowd_and_nothing_else() -> None:
    buyers, asked = Buyers(3, Shares()), Asked(seed=3, count=100)
    for index in (0, 99):
        for wish in range(manner.WISHES_MAX):
            assert asked(buyers.name(index).decode(), buyers.key(index, wish).decode())
    name, key = buyers.name(5).decode(), buyers.key(5, 0).decode()
    strangers = [
        (buyers.name(100).decode(), buyers.key(100, 0).decode()),  # never came
        (name, buyers.key(6, 0).decode()),  # another's key
        (name, name + ".2"),
        (name, name),
        (name, ""),
        ("alice", key),
        (name.replace("c3", "c4"), key),
        (name + "\n", key),
    ]
    assert [pair for pair in strangers if asked(*pair)] == []


@pytest.mark.parametrize("secret", [b"k" * 32, b"k" * 64, b"k" * 100, "ключ-".encode() * 7])
@pytest.mark.parametrize("audience", ["ticketrush", "a", "ab", "abc"])
def test_tokens_are_verified_by_another_library(secret: bytes, audience: str) -> None:
    mint = minter(secret, audience, 4_102_444_800, {"scope": "operator"})
    for subject in (b"c1-000000001", b"x", b"xy", b"rush-operator"):
        claims = jwt.decode(mint(subject), secret, algorithms=["HS256"], audience=audience)
        assert claims == {"sub": subject.decode(), "aud": audience, "exp": 4_102_444_800, "scope": "operator"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"buyers": 0},
        {"tickets": 0},
        {"connections": 0},
        {"arrivals": -1},
        {"abandon": 1.1},
        {"duplicates": -0.1},
        {"cuts": float("nan")},
        {"limit": 0},
        {"limit": 1_001},
        {"hold": 0},
        {"seed": -1},
        {"time_limit": 0},
        {"url": "127.0.0.1:8000"},
        {"url": "https://example.org"},
        {"url": "http://127.0.0.1:99999"},
        {"url": "http://127.0.0.1:8000/base"},
    ],
    ids=str,
)
def test_a_wrong_option_is_named_with_its_value(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionError) as caught:
        RushOptions(**wrong)  # type: ignore[arg-type]
    assert next(iter(wrong)) in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, CrowdError)


def test_enough_buyers_wait_for_abandoned_holds_to_sell_every_ticket() -> None:
    for abandon in (0.0, 0.2, 0.5, 0.9):
        options = RushOptions(tickets=10_000, abandon=abandon)
        assert options.comebacks_max * (1 - abandon) >= options.tickets
