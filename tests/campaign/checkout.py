"""A copy of this checkout with edits, to run ``keadb`` from: what a merged change of templates or code does."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.harness import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@contextlib.contextmanager
def edited_copy(files: Mapping[str, Callable[[str], str]]) -> Iterator[Path]:
    """Give the ``keadb`` command of a copy in which each file was edited; the copy is removed at the end.

    Copies what git tracks, as it stands now. The virtual environment is shared.
    """
    folder = Path(tempfile.mkdtemp(prefix="keadb-checkout-"))
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        for name, edit in files.items():
            path = folder / name
            path.write_text(edit(path.read_text(encoding="utf-8")), encoding="utf-8")
        (folder / ".venv").symlink_to(ROOT / ".venv")
        yield folder / "bin" / "keadb"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
