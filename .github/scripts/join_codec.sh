#!/bin/sh
# Prints _frame.pyx with its parts in their places, for tools that see no included files: cython-lint
# skips them, and coverage.py books what they run at import on _frame.pyx.
set -eu
cd "$(dirname "$0")/../.."
awk '
    $1 != "include" { print; next }
    { gsub(/"/, ""); if (n++) print "\n"; part = $2; while ((getline < part) > 0) print }
' _frame.pyx
