"""The sources of the host side (hostkit/), as the bootstrap sends them to a host. Only reads files."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORMAT = 1
"""Version of the bootstrap's JSON."""


def modules(root: Path = ROOT) -> dict[str, str]:
    """Return module path ("hostkit/__init__.py") to source text, sorted, for the checkout at ``root``.

    Line ends are normalized, so that a checkout's settings change nothing. Raises FileNotFoundError when there is
    no host side under ``root``.
    """
    found = {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for path in (root / "hostkit").rglob("*.py")
        if "__pycache__" not in path.parts
    }
    if "hostkit/__main__.py" not in found:
        message = f"{root}: there is no hostkit/__main__.py; run keadb from its own checkout"
        raise FileNotFoundError(message)
    return dict(sorted(found.items()))
