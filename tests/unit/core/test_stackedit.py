"""Edits of ``logins`` in a stack file: exactly the lines concerned, whatever way people wrote them."""

from __future__ import annotations

import pytest

from keadb.stackedit import EditError, with_logins

HEAD = """\
# our site
config:
  keadb:site:
    name: us3  # the third
    tls: {ca_epoch: "2026-11-01", epoch: '2026-11-01'}
"""
TAIL = """\
    # Kea's own
    kea:
      version: "2.6"   # quoted

  keadb:secret_ca_key:
    secure: v1:abc
encryptionsalt: v1:def
"""
USE_B = ("read", "b")


def edited(logins: str, use: tuple[str, str] | None, *keep: str, tail: str = TAIL) -> str:
    """Return the lines that stand for ``logins`` afterwards; everything around them must be as it was."""
    text = with_logins(HEAD + logins + tail, source="Pulumi.us3.yaml", use=use, keep=keep)
    assert text.startswith(HEAD)
    assert text.endswith(tail)
    return text[len(HEAD) : len(text) - len(tail)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("    logins: {read: a}\n", "    logins: {read: b, keep: [kea_read_a]}\n"),
        ("    logins: {}  # none yet\n", "    logins: {read: b, keep: [kea_read_a]}  # none yet\n"),
        ('    logins: {"read": "a", owner: b} # x\n', '    logins: {"read": b, owner: b, keep: [kea_read_a]} # x\n'),
        (
            "    logins:\n      read: a  # by hand\n",
            "    logins:\n      read: b  # by hand\n      keep: [kea_read_a]\n",
        ),
        (
            "    logins:\n      # who\n      owner: b\n      # end\n",
            "    logins:\n      # who\n      owner: b\n      read: b\n      keep: [kea_read_a]\n      # end\n",
        ),
        (
            "    logins:\n        keep:\n        - kea_owner_b # Friday\n",
            "    logins:\n        keep:\n        - kea_owner_b # Friday\n        - kea_read_a\n        read: b\n",
        ),
        (
            "    logins: {keep: [kea_owner_b]}\n",
            "    logins: {keep: [kea_owner_b, kea_read_a], read: b}\n",
        ),
    ],
)
def test_a_rotation_changes_the_lines_concerned(before: str, after: str) -> None:
    keep = ("kea_owner_b", "kea_read_a") if "kea_owner_b" in before else ("kea_read_a",)
    assert edited(before, USE_B, *keep) == after
    assert edited(after, USE_B, *keep) == after


def test_without_the_part_it_comes_last_in_the_site() -> None:
    text = with_logins(HEAD + TAIL, source="f", use=USE_B, keep=("kea_read_a",))
    added = '      version: "2.6"   # quoted\n    logins: {read: b, keep: [kea_read_a]}\n'
    assert text == (HEAD + TAIL).replace('      version: "2.6"   # quoted\n', added)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("    logins: {read: b, keep: [kea_read_a]}\n", "    logins: {read: b}\n"),
        ("    logins: {keep: [kea_read_a], read: b} # x\n", "    logins: {read: b} # x\n"),
        ("    logins: {keep: [kea_read_b]}\n", "    logins: {keep: []}\n"),
        ("    logins:\n      read: b\n      keep:\n        - kea_read_a\n", "    logins:\n      read: b\n"),
        ("    logins:\n      keep: [kea_read_a] # soon\n      read: b\n", "    logins:\n      read: b\n"),
        ("    logins:\n      keep:\n      - kea_read_b\n", "    logins:\n      keep: []\n"),
    ],
)
def test_a_retirement_takes_the_list_away(before: str, after: str) -> None:
    assert edited(before, None) == after
    assert edited(after, None) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[kea_owner_b, kea_read_b]", "[kea_owner_b]"),
        ("[kea_read_b, kea_owner_b]", "[kea_owner_b]"),
        ("\n      - kea_read_b # one\n      - kea_owner_b # two", "\n      - kea_owner_b # two"),
    ],
)
def test_another_kept_login_stays_kept(before: str, after: str) -> None:
    assert (
        edited(f"    logins:\n      keep: {before}\n", None, "kea_owner_b") == f"    logins:\n      keep: {after}\n"
    )


def test_line_ends_and_a_missing_last_one_stay() -> None:
    text = "config:\r\n  keadb:site:\r\n    name: us3 # x"
    assert with_logins(text, source="f", use=USE_B, keep=()) == text + "\r\n    logins: {read: b}"


@pytest.mark.parametrize(
    "site",
    ["{name: us3}", "\n    logins: text", "\n    logins:\n      keep: kea_owner_a"],
    ids=["on one line", "no mapping", "no list"],
)
def test_what_cannot_be_edited_safely_is_refused_with_what_to_write(site: str) -> None:
    with pytest.raises(EditError, match=r"f: .*set it by hand: read: b, keep: \[kea_read_a\]"):
        with_logins(f"config:\n  keadb:site: {site}\n", source="f", use=USE_B, keep=("kea_read_a",))
