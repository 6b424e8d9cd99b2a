#!/bin/sh
# Makes .venv from the hash-locked requirements.txt, unless it was made from this very file.
# PYTHON names the interpreter. A cut run leaves no stamp and is done again.
set -eu
cd "$(dirname -- "$0")/.."
python=${PYTHON:-python3}
stamp=.venv/.requirements.sha256

if ! command -v "$python" >/dev/null 2>&1; then
    echo "setup: $python not found: install Python 3.11 or newer (Debian, Ubuntu: apt-get install python3 python3-venv)" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "setup: $("$python" --version) is too old: Python 3.11 or newer is needed (PYTHON=... names another)" >&2
    exit 1
fi

wanted=$("$python" - <<'PY'
import hashlib, pathlib, sys
print(hashlib.sha256(pathlib.Path("requirements.txt").read_bytes() + sys.version.encode()).hexdigest())
PY
)
link() { ln -sf ../../bin/keadb .venv/bin/keadb; }
if [ "$(cat "$stamp" 2>/dev/null || true)" = "$wanted" ] && .venv/bin/python -c '' 2>/dev/null; then
    link
    exit 0
fi

if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "setup: $python has no venv: installing python3-venv"
        apt-get update -q && apt-get install -y -q --no-install-recommends python3-venv
    else
        echo "setup: $python has no venv module: install it (Debian, Ubuntu: apt-get install python3-venv)" >&2
        exit 1
    fi
fi

echo "setup: Python packages into .venv (hash-locked requirements.txt)"
# Over an environment of the same interpreter, so that whoever uses it meanwhile is not cut off.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1 ||
    [ "$(.venv/bin/python -V)" != "$("$python" -V)" ]; then
    "$python" -m venv --clear .venv
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r requirements.txt
link
echo "$wanted" >"$stamp"
