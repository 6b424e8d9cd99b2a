"""Checked field types of the site model.

Each says in its error what is allowed, so that nobody has to know pydantic's wording. Values arrive from YAML or,
through the engine's configuration, from JSON that Go wrote: 4.0 becomes 4, 3.0 becomes 3, dates may become
timestamps. The types take both forms and give the same value. They do not look at other keys (see site_rules).
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Callable
from datetime import date
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from keadb.bundle import SECRET_PLACEHOLDER

ERROR_TYPE = "keadb"
"""Type of the errors raised here; their context holds ``allowed``."""

LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
PRIVATE = tuple(IPv4Network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))


def refuse(message: str, allowed: str) -> PydanticCustomError:
    """Return the error for a value; braces of the texts are kept as they are."""
    return PydanticCustomError(ERROR_TYPE, "{message}", {"message": message, "allowed": allowed})


def whole(low: int, high: int, unit: str = "", *, step: int = 1) -> BeforeValidator:
    """Take a whole number from ``low`` to ``high`` (also 4.0, never true or "4"), a multiple of ``step``."""
    steps = f" in steps of {step}" if step > 1 else ""
    allowed = f"a whole number from {low} to {high}{steps}{f' ({unit})' if unit else ''}"

    def check(value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            message = "is not a whole number"
            raise refuse(message, allowed)
        if not low <= value <= high:
            message = "is too small" if value < low else "is too large"
            raise refuse(message, allowed)
        if value % step:
            message = "is finer than it can be told"
            raise refuse(message, allowed)
        return value

    return BeforeValidator(check)


def text(pattern: str, allowed: str, longest: int = 253) -> BeforeValidator:
    """Take text that matches ``pattern`` as a whole."""
    compiled = re.compile(pattern)

    def check(value: Any) -> str:
        if not isinstance(value, str):
            message = "is not text"
            if isinstance(value, bool):
                message += " (YAML reads yes, no, on and off as true and false: quote it)"
            raise refuse(message, allowed)
        if len(value) > longest:
            message = f"is longer than {longest} characters"
            raise refuse(message, allowed)
        if not compiled.fullmatch(value):
            message = "is not of the right form"
            raise refuse(message, allowed)
        return value

    return BeforeValidator(check)


def choice(*values: str) -> BeforeValidator:
    """Take one of ``values``; an unquoted 3.0 that YAML or JSON made a number counts as "3.0"."""
    allowed = " or ".join(f'"{v}"' for v in values)
    numbers = {float(v): v for v in values if re.fullmatch(r"\d+\.\d+", v)}

    def check(value: Any) -> str:
        if isinstance(value, int | float) and not isinstance(value, bool) and value in numbers:
            return numbers[value]
        if not isinstance(value, str) or value not in values:
            message = "is not one of the known values"
            raise refuse(message, allowed)
        return value

    return BeforeValidator(check)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        message = "is not a yes or no"
        raise refuse(message, "true or false")
    return value


def address(value: Any) -> IPv4Address:
    """Take one IPv4 address written out (never a number, no leading zeros)."""
    allowed = 'an IPv4 address such as "172.30.17.10"'
    try:
        if not isinstance(value, str):
            message = "is not an IPv4 address"
            raise refuse(message, allowed)
        found = IPv4Address(value)
    except AddressValueError:
        message = "is not an IPv4 address"
        raise refuse(message, allowed) from None
    if found.is_loopback or found.is_multicast or found.is_unspecified or found.is_link_local or found.is_reserved:
        message = "is an address that no machine of a site can have"
        raise refuse(message, allowed)
    return found


def _subnet(value: Any) -> IPv4Network:
    allowed = 'a private network with a prefix of 16 to 28, such as "172.30.17.0/24"'
    try:
        if not isinstance(value, str) or "/" not in value:
            message = "is not a network"
            raise refuse(message, allowed)
        found = IPv4Network(value)
    except (AddressValueError, NetmaskValueError):
        message = "is not a network"
        raise refuse(message, allowed) from None
    except ValueError:
        message = "has bits set behind its prefix"
        raise refuse(message, allowed) from None
    if not 16 <= found.prefixlen <= 28:  # noqa: PLR2004 - the numbers of the message
        message = "is too large or too small for a site"
        raise refuse(message, allowed)
    if not any(found.subnet_of(private) for private in PRIVATE):
        message = "is not private"
        raise refuse(message, allowed)
    return found


def _source(value: Any) -> IPv4Network:
    """Take one address or one private network; an address becomes a network of one."""
    if isinstance(value, str) and "/" not in value:
        return IPv4Network(address(value))
    allowed = 'an IPv4 address, or a private network of prefix 16 to 32 such as "172.30.40.0/26"'
    try:
        if not isinstance(value, str):
            message = "is not an address or a network"
            raise refuse(message, allowed)
        found = IPv4Network(value)
    except (AddressValueError, NetmaskValueError):
        message = "is not an address or a network"
        raise refuse(message, allowed) from None
    except ValueError:
        message = "has bits set behind its prefix"
        raise refuse(message, allowed) from None
    if found.prefixlen < 16 or not any(found.subnet_of(private) for private in PRIVATE):  # noqa: PLR2004 - as in the message
        message = "is too large a network, or one that is not private"
        raise refuse(message, allowed)
    return found


def _day(value: Any) -> date:
    allowed = 'a day from 2020 to 2100 as "YYYY-MM-DD"'
    if isinstance(value, date):
        # The engine rewrites a stack file whenever it stores a secret, and would turn it into a point in time.
        message = "is a day without quotes, which does not survive the engine's rewriting of the file"
        raise refuse(message, allowed)
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        message = "is not a day"
        raise refuse(message, allowed)
    try:
        day = date.fromisoformat(value)
    except ValueError:
        message = "is not a day of the calendar"
        raise refuse(message, allowed) from None
    if not 2020 <= day.year <= 2100:  # noqa: PLR2004 - the numbers of the message
        message = "is outside the years that make sense"
        raise refuse(message, allowed)
    return day


def _host_key(value: Any) -> str:
    """Take an Ed25519 host key; give it without its comment, so that a changed comment changes nothing."""
    allowed = 'one line "ssh-ed25519 AAAA..." as in /etc/ssh/ssh_host_ed25519_key.pub'
    fields = value.split() if isinstance(value, str) and "\n" not in value.strip() else []
    if len(fields) not in (2, 3) or fields[0] != "ssh-ed25519":
        message = "is not an Ed25519 host key"
        raise refuse(message, allowed)
    header = struct.pack(">I", 11) + b"ssh-ed25519" + struct.pack(">I", 32)
    try:
        raw = base64.b64decode(fields[1], validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != len(header) + 32 or not raw.startswith(header):
        message = "does not parse as an Ed25519 host key"
        raise refuse(message, allowed)
    return f"ssh-ed25519 {base64.b64encode(raw).decode()}"


def scalar(value: Any) -> str | int | float | bool:
    """Take the value of a PostgreSQL parameter: one line of text, a number, or true/false."""
    allowed = "text of one line (at most 500 characters), a number, true or false"
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 - NaN is what differs from itself
            message = "is not a number that PostgreSQL takes"
            raise refuse(message, allowed)
        return int(value) if value.is_integer() else value
    if isinstance(value, int):
        if abs(value) >= 2**63:
            message = "is too large"
            raise refuse(message, allowed)
        return value
    if not isinstance(value, str) or len(value) > 500 or not value.isprintable():  # noqa: PLR2004 - as in the message
        message = "is not a plain value"
        raise refuse(message, allowed)
    return _no_placeholder(value)


def _no_placeholder(value: str) -> str:
    if SECRET_PLACEHOLDER.search(value):
        message = "names a secret, which a site file cannot"
        raise refuse(message, "text without @secret:NAME@")
    return value


def _reason(value: Any) -> str:
    allowed = "a sentence of 10 to 500 characters"
    if not isinstance(value, str) or not value.isprintable():
        message = "is not text of one line"
        raise refuse(message, allowed)
    if not 10 <= len(value.strip()) <= 500:  # noqa: PLR2004 - as in the message
        message = "is too short or too long to explain anything"
        raise refuse(message, allowed)
    return value.strip()


def ordered(allowed: str) -> BeforeValidator:
    """Take a list without duplicates (not a set or a mapping) as a tuple."""

    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            message = "is not a list"
            raise refuse(message, allowed)
        if any(value.index(item) != position for position, item in enumerate(value)):
            message = "has an entry twice"
            raise refuse(message, allowed)
        return tuple(value)

    return BeforeValidator(check)


def by_name(allowed: str) -> BeforeValidator:
    """Take a mapping and sort it by key: the engine's configuration does not keep the file's order."""

    def check(value: Any) -> dict[Any, Any]:
        if not isinstance(value, dict):
            message = "is not a mapping"
            raise refuse(message, allowed)
        return dict(sorted(value.items(), key=lambda item: str(item[0])))

    return BeforeValidator(check)


def _after(function: Callable[[Any], Any]) -> BeforeValidator:
    return BeforeValidator(function)


Flag = Annotated[bool, _after(_flag)]
Address = Annotated[IPv4Address, _after(address)]
Subnet = Annotated[IPv4Network, _after(_subnet)]
Source = Annotated[IPv4Network, _after(_source)]
Day = Annotated[date, _after(_day)]
HostKey = Annotated[str, _after(_host_key)]
Scalar = Annotated[str | int | float | bool, _after(scalar)]
Reason = Annotated[str, _after(_reason)]
PackageVersion = Annotated[
    str,
    text(
        r"([0-9]+:)?[0-9][A-Za-z0-9.+~]*(-[A-Za-z0-9.+~-]*[A-Za-z0-9.+~])?",
        'the full version of a package as "apt-cache madison PACKAGE" shows it, quoted, such as "15.14-0+deb12u1"',
        longest=100,
    ),
]
Label = Annotated[
    str, text(LABEL, "a DNS label: lower-case letters, digits and dashes, at most 63 characters", longest=63)
]
SiteName = Annotated[
    str,
    text(
        r"[a-z]([a-z0-9-]*[a-z0-9])?",
        "lower-case letters, digits and dashes, at most 20 characters",
        longest=20,
    ),
]
DomainName = Annotated[str, text(rf"{LABEL}(\.{LABEL})+", 'a DNS domain such as "example.com"')]
