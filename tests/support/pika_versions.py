"""What differs between the releases of pika that the tests run with."""

from __future__ import annotations

try:
    from pika.compat import long as _long
except ImportError:  # pika 1.5 has no module of that name: a plain int
    _long = int

#: What 64-bit integers in tables are.
LONG = _long

__all__ = ["LONG"]
