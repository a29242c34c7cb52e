"""The documentation's settings: ``python -m sphinx -W --keep-going -n docs build/docs``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from otel_concurrency import __version__

project = "otel-concurrency"
author = "The otel-concurrency authors"
copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["attrs_inline", "deflist", "html_image"]
myst_heading_anchors = 4  # as far down as pages link to each other's headings
suppress_warnings = ["myst.xref_ambiguous"]

html_theme = "furo"
html_title = f"otel-concurrency {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_extra_path = [
    "page-dark.png",
    "page-light.png",
]  # named in <picture>, which Sphinx does not read

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signatures have them, and other projects' types have no page here
# Only this project's own names can be looked up: a build needs no network.
nitpick_ignore_regex = [(r"py:.*", r"(?!otel_concurrency\b).*")]
