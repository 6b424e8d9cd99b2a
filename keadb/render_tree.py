"""Writes every file of every host into a folder: the exact difference of a change, without engine or secrets.

``<out>/<host>/files/<path>`` holds what the host gets (secrets as placeholders), ``<out>/<host>/bundles/<name>.json``
the rest of the bundle. Two runs over the same bundles give identical trees.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from keadb.bundle import Bundle

MARKER = ".keadb-render"
"""Says that a folder is ours to clean: holds the list of files that the last run wrote."""


class RenderError(Exception):
    """The output folder cannot be used, or two bundles of a host write the same file."""


def tree(bundles: Mapping[str, Sequence[Bundle]]) -> dict[str, str]:
    """Return relative path to text of the whole tree, sorted. Raises RenderError when bundles collide."""
    texts: dict[str, str] = {}

    def add(path: str, text: str, origin: str) -> None:
        if path in texts:
            message = f"{origin}: {path} is written twice"
            raise RenderError(message)
        texts[path] = text

    for host, of_host in sorted(bundles.items()):
        for bundle in of_host:
            origin = f"bundle {bundle.name} on {host}"
            for path, file in bundle.files.items():
                if not path.startswith("/") or ".." in PurePosixPath(path).parts:
                    message = f"{origin}: {path} is not an absolute path"
                    raise RenderError(message)
                add(f"{host}/files{path}", file.content, origin)
            add(f"{host}/bundles/{bundle.name}.json", _without_contents(bundle), origin)
    return dict(sorted(texts.items()))


def write_tree(out: Path, bundles: Mapping[str, Sequence[Bundle]]) -> dict[str, str]:
    """Write the tree under ``out`` and return it; files of an earlier run that are no longer wanted are removed.

    Raises RenderError when ``out`` holds anything that an earlier run did not write: nothing of it is touched then.
    """
    wanted = tree(bundles)
    earlier = _earlier(out)
    present = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir() or path.is_symlink()}
    foreign = sorted(present - earlier - {MARKER})
    if foreign:
        others = " and more" if len(foreign) > 1 else ""
        message = f"{out}: holds {foreign[0]}{others}, which no earlier render wrote; give an empty folder"
        raise RenderError(message)
    out.mkdir(parents=True, exist_ok=True)
    # The list first, with old and new: cut at any line, the next run still knows what is ours.
    _write_list(out, earlier | set(wanted))
    for stale in sorted(present - set(wanted) - {MARKER}):
        (out / stale).unlink()
    for folder in sorted((path for path in out.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    for path, text in wanted.items():
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8", newline="\n")
    _write_list(out, set(wanted))
    return wanted


def _without_contents(bundle: Bundle) -> str:
    """Return the bundle's JSON without contents and digests: a changed line shows once, as that line."""
    plain = bundle.as_dict()
    for file in plain["files"].values():
        del file["content"]
    plain["inputs"] = sorted(plain["inputs"])
    return json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _earlier(out: Path) -> set[str]:
    try:
        return set((out / MARKER).read_text(encoding="utf-8").splitlines())
    except FileNotFoundError:
        return set()
    except NotADirectoryError:
        message = f"{out}: is not a folder"
        raise RenderError(message) from None


def _write_list(out: Path, paths: set[str]) -> None:
    (out / MARKER).write_text("".join(f"{path}\n" for path in sorted(paths)), encoding="utf-8")
