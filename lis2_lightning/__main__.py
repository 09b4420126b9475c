"""The ``lis2`` command: one sentence and an exit code for what goes wrong."""

from __future__ import annotations

import os
import signal
import sys

from lis2_lightning.errors import Lis2Error


def main(args: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: Its words; those of the process by default.

    Returns:
        0, 2 for what the user can mend, 1 for a run that failed or a difference that was found,
        128 and the signal's number where one ended the run.
    """
    try:
        from lis2_lightning.cli import Lis2CLI  # noqa: PLC0415 - torch takes seconds to import

        return Lis2CLI(args).exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT  # the sentence has been told
    except Lis2Error as error:
        if os.environ.get("LIS2_DEBUG"):
            raise
        sys.stderr.write(f"lis2: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
