"""Sphinx configuration; `make docs` builds with warnings as errors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole

import pika_twisted

sys.path.insert(0, str(Path(__file__).parent))
import inventories

project = "pika-twisted"
author = "the pika-twisted authors"
copyright = "the pika-twisted authors, BSD-3-Clause"  # noqa: A001 - Sphinx's name
version = release = pika_twisted.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.intersphinx", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

html_theme = "furo"
html_static_path = ["_static"]
html_title = "pika-twisted"

myst_enable_extensions = ["colon_fence", "deflist", "substitution"]
myst_substitutions = {"version": version}
myst_heading_anchors = 3

html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0f766e", "color-brand-content": "#0f766e"},
    "dark_css_variables": {"color-brand-primary": "#5eead4", "color-brand-content": "#5eead4"},
}
html_css_files = ["pages.css"]
copybutton_exclude = ".linenos, .gp, .go"  # no prompts and no output of consoles

# `name` in a docstring is a link where it is something of ours, Twisted's, pika's or Python's.
default_role = "py:obj"
toc_object_entries_show_parents = "hide"
add_module_names = False
# First the project's own inventory; where there is no network, the names that we use.
intersphinx_mapping = {
    name: (address, (None, str(inventories.write(name, Path(__file__).parents[1] / "build"))))
    for name, address in inventories.ADDRESSES.items()
}
intersphinx_timeout = 5

autodoc_default_options = {"member-order": "bysource"}
autodoc_inherit_docstrings = False  # Twisted's and pika's texts are theirs
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True


class Name(PyXRefRole):
    """A name in a docstring; `connect()` links as `connect` does, and each is shown as written."""

    def process_link(self, *arguments: Any) -> tuple[str, str]:
        """Return title and target."""
        title, target = super().process_link(*arguments)
        return title, target.removesuffix("()")


def setup(app: Sphinx) -> None:
    """Put it in the place of Sphinx's own."""
    app.add_role_to_domain("py", "obj", Name(warn_dangling=False), override=True)
