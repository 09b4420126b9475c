"""The ``lis2`` command: one sentence and an exit code for what goes wrong."""

from __future__ import annotations

import os
import signal
import sys

from lis2_lightning.commands import run
from lis2_lightning.errors import Lis2Error


def main(args: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: Its words; those of the process by default.

    Returns:
        0, 2 for what the user can mend, 1 for a run that failed or a difference that was found,
        128 and the signal's number where one ended the run.
    """
    words = sys.argv[1:] if args is None else args
    try:
        return _run(words)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT  # the sentence has been told
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or Python complains at exit
        return 128 + signal.SIGPIPE
    except Lis2Error as error:
        if os.environ.get("LIS2_DEBUG"):
            raise
        sys.stderr.write(f"lis2: {error}\n")
        return error.exit_code


def _run(words: list[str]) -> int:
    code = run(words)
    if code is None:
        from lis2_lightning.cli import Lis2CLI  # noqa: PLC0415 - torch takes seconds to import

        code = Lis2CLI(words).exit_code
    return code


if __name__ == "__main__":
    sys.exit(main())
