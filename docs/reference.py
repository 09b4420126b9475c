"""Write the generated parts of configuration.md from the signature and the tables of names.

Run it with ``python docs/reference.py`` after changing a key, a default or a name; a test fails if
that was forgotten.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any, Final, get_args, get_origin, get_type_hints

from docstring_parser import parse

from lis2_lightning import Trainer
from lis2_lightning.assembly.settings import RESERVED
from lis2_lightning.cli.dispatch import summaries
from lis2_lightning.config.names import TABLES, names
from lis2_lightning.config.schema import Schema

PAGE: Final = Path(__file__).with_name("configuration.md")
_BLOCK: Final = re.compile(r"(<!-- generated: (\w+) -->\n).*?(\n<!-- end -->)", re.DOTALL)


def page(text: str) -> str:
    """The page with its generated parts written anew.

    Args:
        text: The page as it is.
    """
    parts = {"keys": keys, "names": tables, "commands": commands, "reserved": reserved}
    return _BLOCK.sub(lambda match: match[1] + parts[match[2]]() + match[3], text)


def keys() -> str:
    """A row for every key: type, default, meaning."""
    schema = Schema(Trainer)
    hints = get_type_hints(Trainer.__init__)
    parsed = parse(Trainer.__doc__ or "").params
    meanings = {item.arg_name: " ".join((item.description or "").split()) for item in parsed}
    defaults = schema.defaults()
    parameters = inspect.signature(Trainer).parameters
    rows = []
    for key in schema.keys:
        needed = parameters[key].default is inspect.Parameter.empty
        default = "needed" if needed else f"`{_default(defaults[key])}`"
        name = "`epochs` (or `epoch`)" if key == "epochs" else f"`{key}`"
        rows.append([name, _type(hints[key]), default, meanings[key].replace("``", "`")])
    # a table of four columns does not fit a phone, where its rows become cards
    return f"```{{rst-class}} cards\n```\n\n{_table(['key', 'type', 'default', 'meaning'], rows)}"


def _default(value: Any) -> str:
    if isinstance(value, dict) and "class_path" in value:
        return value["class_path"].rpartition(".")[2]
    return json.dumps(value)


def _type(hint: Any) -> str:
    origin = str(get_origin(hint))
    if "Literal" in origin:
        return " or ".join(f"`{part}`" for part in get_args(hint))
    if "Callable" in origin:
        return str(get_args(hint)[-1].__name__)
    parts = [_type(part) for part in get_args(hint)]
    if "Union" in origin:
        return " or ".join(dict.fromkeys(parts))
    if "list" in origin or "Mapping" in origin:
        return f"list of {parts[0]}" if "list" in origin else "mapping"
    plain = {
        "NoneType": "null",
        "str": "text",
        "bool": "true, false",
        "int": "whole number",
        "float": "number",
    }
    return plain.get(hint.__name__, hint.__name__)


def tables() -> str:
    """A row for every class that has a short name, with all its names."""
    rows = []
    for kind, ours in TABLES.items():
        by_class: dict[str, list[str]] = {}
        for name, path in names(kind).items():
            by_class.setdefault(path, []).append(f"`{name}`")
        own = set(ours.values())
        rows += [
            [kind.replace("_", " "), ", ".join(sorted(listed)), f"`{path}`"]
            for path, listed in by_class.items()
            if path in own
        ]
        theirs = sorted(", ".join(listed) for path, listed in by_class.items() if path not in own)
        if theirs:
            module = next(path for path in by_class if path not in own).rpartition(".")[0]
            rows.append(
                [kind.replace("_", " "), ", ".join(theirs), f"by the same name in `{module}`"]
            )
    return _table(["kind", "names", "class"], rows)


def commands() -> str:
    """A row for every command."""
    rows = [[f"`lis2 {name}`", text] for name, text in summaries().items()]
    return _table(["command", "does"], rows)


def reserved() -> str:
    """A row for every argument of Lightning that has a key here."""
    return _table(["under `lightning`", "why not"], [[f"`{k}`", v] for k, v in RESERVED.items()])


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
