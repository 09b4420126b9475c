"""What ``lightning.strategy`` becomes."""

from __future__ import annotations

from typing import Any, Final

from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from lis2_lightning.errors import ConfigError
from lis2_lightning.parallel.sharded import ShardedStrategy

_OURS: Final = f"{ShardedStrategy.__module__}.{ShardedStrategy.__name__}"
_SHARDED: Final = "fsdp"


def strategy_of(given: Any) -> Any:
    """The strategy that Lightning is given: ours for ``fsdp``, any other one as it is.

    Lightning's own FSDP needs GPUs and loads past the plugin that reads snapshots.

    Args:
        given: A name or a strategy.

    Raises:
        ConfigError: It shards in a way that cannot write and read snapshots.
    """
    name = given.lower() if isinstance(given, str) else ""
    if name == _SHARDED:
        return ShardedStrategy()
    theirs = isinstance(given, FSDPStrategy | ModelParallelStrategy)
    if name.startswith(_SHARDED) or (theirs and not isinstance(given, ShardedStrategy)):
        told = given if name else type(given).__name__
        raise ConfigError(
            f"lightning.strategy is {told}, which cannot read and write snapshots: set it to fsdp "
            f"(or {_OURS}), or to ddp"
        )
    return given


def spelled(given: Any) -> Any:
    """A strategy as a configuration for Lightning alone spells it, where ``fsdp`` means another.

    Args:
        given: A name, or the description of a strategy.

    >>> spelled("fsdp"), spelled("ddp")
    ({'class_path': 'lis2_lightning.parallel.sharded.ShardedStrategy'}, 'ddp')
    """
    is_name = isinstance(given, str) and given.lower() == _SHARDED
    return {"class_path": _OURS} if is_name else given
