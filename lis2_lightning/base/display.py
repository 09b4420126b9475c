"""How objects show themselves: one line of text, and a small table in a notebook."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this program, which may import ipykernel without one."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class Displayed:
    """Shows the facts that a subclass lists.

    >>> class Image(Displayed):
    ...     def facts(self):
    ...         return {"shape": "64 x 64 px", "gaps": None}
    >>> Image()
    Image(shape: 64 x 64 px)
    """

    def facts(self) -> Mapping[str, Any]:
        """Names and values, cheap to find; what is null is left out."""
        raise NotImplementedError

    def __repr__(self) -> str:
        shown = (f"{name}: {value}" for name, value in self.facts().items() if value is not None)
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_html_(self) -> str:
        return html_table(type(self).__name__, self.facts())


def html_table(title: str, rows: Mapping[str, Any]) -> str:
    """Names and values under a title, for a notebook; what is null is left out."""
    left = 'style="text-align: left"'
    body = "".join(
        f"<tr><th {left}>{escape(name)}</th><td {left}>{escape(str(value))}</td></tr>"
        for name, value in rows.items()
        if value is not None
    )
    return f"<table><caption {left}><b>{escape(title)}</b></caption><tbody>{body}</tbody></table>"


def network_text(network: nn.Module) -> str:
    """A network by its class, and how large it is."""
    size = sum(parameter.numel() for parameter in network.parameters())
    return f"{type(network).__name__} of {size:,} parameters"
