"""How Sphinx builds the site: ``sphinx-build -W --keep-going docs docs/_build/html``.

Neither the build nor a reader of the pages needs a network: scripts, fonts and formulas are all
local, and nothing refers to the inventories of other projects.
"""

from __future__ import annotations

import os
import re
from importlib.metadata import distribution
from typing import Any

# Linear algebra in the processes that execute the gallery: one thread each.
for _library in ("OPENBLAS", "OMP", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

from docutils import nodes  # noqa: E402
from sphinx_gallery.sorting import ExplicitOrder  # noqa: E402

import mixedlearn  # noqa: E402

project = "mixedlearn"
author = "the mixedlearn developers"
copyright = author
version = release = mixedlearn.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "matplotlib.sphinxext.plot_directive",
    "matplotlib.sphinxext.figmpl_directive",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "auto_examples/**.ipynb"]
templates_path = ["_templates"]

smartquotes = False
toc_object_entries_show_parents = "hide"

# Single backticks link to the object of that name where there is one, and are code where there is
# none. Roles that say what they link to (class, func, ...) are held to it.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [("py:obj", ".*")]

# -- Markdown --------------------------------------------------------------------------------------

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4

# The prompts of examples are not copied, nor is their output.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# -- API reference ---------------------------------------------------------------------------------

autosummary_generate = True
# On a file system that ignores case, a function and a class of the same name need two files.
autosummary_filename_map = {
    "mixedlearn.inference.Influence": "mixedlearn.inference.Influence-class"
}
autodoc_typehints = "none"
numpydoc_class_members_toctree = False

plot_formats = [("png", 100)]
plot_srcset = ["2x"]
plot_html_show_source_link = False
plot_html_show_formats = False
plot_include_source = True


def without_foreign_references(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Of references in docstrings of scikit-learn, which lead to its site, keep the text alone.

    Its versions are not those of this package.
    """
    if (getattr(obj, "__module__", None) or "").startswith("sklearn."):
        for path, text in ((r"~[\w.]*\.(\w+)", r"\1"), (r"([^<`]+?)\s*(?:<[^>]*>)?", r"\1")):
            lines[:] = [re.sub(f":[a-z:]+:`{path}`", text, line) for line in lines]
        lines[:] = [line for line in lines if not line.startswith(".. versionadded::")]


def with_pictures(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Show what the examples of displays draw. Examples are the last section of a docstring."""
    if name.startswith("mixedlearn.plot.") and "Examples" in lines:
        start = lines.index("Examples") + 2
        lines[start:] = [".. plot::", "", *("    " + line for line in lines[start:])]


def without_last_blank_lines(app: Any, doctree: nodes.document) -> None:
    """Show examples without the empty line that ends them for doctest."""
    for block in doctree.findall(nodes.literal_block):
        if block.rawsource == block.astext():
            block.rawsource = block.rawsource.rstrip()
            block[:] = [nodes.Text(block.rawsource)]


# -- Gallery ---------------------------------------------------------------------------------------

gallery_order = [
    "growth_curves.py",
    "sitka.py",
    "sleepstudy.py",
    "dyestuff.py",
    "penicillin.py",
    "pastes.py",
    "insteval.py",
    "stream.py",
    "ratings.py",
    "workers.py",
    "pupils_in_classrooms.py",
    "extroversion.py",
    "mares.py",
    "clinical_trial.py",
    "forecasts.py",
    "cross_validation.py",
    "pipeline_features.py",
]
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"\.py$",
    "within_subsection_order": ExplicitOrder(gallery_order),
    "abort_on_example_error": True,
    "backreferences_dir": "api/generated/backreferences",
    "doc_module": ("mixedlearn",),
    "reference_url": {"mixedlearn": None},
    "image_srcset": ["2x"],
    # What a call of matplotlib returns is no result to show.
    "ignore_repr_types": r"matplotlib\.",
    "write_computation_times": False,
    "min_reported_time": 1e9,
    "show_memory": False,
    "show_signature": False,
    "remove_config_comments": True,
    "download_all_examples": False,
    "parallel": True,
}

# -- HTML ------------------------------------------------------------------------------------------

# MathJax with its fonts, out of the wheel of sphinx-mathjax-offline, without what writes SVG or
# reads MathML.
_mathjax = distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline/static")
mathjax_path = "mathjax/tex-chtml.js"

html_theme = "pydata_sphinx_theme"
html_title = "mixedlearn"
html_logo = "_static/logo.svg"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static", str(_mathjax)]
exclude_patterns += [
    "mathjax/*-full*.js",
    "mathjax/*mml*.js",
    "mathjax/*svg*.js",
    "mathjax/node-main.js",
    "mathjax/input/*mml*",
    "mathjax/input/tex-full.js",
    "mathjax/output/svg*",
]
html_css_files = ["site.css"]
html_sidebars = {"*": []}  # pages beside index.md have no section to navigate in
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {"text": "mixedlearn", "alt_text": "mixedlearn: front page"},
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def setup(app: Any) -> None:
    """Connect the hooks of this file."""
    app.connect("doctree-read", without_last_blank_lines)
    # Before numpydoc, whose priority is 500, makes sections of the headings.
    app.connect("autodoc-process-docstring", without_foreign_references, priority=400)
    app.connect("autodoc-process-docstring", with_pictures, priority=400)
