"""``python -m ops``: the ``keadb`` command."""

from ops.cli import main

if __name__ == "__main__":
    main()
