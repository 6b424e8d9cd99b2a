"""A client of the drill: each attempt has an end, a number of its own, and a new connection after a failure."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import psycopg
import pytest

from ops import drill_client
from ops.drill_client import WrongAnswerError, attempts

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeConnection:
    """Knows only that it was closed."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        """Close it."""
        self.closed = True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses, and attempts that end soon."""
    for name, seconds in (("PAUSE", 0.0), ("CONNECT_FAILED_PAUSE", 0.0), ("ATTEMPT", 0.05)):
        monkeypatch.setattr(drill_client, name, seconds)


def _run(outcomes: list[Callable[[], str]]) -> tuple[list[tuple[int, str, str]], list[FakeConnection]]:
    made: list[FakeConnection] = []

    def connect() -> psycopg.Connection:
        made.append(FakeConnection())
        return cast("psycopg.Connection", made[-1])

    left = iter(outcomes)
    done: list[tuple[int, str, str]] = []
    for number, begin, end, how, said in attempts(
        lambda _connection, _number: next(left)(), connect, lambda: len(done) < len(outcomes)
    ):
        assert begin <= end < begin + 1
        done.append((number, how, said))
    return done, made


def _fails() -> str:
    msg = "the server\nis gone"
    raise psycopg.OperationalError(msg)


def _hangs() -> str:
    time.sleep(5)
    return "late"


def _lies() -> str:
    msg = "aabb has []"
    raise WrongAnswerError(msg)


def test_a_failure_costs_its_number_and_its_connection() -> None:
    """So an id is either acknowledged or nobody was told that it was; a reason is one line."""
    done, made = _run([lambda: "1 a", _fails, lambda: "1 a"])
    assert done == [(1, "ok", "1 a"), (2, "failed", "OperationalError the server is gone"), (3, "ok", "1 a")]
    assert [connection.closed for connection in made] == [True, False]


def test_who_hangs_is_left() -> None:
    """By this side's own clock: the server is asked nothing."""
    done, made = _run([_hangs, lambda: "1 a"])
    assert done == [(1, "failed", "TooSlowError "), (2, "ok", "1 a")]
    assert made[0].closed


def test_a_wrong_answer_is_told_apart() -> None:
    """It is worse than none."""
    assert _run([_lies])[0] == [(1, "wrong", "WrongAnswerError aabb has []")]
