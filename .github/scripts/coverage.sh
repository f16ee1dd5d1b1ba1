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
"$python" -m pip install --quiet --disable-pip-version-check --group build
mkdir -p "$there/pika_twisted"
rm -rf "$there/tests" "$there"/.coverage*
cp -r tests pyproject.toml setup.py README.md LICENSE "$there"
find pika_twisted -name '*.py' -o -name '*.pyi' -o -name '*.pyx' | xargs cp --parents -t "$there"
.github/scripts/join_codec.sh > "$there/_frame.pyx"

cd "$there"
PIKA_TWISTED_DEBUG=1 "$python" setup.py -q build_ext --inplace --build-temp temp
# Cython's plugin looks for the C beside the source.
cp temp/_frame.c .
cp temp/pika_twisted/deferreds/_ready.c pika_twisted/deferreds
failed=0
# Left out: what multiplies cases and meets no other line, what measures time, and tests that have a
# tracer of their own or let each allocation fail, those of the tracer too.
measured() {
    "$python" -m pytest -n auto --dist worksteal -p no:cacheprovider -o timeout=1800 \
        --cov --cov-append --cov-report= -k "not traced" \
        --ignore=tests/defects/test_costs.py --ignore=tests/unit/codec/test_hostile_volume.py \
        --deselect=tests/unit/codec/test_codec_objects.py::test_every_allocation_fails_once \
        "--deselect=tests/defects/test_fails_on_pika.py::test_row_fails_on_pikas_adapter[d49]" \
        "$@" tests/unit tests/defects || failed=1
}
measured --ignore=tests/unit/codec/test_decoder_mutations.py --ignore=tests/unit/codec/test_decoder_cost.py "$@"
# The codec's own tests have run both by now.
export PIKA_TWISTED_PURE=1
measured --ignore-glob="tests/unit/codec/test_decoder_*" --ignore=tests/unit/codec/test_encoder.py "$@"
report() {
    echo
    "$python" -m coverage report --skip-covered --show-missing "$@" || failed=1
}
report --include="pika_twisted/*" --omit="*.pyx" --fail-under=100
report --include="*.pyx" --fail-under=95
exit $failed
