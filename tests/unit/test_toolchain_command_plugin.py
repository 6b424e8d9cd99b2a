"""The command plugin's pure parts: what inputs are refused, what counts as a difference, what errors say."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import asyncssh
import pytest
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.provider.experimental.provider import PropertyDiffKind

from toolchain.command_plugin import inputs
from toolchain.command_plugin.connection import Connection, dial
from toolchain.command_plugin.errors import CommandError

HOST = {"connection": {"host": "db-01"}}


def values(given: Any) -> Any:
    """Build property values; `("secret", x)` is a secret, Ellipsis an unknown."""
    if given is ...:
        return PropertyValue.computed()
    if isinstance(given, tuple):
        return values(given[1]).with_secret(is_secret=True)
    if isinstance(given, dict):
        return PropertyValue({key: values(item) for key, item in given.items()})
    if isinstance(given, list):
        return PropertyValue([values(item) for item in given])
    return PropertyValue(float(given) if isinstance(given, int) and not isinstance(given, bool) else given)


def properties(given: dict[str, Any]) -> dict[str, PropertyValue]:
    """Build a resource's properties."""
    return {key: values(item) for key, item in given.items()}


@pytest.mark.parametrize(
    ("given", "where", "says"),
    [
        ({}, "connection", "missing"),
        ({"connection": {"user": "u"}}, "connection.host", "missing"),
        ({"connection": "db-01"}, "connection", "must be an object"),
        ({"connection": {"host": 7}}, "connection.host", "must be a string"),
        ({"connection": {"host": "h", "port": "22"}}, "connection.port", "must be a number"),
        ({"connection": {"host": "h", "prot": 22}}, "connection.prot", "unknown; known are .*port"),
        ({"connection": {"host": "h", "proxy": {"host": "p"}}}, "connection.proxy", "official one is needed"),
        ({"connection": {"host": "h", "agentSocketPath": "/a"}}, "connection.agentSocketPath", "official one"),
        ({**HOST, "stdin": {"a": "b"}}, "stdin", "must be a string"),
        ({**HOST, "create": True}, "create", "must be a string"),
        ({**HOST, "logging": "loud"}, "logging", "one of stdout, stderr, stdoutAndStderr, none"),
        ({**HOST, "triggers": "x"}, "triggers", "must be a list"),
        ({**HOST, "environment": {"A": 1}}, "environment", "must be a map of strings"),
        ({**HOST, "addPreviousOutputInEnv": "no"}, "addPreviousOutputInEnv", "must be a boolean"),
        ({**HOST, "assetPaths": []}, "assetPaths", "unknown; known are"),
    ],
)
def test_wrong_inputs_are_named(given: dict[str, Any], where: str, says: str) -> None:
    (problem,) = inputs.problems(properties(given))
    assert problem.property == where
    assert re.search(says, problem.reason)


def test_values_are_not_repeated_in_problems() -> None:
    given = {"connection": ("secret", {"host": "h", "privateKey": 5, "password": ["hidden"]}), "stdin": ["hidden"]}
    problems = inputs.problems(properties(given))
    assert [problem.property for problem in problems] == ["stdin", "connection.password", "connection.privateKey"]
    assert not [problem for problem in problems if "hidden" in problem.reason]


@pytest.mark.parametrize(
    "given",
    [
        HOST,
        {**HOST, "create": ..., "stdin": ..., "triggers": ...},
        {"connection": ...},
        {"connection": {"host": ..., "port": 2222, "privateKey": ("secret", "k")}},
        {**HOST, "create": None, "environment": {"A": "b"}, "triggers": [1, {"a": None}], "logging": "none"},
        {**HOST, "__internal": "x"},
    ],
)
def test_right_and_unknown_inputs_pass(given: dict[str, Any]) -> None:
    assert inputs.problems(properties(given)) == []


def test_defaults_are_filled_in_and_the_connection_is_a_secret() -> None:
    made = inputs.with_defaults(properties({"connection": {"host": "h", "port": 2222, "user": None}}))
    assert made["connection"].is_secret
    assert inputs.plain(made["connection"]) == {
        "host": "h", "port": 2222.0, "user": "root", "dialErrorLimit": 10.0, "perDialTimeout": 15.0,
    }  # fmt: skip
    assert inputs.with_defaults(properties({"connection": ...}))["connection"].is_secret


UPDATE, REPLACE = PropertyDiffKind.UPDATE, PropertyDiffKind.UPDATE_REPLACE


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"stdin": "a", "stdout": "x", "stderr": ""}, {"stdin": "a"}, {}),
        ({"stdin": "a"}, {"stdin": "b"}, {"stdin": UPDATE}),
        ({"stdin": "a"}, {"stdin": ("secret", "a")}, {}),
        ({"stdin": "a"}, {"stdin": ...}, {"stdin": UPDATE}),
        ({}, {"stdin": "a"}, {"stdin": PropertyDiffKind.ADD}),
        ({"stdin": "a"}, {}, {"stdin": PropertyDiffKind.DELETE}),
        ({"stdin": None}, {}, {}),
        ({"delete": "a"}, {"delete": "b"}, {"delete": UPDATE}),
        ({"triggers": ["a"]}, {"triggers": ["b"]}, {"triggers[0]": REPLACE}),
        ({"triggers": ["a"]}, {"triggers": ["a", "b"]}, {"triggers[1]": PropertyDiffKind.ADD_REPLACE}),
        ({"triggers": ["a", "b"]}, {"triggers": ["a"]}, {"triggers[1]": PropertyDiffKind.DELETE_REPLACE}),
        ({}, {"triggers": ["a"]}, {"triggers": PropertyDiffKind.ADD_REPLACE}),
        ({"triggers": [{"a": 1}]}, {"triggers": [{"a": 2}]}, {"triggers[0].a": REPLACE}),
        ({"triggers": [{"a": 1, "b": None}]}, {"triggers": [{"a": 1}]}, {}),
        ({"triggers": ["a"]}, {"triggers": [...]}, {"triggers[0]": REPLACE}),
        ({"environment": {"A.B": "1"}}, {"environment": {"A.B": "2"}}, {'environment["A.B"]': UPDATE}),
        (
            {"connection": ("secret", {"host": "a", "privateKey": "k"})},
            {"connection": ("secret", {"host": "a", "privateKey": "l"})},
            {"connection": UPDATE},
        ),
        ({"connection": ("secret", {"host": "a"})}, {"connection": {"host": "a"}}, {}),
        ({"__defaults": "a"}, {"__defaults": "b"}, {}),
        ({"addPreviousOutputInEnv": True}, {"addPreviousOutputInEnv": 1}, {"addPreviousOutputInEnv": UPDATE}),
    ],
)
def test_difference(old: dict[str, Any], new: dict[str, Any], expected: dict[str, PropertyDiffKind]) -> None:
    found = inputs.difference(properties(old), properties(new))
    assert {path: difference.kind for path, difference in found.items()} == expected


def test_secrets_are_not_in_a_connections_repr() -> None:
    made = Connection(host="h", private_key="hidden", password="hidden", private_key_password="hidden")
    assert "hidden" not in repr(made)


def try_to_dial(connection: Connection, *, cancelled: bool = False, seconds: float = 0) -> tuple[str, list[str]]:
    """Dial, expecting an error; return it and the log lines."""
    lines: list[str] = []

    async def work() -> None:
        event = asyncio.Event()
        if cancelled:
            event.set()
        await dial(connection, log=lines.append, cancelled=event, seconds=seconds)

    with pytest.raises(CommandError) as caught:
        asyncio.run(work())
    return str(caught.value), lines


def test_unreadable_keys_fail_before_any_dial() -> None:
    error, lines = try_to_dial(Connection(host="127.0.0.1", port=1, private_key="-----hidden"))
    assert error == "connection.privateKey for 127.0.0.1:1 cannot be read"
    assert lines == []
    error, lines = try_to_dial(Connection(host="::1", port=1, host_key="ssh-ed25519 nonsense"))
    assert error.startswith("connection.hostKey for [::1]:1 is no public key")
    assert lines == []


def test_an_encrypted_private_key_without_its_password_fails_before_any_dial() -> None:
    key = asyncssh.generate_private_key("ssh-ed25519").export_private_key("pkcs8-pem", passphrase="p").decode()
    error, lines = try_to_dial(Connection(host="127.0.0.1", port=1, private_key=key))
    assert error == "connection.privateKey for 127.0.0.1:1 cannot be read"
    assert lines == []


def test_dials_are_counted() -> None:
    error, lines = try_to_dial(Connection(host="127.0.0.1", port=1, dial_error_limit=2))
    assert error.startswith("after 2 failed attempts: dial tcp 127.0.0.1:1: ")
    assert lines == ["Dial 1/2 failed: retrying", "Dial 2/2 failed: retrying"]


def test_no_limit_ends_with_the_resources_own_time_limit() -> None:
    error, lines = try_to_dial(Connection(host="127.0.0.1", port=1, dial_error_limit=-1), seconds=0.2)
    assert error.startswith("context deadline exceeded: dial tcp 127.0.0.1:1: ")
    assert lines[0] == "Dial 1/inf failed: retrying"


def test_cancelling_ends_the_waiting() -> None:
    error, lines = try_to_dial(Connection(host="127.0.0.1", port=1, dial_error_limit=-1), cancelled=True)
    assert error == "cancelled while waiting for 127.0.0.1:1"
    assert len(lines) == 1
