"""Lightning's launcher of processes, with an end that tells why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from lis2_lightning.parallel.children import CHILDREN
from lis2_lightning.parallel.parent import named
from lis2_lightning.parallel.peers import ending_together


class Launcher(_SubprocessScriptLauncher):
    """Starts the other processes as Lightning does, and ends them together with this one.

    Lightning's own observer ends the main process by a signal without a word, up to five seconds
    late, and nothing ends the others when the main process is killed while they start.
    """

    def launch(
        self,
        function: Callable[..., Any],
        *args: Any,
        trainer: pl.Trainer | None = None,  # noqa: ARG002 - Lightning's signature
        **kwargs: Any,
    ) -> Any:
        """Start the processes, where nobody has, and run a loop in this one.

        Args:
            function: Runs the loop.
            args: Its arguments.
            trainer: Not used.
            kwargs: Its arguments, too.

        Raises:
            ProcessLost: Another process is gone.
        """
        environment = self.cluster_environment
        environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not environment.creates_processes_externally:
            with named():
                self._call_children_scripts()
            CHILDREN.watch(self.procs)
        _set_num_threads_if_needed(num_processes=self.num_processes)
        with ending_together():
            return function(*args, **kwargs)


def end_together(strategy: Strategy) -> None:
    """Put our launcher in the place of Lightning's, where the strategy has that one."""
    theirs = strategy.launcher
    if type(theirs) is _SubprocessScriptLauncher:
        strategy._launcher = Launcher(  # noqa: SLF001 - there is no argument for it
            theirs.cluster_environment, theirs.num_processes, theirs.num_nodes
        )
