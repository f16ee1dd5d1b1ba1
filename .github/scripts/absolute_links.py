"""Give what a package index shows addresses, before a release is built.

On an index nothing lies beside the README: its relative links and pictures would lead nowhere. The
address is that of the repository whose workflow runs this, so that nobody has to write it down.

python .github/scripts/absolute_links.py https://host/owner/name v1.2.3
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RELATIVE = re.compile(r"(?P<text>(?P<picture>!?)\[[^]]*\]\()(?!\w+:|#)(?P<path>[^)\s]+)\)")

URLS = """
[project.urls]
Source = "{repository}"
Documentation = "{repository}/blob/{ref}/docs/index.md"
Changelog = "{repository}/blob/{ref}/CHANGELOG.md"
Issues = "{repository}/issues"
"""


def absolute(text: str, repository: str, ref: str) -> str:
    """Markdown whose links and pictures are those of the repository at `ref`."""

    def address(match: re.Match[str]) -> str:
        kind = "raw" if match["picture"] else "blob"
        return f"{match['text']}{repository}/{kind}/{ref}/{match['path']})"

    return RELATIVE.sub(address, text)


def main(repository: str, ref: str) -> None:
    """Rewrite README.md and pyproject.toml of this checkout."""
    readme = ROOT / "README.md"
    readme.write_text(absolute(readme.read_text(encoding="utf-8"), repository, ref), "utf-8")
    project = ROOT / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    if "[project.urls]" not in text:
        project.write_text(text + URLS.format(repository=repository, ref=ref), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
