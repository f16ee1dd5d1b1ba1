"""Sphinx configuration; `make docs` builds with warnings as errors."""

from __future__ import annotations

import pika_twisted

project = "pika-twisted"
author = "the pika-twisted authors"
copyright = "the pika-twisted authors, BSD-3-Clause"  # noqa: A001 - Sphinx's name
version = release = pika_twisted.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

html_theme = "furo"
html_static_path = ["_static"]
html_title = "pika-twisted"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"member-order": "bysource"}
autodoc_inherit_docstrings = False  # Twisted's and pika's texts are theirs
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
