"""Errors of the engine and of hosts, as people read them."""

from __future__ import annotations

import pytest

from ops.messages import ERROR_LINES, readable

RAN = 'running "sudo -n /usr/lib/keadb/keadb-apply apply":\n'
LOST = "wait: remote command exited without exit status or exit signal"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ('Process exited with status 1: running "a \\"quoted\\" one":\nwhy', "why"),
        ('exit status 7: running "true":\n', "exit status 7"),
        ("dial tcp 172.30.17.10:22: connection refused", "dial tcp 172.30.17.10:22: connection refused"),
        ("", "failed and said nothing"),
        (
            "\n".join(f"line {n}" for n in range(40)),
            "\n".join(["[... 28 lines before]", *(f"line {n}" for n in range(28, 40))]),
        ),
    ],
)
def test_what_people_read_of_an_error(message: str, shown: str) -> None:
    assert readable(message) == shown


@pytest.mark.parametrize("why", ["", " (Connection lost)", " (Connection reset by peer)"])
def test_a_lost_connection_is_told_as_that(why: str) -> None:
    """And not as the last thing that the step told, which is no error."""
    said = readable(f"{LOST}{why}: {RAN}stopping\nwaiting for bundle etcd to end\n", "db-01", "base")
    assert said == (
        "the connection to db-01 was lost during base; the step may still run there, and the next 'keadb up' waits "
        "for it; the last it told: waiting for bundle etcd to end"
    )
    assert readable(f"{LOST}{why}: {RAN}") == (
        "the connection to the host was lost during a step; the step may still run there, and the next 'keadb up' "
        "waits for it"
    )


def test_a_command_that_was_killed_is_told_as_that() -> None:
    said = readable(f"Process exited from signal KILL: {RAN}half way\n", "db-01", "base")
    assert said == "Process exited from signal KILL; the last it told: half way"


def test_a_refusal_is_shown_whole_and_what_was_told_before_it_is_not() -> None:
    """A difference that was cut without a word would be taken for all of it."""
    refusal = "\n".join(
        ["keadb-apply apply: nothing was changed", *(f"+line {n}" for n in range(80)), "To keep an edit"]
    )
    assert readable(f"Process exited with status 3: {RAN}installing a\n{refusal}\n") == refusal


def test_an_error_without_end_says_how_much_is_left_out() -> None:
    lines = ["keadb-apply apply: it begins", *(f"line {n}" for n in range(500)), "it ends"]
    shown = readable(f"Process exited with status 1: {RAN}" + "\n".join(lines)).splitlines()
    assert len(shown) == ERROR_LINES + 1
    assert (shown[0], shown[-1]) == ("keadb-apply apply: it begins", "it ends")
    assert f"[... {len(lines) - ERROR_LINES} lines left out]" in shown


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("sudo: a password is required", "may not run the applier there: its rule for sudo is gone"),
        (
            "sudo: unable to execute /usr/lib/keadb/keadb-apply: No such file or directory",
            "its interpreter (python3) is gone or broken",
        ),
        ("sudo: /usr/lib/keadb/keadb-apply: command not found", "The applier or its interpreter"),
    ],
)
def test_what_sudo_says_gets_the_reason_that_it_has_here(said: str, advice: str) -> None:
    first, second = readable(f"Process exited with status 1: {RAN}{said}\n").splitlines()
    assert first == said
    assert advice in second
