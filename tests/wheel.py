"""Build the wheel, look at what it holds, and run the demo's configuration from clean environments.

``make test-wheel`` runs it; no suite does, because each environment is downloaded anew.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[1]
PYTHONS = ("python3.11", "python3.12", "python3.13")
RUN = (
    *("fit", "--config", str(ROOT / "configs/quickstart.yaml"), "--run_name", "demo"),
    *("--epochs", "2"),  # of twelve: whether it runs, not how well it learns
)
FILES = ("best.pt", "report.html", "prediction.png", "result.json")


def main() -> int:
    """Check the wheel in each Python there is; 1 where one of them fails or none is there."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = build(Path(folder))
        check_contents(wheel)
        tried = [python for python in PYTHONS if check_python(python, wheel, Path(folder))]
    return int(not tried)


def build(folder: Path) -> Path:
    """Build the wheel as pip does for those who install from source."""
    call([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT], folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """The wheel holds the files of the package that git knows, its metadata and the licence."""
    listed = subprocess.run(
        ["git", "ls-files", "lis2_lightning"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = set(ZipFile(wheel).namelist())
    about = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    metadata = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    expected = {*listed.stdout.split(), *(f"{about}/{name}" for name in metadata)}
    assert names == expected, f"missing or too many in {wheel.name}: {sorted(names ^ expected)}"
    assert {"lis2_lightning/py.typed", "lis2_lightning/report/templates/report.html.j2"} <= names
    say(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 1000:.0f} kB")


def check_python(python: str, wheel: Path, folder: Path) -> bool:
    """Install the wheel without extras and train; false where this Python is not there."""
    path = shutil.which(python)
    if (
        path is None
        or subprocess.run([path, "--version"], check=False, capture_output=True).returncode
    ):
        say(f"{python}: skipped, because it is not installed")
        return False
    home = folder / python
    call([path, "-m", "venv", home], folder)
    own = home / "bin/python"
    pins: list[str | Path] = ["--constraint", ROOT / "constraints.txt"]
    call([own, "-m", "pip", "install", "--quiet", *pins, wheel], folder)
    call([own, "-m", "pip", "check"], folder)
    call([home / "bin/lis2", *RUN], home)
    missing = [name for name in FILES if not (home / "runs/demo" / name).is_file()]
    assert not missing, f"{python}: the run left no {', '.join(missing)}"
    say(f"{python}: installed, checked, trained")
    return True


def call(words: Sequence[str | Path], folder: Path) -> None:
    """Run a command outside the repository, which would otherwise be imported; it must succeed."""
    subprocess.run([str(word) for word in words], cwd=folder, check=True)


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
