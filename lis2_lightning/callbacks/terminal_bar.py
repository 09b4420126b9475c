"""A bar of text whose numbers are whole at any width."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


class TerminalBar(tqdm):  # type: ignore[type-arg]  # generic in the stubs alone
    """A bar that leaves out what does not fit, where tqdm would cut a number to another one."""

    @staticmethod
    def format_meter(  # type: ignore[override]  # the rest is passed on
        n: float, total: float, elapsed: float, ncols: int | None = None, **options: Any
    ) -> str:
        """The line of text; two columns stay free for the ``^C`` that a terminal shows.

        >>> def line(ncols):
        ...     print(TerminalBar.format_meter(
        ...         1, 4, 2, ncols, prefix="epoch 1/4: ", postfix="loss 0.25, training 1/24",
        ...         bar_format="{desc}|{bar}| {elapsed}{postfix}", ascii=" #"
        ...     ))
        >>> line(60)
        epoch 1/4: |###          | 00:02, loss 0.25, training 1/24
        >>> line(44)
        epoch 1/4: |###         | 00:02, loss 0.25
        """
        columns = 80 if ncols is None else ncols - 2
        postfix = options.pop("postfix", "") or ""
        while postfix and _least(n, total, elapsed, postfix, options) > columns:
            postfix = postfix.rpartition(", ")[0]
        if _least(n, total, elapsed, postfix, options) > columns:
            return ""
        return tqdm.format_meter(n, total, elapsed, columns, postfix=postfix, **options)


def _least(n: float, total: float, elapsed: float, postfix: str, options: dict[str, Any]) -> int:
    """The length of a line whose bar has ten characters."""
    return len(tqdm.format_meter(n, total, elapsed, None, postfix=postfix, **options))


def shown_number(name: str, value: float | None) -> str:
    """A value of an epoch, with four digits, as terminal, log and notebook show it.

    >>> shown_number("val_loss", 0.3), shown_number("lr", 3e-4), shown_number("seconds", 71.25)
    ('0.3000', '0.0003', '71.2')
    """
    if value is None:
        return ""
    match name:
        case "epoch":
            return f"{value:.0f}"
        case "seconds":
            return f"{value:.1f}"
        case "lr":
            return f"{value:.3g}"
        case _:
            return f"{value:#.4g}"
