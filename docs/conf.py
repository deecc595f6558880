"""How Sphinx makes the site of these pages: `python -m sphinx -W --keep-going -b html docs docs/_build/html`."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent)]

from shortrun.version import __version__  # noqa: E402

project = "shortrun"
author = "The shortrun authors"
release = version = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "docstrings", "settings_tables"]
exclude_patterns = ["_build"]
highlight_language = "none"  # what a page calls a block of; indented ones are commands, formulas and output

# Pages
myst_heading_anchors = 3  # links to headings are checked
html_theme = "furo"
html_title = "shortrun"
html_copy_source = False
html_show_copyright = html_show_sphinx = False
pygments_style = "friendly"

# Tutorials are executed, and kept until they change
nb_execution_mode = "cache"
nb_execution_timeout = 900  # seconds of a cell, on a busy machine
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_render_markdown_format = "myst"  # tables that a cell returns
nb_output_stderr = "remove"  # warnings of libraries about notebooks; an error ends the build
nb_ipywidgets_js = {}  # nothing is asked of another host
# commands of a tutorial are those of this interpreter, on one thread, whatever the machine has
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ["OMP_NUM_THREADS"] = "1"

# API
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
