"""``python -m lab``: the lab's commands by themselves."""

from __future__ import annotations

from lab.cli import lab

if __name__ == "__main__":
    lab(prog_name="python -m lab")
