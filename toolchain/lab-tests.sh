#!/bin/sh
# Runs the lab tests where a lab can be made; says why where it cannot.
set -eu
cd "$(dirname -- "$0")/.."
if [ "$(id -u)" != 0 ]; then
    echo "SKIPPED: tests/lab: a lab needs root, this is user $(id -un)"
elif ! unshare --net --mount --pid --fork true 2>/dev/null; then
    echo "SKIPPED: tests/lab: this machine does not let root make namespaces (a container without privileges?)"
else
    exec .venv/bin/python -m pytest -q --durations=20 tests/lab
fi
