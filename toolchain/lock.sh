#!/bin/sh
# Writes requirements.txt from requirements.in: every package with its hashes, for every platform, and
# without the address of the index that happened to be used. `UPGRADE=1` takes newer versions where allowed.
set -eu
cd "$(dirname -- "$0")/.."
cache=${KEADB_CACHE:-$HOME/.cache/keadb}
uv=$cache/uv/bin/uv
if [ ! -x "$uv" ]; then
    echo "lock: installing uv into $cache/uv"
    .venv/bin/python -m venv --clear "$cache/uv"
    "$cache/uv/bin/python" -m pip install --quiet --disable-pip-version-check uv
fi
"$uv" pip compile requirements.in --quiet --generate-hashes --universal --python-version 3.11 \
    --no-header --no-annotate --no-emit-index-url ${UPGRADE:+--upgrade} --output-file requirements.txt
git --no-pager diff --stat -- requirements.txt
