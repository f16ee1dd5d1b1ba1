"""Whether pika and Twisted are new enough: said at import, not by an AttributeError in the night.

An installer sees to it by itself. This is for environments that were put together in another way.
The unit suite was run with these versions; pyproject.toml has the same.
"""

from __future__ import annotations

import re

import pika
import twisted

OLDEST = {"pika": "1.3.2", "Twisted": "22.10.0"}


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, to compare with: "22.10.0rc1" is (22, 10, 0)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def require(package: str, version: str, path: object) -> None:
    """Raise ImportError when `version` of `package`, found at `path`, is too old."""
    oldest = OLDEST[package]
    if numbers(version) < numbers(oldest):
        raise ImportError(
            f"pika_twisted needs {package} {oldest} or newer, and this is {package} {version} "
            f"({path}). Upgrade it: python -m pip install --upgrade '{package}>={oldest}'"
        )


require("pika", pika.__version__, pika.__file__)
require("Twisted", twisted.__version__, twisted.__file__)
