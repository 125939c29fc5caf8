"""How Sphinx builds these pages: `pip install -e ".[docs]"`, then `sphinx-build -W docs site`.

The pages are plain Markdown, which GitHub shows as well; what Sphinx adds are the reference pages that are generated
from the code, search, and links that are checked. Nothing is loaded from outside: a built site needs no network.
"""

from __future__ import annotations

import logging
import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "Heliostat"
author = "Heliostat's authors"
version = release = metadata.version("heliostat")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "error_pages",
    "outside_pages",
]
exclude_patterns = ["_extensions"]

# Anchors of headings are those of GitHub: what links there links here.
myst_heading_anchors = 4

# Docstrings name code as Markdown does, in one pair of backticks.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True
smartquotes = False  # --workers is no dash, and 'auto' is code

html_theme = "pydata_sphinx_theme"
html_title = "Heliostat"
html_favicon = "_static/favicon.svg"
html_show_copyright = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_context = {"default_mode": "auto"}
html_theme_options = {
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "show_prev_next": False,
    "navigation_with_keys": False,
    "footer_start": [],
    "footer_center": [],
    "footer_end": [],
}

# The lists of folders end with "*", for pages that will be added.
logging.getLogger("sphinx.sphinx.directives.other").addFilter(lambda each: "toctree glob pattern" not in str(each.msg))
