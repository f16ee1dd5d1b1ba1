#!/usr/bin/env bash
# Installs the package into the interpreter that runs and tests what was installed, from a folder
# that holds nothing of the checkout but the tests. Arguments are requirements that go with it.
#
#   PYTHON=python3.14t .github/scripts/test_installed.sh "pika==1.3.2" "twisted==22.10.0"
set -euo pipefail
cd "$(dirname "$0")/../.."
checkout=$PWD
python=${PYTHON:-python}
outside=$(mktemp -d)
trap 'rm -rf "$outside"' EXIT

"$python" -m pip install --quiet --upgrade "pip>=25.1"
"$python" -m pip install --quiet --prefer-binary '.[test]' "$@"
cp -r tests pyproject.toml "$outside"
cd "$outside"
"$python" - "$checkout" <<'END'
import os, sys, sysconfig
import pika_twisted
from pika_twisted.codec import chooser

checkout = os.path.realpath(sys.argv[1])
assert not os.path.realpath(pika_twisted.__file__).startswith(checkout + os.sep + "pika_twisted"), (
    "the checkout is tested, not what was installed"
)
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    assert not sys._is_gil_enabled(), "a module has switched the interpreter's lock on"
wanted = "compiled"
if os.environ.get("PIKA_TWISTED_PURE") == "1" or sys.implementation.name != "cpython":
    wanted = "reference"
assert chooser.IMPLEMENTATION == wanted, chooser.IMPLEMENTATION
END
"$python" -m pika_twisted
"$python" -m pytest -n auto --dist worksteal ${TEST_ARGS:-} tests/unit tests/defects
