#!/usr/bin/env bash
# Which lines the unit suite runs, Python's and Cython's: `make coverage`. Arguments go to pytest.
#
# Builds with line tracing into build/coverage, which gets a copy of the package and its tests. The
# suite runs twice, on the compiled codec and on the reference: 15 minutes of one core.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$PWD/.venv/bin/python
there=build/coverage

"$python" -c 'import sys; sys.exit(sys.version_info >= (3, 12))' || {
    echo "coverage.py sees no Cython lines from Python 3.12 on. Try: make PYTHON=python3.11 coverage" >&2
    exit 1
}
# What pyproject.toml asks for; the environment may have older ones.
"$python" -m pip install --quiet --disable-pip-version-check "setuptools>=77,<83" "Cython>=3.1,<3.4"
mkdir -p "$there/pika_twisted"
rm -rf "$there/tests" "$there"/.coverage*
cp -r tests pyproject.toml _frame.pyx "$there"
cp -r pika_twisted/*.py pika_twisted/*.pyi pika_twisted/*.pyx pika_twisted/codec "$there/pika_twisted"
PIKA_TWISTED_DEBUG=1 "$python" setup.py -q build_ext --build-lib "$there" --build-temp "$there/temp"
# Cython's plugin looks for the C beside the source, beside an included one, too.
cp "$there/temp/_frame.c" "$there"
cp "$there/temp/_frame.c" "$there/pika_twisted/codec"
cp "$there/temp/pika_twisted/_ready.c" "$there/pika_twisted"

cd "$there"
failed=0
measured() {
    "$python" -m pytest -n auto --dist worksteal -p no:cacheprovider -o timeout=1800 \
        --cov --cov-append --cov-report= "$@" || failed=1
}
# Left out: what multiplies cases and meets no other line, what measures time, and tests that have a
# tracer of their own or let each allocation fail, those of the tracer too.
measured --ignore=tests/unit/test_decoder_mutations.py --ignore=tests/unit/test_decoder_cost.py \
    --ignore=tests/defects/test_costs.py --ignore=tests/unit/test_hostile_volume.py \
    --deselect=tests/unit/test_codec_objects.py::test_every_allocation_fails_once \
    -k "not traced" tests/unit tests/defects "$@"
# The codec's own tests have run both by now.
export PIKA_TWISTED_PURE=1
measured --ignore-glob="tests/unit/test_decoder_*" --ignore=tests/unit/test_encoder.py \
    --ignore=tests/defects/test_costs.py --ignore=tests/unit/test_hostile_volume.py \
    -k "not traced" tests/unit tests/defects "$@"
report() {
    echo
    "$python" -m coverage report --skip-covered --show-missing "$@" || failed=1
}
report --include="pika_twisted/*.py" --fail-under=100
report --include="*.pyx,*.pxi" --fail-under=95
exit $failed
