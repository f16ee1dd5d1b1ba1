#!/usr/bin/env bash
# The unit suite under AddressSanitizer and UBSan: `make test-asan`. Arguments go to pytest.
#
# Builds into build/asan, which gets a copy of the package and its tests, so that neither build
# disturbs the other.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$PWD/.venv/bin/python
there=build/asan

# What pyproject.toml asks for; the environment may have older ones.
"$python" -m pip install --quiet --disable-pip-version-check --group build
mkdir -p "$there"
# No -UNDEBUG here: the debug build (PIKA_TWISTED_DEBUG=1) is for assertions.
CC=gcc \
    CFLAGS="-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined" \
    LDFLAGS="-fsanitize=address,undefined" \
    "$python" setup.py -q build_ext --build-lib "$there" --build-temp "$there/temp"
rm -rf "$there/tests"
cp -r tests pyproject.toml "$there"
find pika_twisted -name '*.py' -o -name '*.pyi' | xargs cp --parents -t "$there"

cd "$there"
# Leaks are looked for elsewhere (the interpreter's own are many); PYTHONMALLOC=malloc is what lets
# AddressSanitizer see the borders of Python's objects.
export LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
export PYTHONMALLOC=malloc
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
"$python" -c "
import pika_twisted, pika_twisted.codec.chooser as codec
assert 'build/asan' in pika_twisted.__file__ and codec.IMPLEMENTATION == 'compiled', pika_twisted"
exec "$python" -m pytest -n auto --dist worksteal -p no:cacheprovider -o timeout=600 \
    tests/unit tests/defects "$@"
