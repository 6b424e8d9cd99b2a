"""SCRAM-SHA-256 verifiers as PostgreSQL stores them: made here, so that no password stands in a statement.

Passwords are the site's own (letters, digits, ``_`` and ``-``), so SASLprep changes nothing and is left out.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re

ITERATIONS = 4096
"""PostgreSQL's own default; the passwords are random and long, so more would only slow each connection."""
SALT_BYTES = 16

_VERIFIER = re.compile(
    r"SCRAM-SHA-256\$(?P<iterations>[1-9][0-9]{0,8}):(?P<salt>[A-Za-z0-9+/=]+)"
    r"\$(?P<stored>[A-Za-z0-9+/=]+):(?P<server>[A-Za-z0-9+/=]+)"
)


def verifier(password: str, *, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """Return the verifier of a password; ``salt`` is random unless given."""
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, iterations)
    client = hmac.digest(salted, b"Client Key", "sha256")
    stored = hashlib.sha256(client).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${iterations}:{_b64(salt)}${_b64(stored)}:{_b64(server)}"


def matches(password: str, stored: str | None) -> bool:
    """Say whether a stored verifier belongs to this password; None and other formats do not."""
    found = _VERIFIER.fullmatch(stored or "")
    if found is None:
        return False
    try:
        salt = base64.b64decode(found["salt"], validate=True)
    except ValueError:
        return False
    again = verifier(password, salt=salt, iterations=int(found["iterations"]))
    return hmac.compare_digest(again, stored or "")


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
