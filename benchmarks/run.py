"""Run the benchmarks of this folder, one after the other, and print one table of their ratios.

    python benchmarks/run.py [step startup ...]

Each script prints its own figures first. The table is also written to ``bench.json`` in the current
folder. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import rows

HERE = Path(__file__).parent
# no benchmarks of time
OTHERS = {"run", "rows", "peers", "first_step", "quality", "recipes"}
SCRIPTS = sorted({path.stem for path in HERE.glob("*.py")} - OTHERS)


def main() -> int:
    """Run them; 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help=", ".join(SCRIPTS))
    chosen = parser.parse_args().scripts or SCRIPTS
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        for script in chosen:
            print(f"== {script}", flush=True)
            words = [sys.executable, str(HERE / f"{script}.py")]
            done = subprocess.run(words, check=False, env={**os.environ, "LIS2_BENCH": str(path)})
            if done.returncode:
                failed.append(script)
        left = rows.read(path)
    Path("bench.json").write_text(json.dumps([asdict(row) for row in left], indent=1) + "\n")
    print(rows.table(left))
    if failed:
        print(f"failed: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
