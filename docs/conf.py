"""Sphinx configuration: Markdown pages, notebooks, and the reference from the docstrings."""

import sys
from pathlib import Path

from lis2_lightning import __version__

sys.path.insert(0, str(Path(__file__).parent))
import rooms

import notebooks

notebooks.write_pages()
rooms.write_picture()

project = "lis2_lightning"
author = "The lis2_lightning developers"
copyright = "The lis2_lightning developers"  # noqa: A001 - Sphinx's name
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
highlight_language = "none"  # a block without a language is typed in a shell
html_static_path = ["_static"]
html_css_files = ["custom.css"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "  # prompts and what is printed below are not copied
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"
html_title = f"lis2_lightning {version}"
myst_heading_anchors = 3
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

napoleon_use_rtype = False  # "Returns: A sentence: and more" does not start with a type

nitpick_ignore_regex = [
    # other projects' names: their inventories are online, and the build must work offline
    (r"py:.*", r"(torch|numpy|np|lightning|pl|torchmetrics|jsonargparse|nn|os|pathlib)\..*"),
    (r"py:.*", r"(collections|typing|functools)\..*"),
    (r"py:.*", r"(Path|NDArray|Tensor|Dataset|Optimizer|LRScheduler|Metric|Logger|EarlyStopping)"),
    # our own aliases and base classes, which signatures show without a module
    (r"py:class", r"(AnyDataset|Source|Normalization|OptimizerCallable|SchedulerCallable)"),
    (r"py:class", r"(AreaFolds|Augmentation|PositionEncoding|Tracker|Map|Tile|Batch)"),
    # internal names, which have no entry in the reference
    (
        r"py:.*",
        r"lis2_lightning\.(tiling|running\.view\.GlobalConfig|data\.sampling|snapshots\.header).*",
    ),
    (r"py:.*", r"(KeyedDataset|ScoreMetric).*"),
    # the start of a property's docstring, up to a comma or colon, is mistaken for its type
    (r"py:class", r"([A-Z][a-z]+|.* .*)"),
]
