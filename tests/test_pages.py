"""Every block of the pages runs: commands and Python, from the top of each page to its end.

They run in a folder that has what the pages speak of, only smaller: maps, configurations, runs.
What trains by command is planned, which builds and tries everything that a training would use.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from lis2_lightning import TileDataset, Trainer, UNet, open_raster
from lis2_lightning.snapshots import read_snapshot
from tests.snapshots.conftest import lis2 as write_lis2

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
RUNS = ("b", "first", "second", "my_map", "folds/fold_0", "folds/fold_1")
FEWER = {
    "epochs=5": "epochs=1",
    "epochs=20": "epochs=1",
    # a cross-validation is run in tests/evaluation: here it is only read and checked
    "summary = folds.run()\nprint(summary.table())": "",
}
SMALLER = (
    (r"features: \d+", "features: 2"),
    (r"num_blocks: \d+", "num_blocks: 1"),
    (r"(height|width): 768", r"\1: 192"),
    (r"size: 32", "size: 16"),
    (r"epochs: \d+", "epochs: 1"),
)
# blocks that cannot run here, by a part of them, and why
ELSEWHERE = {
    "make ": "the Makefile's own targets are what CI runs",
    "python3 -m venv": "installing is what make test-wheel tries",
    "torchrun": "tests/parallel/test_launchers.py starts it",
    "lis2 tune": "tests/evaluation/test_tuning.py runs a smaller study",
    "lis2 sync": "needs a run with a tracker that failed: tests/trackers/test_faults.py has one",
    "export GLOO": "names a network interface",
    "SyntheticDataset(**field, folds=f)": "tests/test_readme.py runs it",
}
# of these commands the keys are read and checked: many networks take long; tests/evaluation
READ_ONLY = {"cross-validate", "baseline"}
MY_NETWORKS = """from lis2_lightning import UNet


class Net(UNet):
    def __init__(self) -> None:
        super().__init__(features=2, num_blocks=1)
"""
Typed = Callable[..., tuple[int, str, str]]


class Block(NamedTuple):
    """A fenced block: its language and its text."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in their order, that a reader may type or run."""
    fences = re.findall(r"(?ms)^```(\S*)[^\n]*\n(.*?)^```$", page.read_text(encoding="utf-8"))
    kept = [Block(*fence) for fence in fences if fence[0] in {"", "bash", "python"}]
    return [block for block in kept if ">>>" not in block.text]  # sessions are run elsewhere


def is_elsewhere(block: Block) -> bool:
    """Whether a block cannot run here."""
    return any(part in block.text for part in ELSEWHERE)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small maps, configurations and runs."""
    from astropy.io import fits

    from lis2_lightning.data import synthetic_maps

    folder = tmp_path_factory.mktemp("world")
    maps = synthetic_maps(192, 192, seed=3)
    for name in ("image", "target", "background", "missing"):
        fits.PrimaryHDU(getattr(maps, name)).writeto(folder / f"{name}.fits")
    shutil.copy(folder / "image.fits", folder / "other.fits")
    (folder / "configs").mkdir()
    for path in (ROOT / "configs").glob("*.yaml"):
        text = path.read_text(encoding="utf-8").replace("maps/sample_", "")
        for pattern, smaller in SMALLER:
            text = re.sub(pattern, smaller, text)
        (folder / "configs" / path.name).write_text(text, encoding="utf-8")
    config = (folder / "configs/fits.yaml").read_text("utf-8").replace("name: fits", "name: my_map")
    (folder / "my_map.yaml").write_text(config, encoding="utf-8")
    shutil.copy(folder / "configs/quickstart.yaml", folder / "base.yaml")
    (folder / "mine.yaml").write_text("batch_size: 16\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("lis2_lightning.report.run_pictures.write_page", lambda _: None)
        Trainer.from_config("configs/quickstart.yaml", run_name="demo").train()
        for name in RUNS:
            shutil.copytree("runs/demo", Path("runs") / name)
        shutil.copy("runs/demo/best.pt", "best.pt")
    (folder / "my_networks.py").write_text(MY_NETWORKS, encoding="utf-8")
    theirs = dict(read_snapshot(folder / "best.pt"))
    theirs["GLOBAL_CONFIG"]["model"] = {"class_path": "my_networks.Net"}
    torch.save(theirs, folder / "theirs.pt")
    (folder / "old").mkdir()
    write_lis2(folder / "old/last.pt", epochs_run=0)
    return folder


def run_shell(text: str, typed: Typed) -> None:
    """Type the commands of a block; what is shown below a prompt must be what they say."""
    subprocess.run(["bash", "-n"], check=True, input=text.replace("$ ", ""), text=True)
    shown = re.findall(r"(?m)^\$ lis2 (.*)\n(lis2: .*)$", text)
    for command, sentence in shown:
        code, _, err = typed(*shlex.split(command))
        assert code == 2, command
        assert err.splitlines()[-1] == sentence
    joined = text.replace("\\\n", " ").replace("$SLURM_ARRAY_TASK_ID", "0")
    commands = re.findall(r"(?m)^(?:srun \S+ )?lis2 (.*?)(?: > \S+)?$", joined)
    assert shown or commands, text
    for command in commands:
        words = shlex.split(command, comments=True)
        if words[0] == "init":
            Path("my_map.yaml").unlink()
        if words[0] == "sample":
            words += ["--height", "192", "--width", "192"]
        if words[0] in READ_ONLY:
            with pytest.raises(SystemExit, match=r"^(0|None)$"):  # its keys are read and checked
                typed(*words, "--print_config")
            continue
        code, _, err = typed("plan" if words[0] == "fit" else words[0], *words[1:])
        assert code == 0, (command, err)


def run_python(text: str, names: dict[str, Any]) -> None:
    """Run a block, or write it into the file that its first line names."""
    if file := re.match(r"# (\w+\.py)\n", text):
        Path(file[1]).write_text(text, encoding="utf-8")
        return
    for many, few in FEWER.items():
        text = text.replace(many, few)
    exec(compile(text, "a block", "exec"), names)  # noqa: S102 - this is what it is about


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if not all(map(is_elsewhere, blocks(page)))],
    ids=lambda page: page.stem,
)
def test_the_blocks_of_a_page_run_from_top_to_end(
    page: Path, world: Path, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(world, tmp_path / "world"))
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)  # that of another page
    monkeypatch.syspath_prepend(str(folder))
    names: dict[str, Any] = {
        "Trainer": Trainer,
        "trainer": Trainer.from_snapshot("runs/demo/best.pt"),
        "network": UNet(features=2, num_blocks=1),
        "tiles": TileDataset("image.fits", target="target.fits", size=16),
        "array": np.asarray(open_raster("image.fits"))[0],
    }
    for language, text in blocks(page):
        if is_elsewhere(Block(language, text)):
            continue
        run_python(text, names) if language == "python" else run_shell(text, typed)


def test_what_runs_elsewhere_is_there() -> None:
    text = "".join(block.text for page in PAGES for block in blocks(page))
    assert [part for part in ELSEWHERE if part not in text] == []
    named = re.findall(r"tests/[\w/]+(?:\.py)?", " ".join(ELSEWHERE.values()))
    assert [name for name in named if not (ROOT / name).exists()] == []
