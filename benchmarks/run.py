"""Run the benchmarks of this folder, one after the other, and print their figures.

``recipes.py`` is left out, because it trains for hours.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run them; 1 where one fails."""
    here = Path(__file__)
    failed = 0
    for script in sorted(here.parent.glob("*.py")):
        if script.name in {here.name, "recipes.py"}:
            continue
        print(f"== {script.stem}", flush=True)
        failed |= subprocess.run([sys.executable, str(script)], check=False).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
