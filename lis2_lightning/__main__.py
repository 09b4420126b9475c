"""The ``lis2`` command: one sentence and an exit code for what goes wrong."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import Final

from lis2_lightning.errors import Interrupted, Lis2Error, ProcessLost
from lis2_lightning.parallel import is_main, local_rank
from lis2_lightning.parallel.children import CHILDREN
from lis2_lightning.parallel.ending import GO_ON, end_now, tell, tell_once
from lis2_lightning.parallel.outside import are_joined, signals_outside_loops, while_importing
from lis2_lightning.parallel.parent import having_told, is_started, watch_parent

_AGREED_S: Final = 1.0  # in which the other processes end that end together with this one
_OVER_S: Final = 10.0  # after a command that is over, the other processes have only their exit left


def main(args: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: Its words; those of the process by default.

    Returns:
        0, 2 for what the user can mend, 1 for a run that failed or a difference that was found,
        128 and the signal's number where one ended the run. A process that another one of the run
        has started tells that one in its code whether it has told its reason.
    """
    watch_parent()
    words = sys.argv[1:] if args is None else args
    try:
        with signals_outside_loops():
            code = _answered(words)
    except SystemExit as error:
        # where a signal ends the run, all processes have agreed to end
        CHILDREN.end(patience_s=_AGREED_S)
        if is_started() and isinstance(error.code, int):
            end_now(error.code)
        raise
    except BaseException:
        CHILDREN.end()  # before anything is told, so that they tell nothing
        raise
    if code and is_started():
        end_now(code)  # the main process waits for it, and the interpreter's own end takes long
    CHILDREN.end(patience_s=_OVER_S)
    return code


def _answered(words: list[str]) -> int:
    try:
        return _run(words)
    except KeyboardInterrupt as error:
        CHILDREN.end(patience_s=_AGREED_S)
        if is_main() and not isinstance(error.__cause__, Interrupted):
            tell(f"SIGINT outside the loops: what is written is whole, and {GO_ON}")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or Python complains at exit
        return 128 + signal.SIGPIPE
    except Lis2Error as error:
        if os.environ.get("LIS2_DEBUG"):
            raise
        return _refused(error)
    except Exception as error:
        if not (CHILDREN or is_started() or are_joined()):
            raise
        return _failed(error)


def _refused(error: Lis2Error) -> int:
    CHILDREN.end()
    if isinstance(error, ProcessLost):
        if not error.is_told:
            tell_once(str(error))
    # what is wrong before the processes are joined, each of those from outside finds for itself
    elif is_started() or are_joined() or local_rank() == 0:
        tell(str(error))
    return having_told(error.exit_code)


def _failed(error: Exception) -> int:
    CHILDREN.end()
    traceback.print_exc()
    tell(
        f"process {local_rank()} ({os.getpid()}) failed with {type(error).__name__}, told above: "
        f"all processes of this run have ended, and when it is mended {GO_ON}"
    )
    return having_told(1)


def _run(words: list[str]) -> int:
    with while_importing():
        from lis2_lightning.cli.dispatch import run  # noqa: PLC0415 - after the signals are seen to
    code = run(words)
    if code is None:
        with while_importing():
            from lis2_lightning.cli import trainer_cli  # noqa: PLC0415 - torch takes seconds to import
        code = trainer_cli.run(words)
    return code


if __name__ == "__main__":
    sys.exit(main())
