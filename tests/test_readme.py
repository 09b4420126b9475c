"""What the README and the pages of docs/ say is true: their code runs, their keys exist."""

from __future__ import annotations

import doctest
import re
import runpy
import shutil
from pathlib import Path

import pytest

from lis2_lightning.__main__ import main
from lis2_lightning.config import Schema, load_config, to_class_paths
from lis2_lightning.config.common_data import separate
from lis2_lightning.config.names import TABLES

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """The words after ``lis2`` of each command that is shown alone."""
    lines = "".join(blocks(page, "")).splitlines()
    return [line.split()[1:] for line in lines if line.startswith("lis2 ")]


def name_of(page: Path) -> str:
    """A page's path, for the name of a test."""
    return str(page.relative_to(ROOT))


@pytest.fixture
def folder_with_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the maps that the README's configuration names."""
    from astropy.io import fits

    from lis2_lightning.data import synthetic_maps

    maps = synthetic_maps(192, 192, seed=1)
    for name in ("image", "target", "background"):
        fits.PrimaryHDU(getattr(maps, name)).writeto(tmp_path / f"{name}.fits")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_of_the_readme_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = blocks(README, "python")
    script = tmp_path / "readme.py"
    script.write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    left = runpy.run_path(str(script))

    assert left["info"]["epochs_run"] == 2
    assert left["probability"].shape == (1, 256, 256)
    assert (tmp_path / "runs/run/best.pt").is_file()
    assert len(code.splitlines()) <= 11


def test_the_yaml_and_the_commands_of_the_readme_train_test_and_predict(
    folder_with_maps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (text,) = blocks(README, "yaml")
    (folder_with_maps / "my_map.yaml").write_text(text, encoding="utf-8")
    shutil.copy(folder_with_maps / "image.fits", folder_with_maps / "other.fits")
    shown = [words for words in commands(README) if any("my_map" in word for word in words)]

    for words in shown:
        quick = ["1" if word == "20" else word for word in words]  # an epoch shows as much
        monkeypatch.setattr("sys.argv", ["lis2", *quick])
        assert main() == 0, words

    assert [words[0] for words in shown] == ["fit", "test", "predict"]
    own, other = (folder_with_maps / name for name in ("runs/my_map/prediction.fits", "map.fits"))
    assert other.read_bytes() == own.read_bytes()


def test_every_configuration_that_the_readme_names_is_there() -> None:
    named = re.findall(r"configs/\w+\.yaml", "".join(page.read_text() for page in PAGES))
    assert {"configs/fits.yaml", "configs/quickstart.yaml"} <= set(named)
    assert [path for path in named if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_every_link_leads_to_a_file(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    # the build of the pages writes _static, and checks links there itself
    local = [t for t in targets if "://" not in t and not t.startswith("_static/")]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", [README, ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    named = set(re.findall(r"make ([a-z-]+)", " ".join(re.findall("`[^`]+`", page.read_text()))))
    named |= set(re.findall(r"^make ([a-z-]+)", page.read_text(), re.MULTILINE))
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert named
    assert named <= set(targets)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(">>>" in b for b in blocks(p, "python"))], ids=name_of
)
def test_the_python_sessions_of_a_page_give_what_they_show(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sessions = "\n".join(block for block in blocks(page, "python") if ">>>" in block)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    session = doctest.DocTestParser().get_doctest(sessions, {}, page.name, str(page), 0)
    assert doctest.DocTestRunner(optionflags=flags).run(session).failed == 0


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "yaml")], ids=name_of)
def test_every_yaml_block_of_a_page_is_a_valid_configuration(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lis2_lightning import Trainer

    monkeypatch.syspath_prepend(str(tmp_path))
    for code in blocks(page, "python"):
        if file := re.match(r"# (\w+\.py)\n", code):  # a module that the page has the reader write
            (tmp_path / file[1]).write_text(code, encoding="utf-8")
    for number, text in enumerate(blocks(page, "yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text, encoding="utf-8")
        config = separate(load_config(path))
        assert set(Schema(Trainer).parse(config, partly=True).config) >= set(to_class_paths(config))


def test_every_key_and_every_name_stands_on_the_page_about_configurations() -> None:
    from lis2_lightning import Trainer

    documented = set(re.findall(r"`([^`\n]+)`", (ROOT / "docs/configuration.md").read_text()))
    names = {name for table in TABLES.values() for name in table}
    assert {*Schema(Trainer).keys, *names} - documented == set()


def test_the_pictures_are_small_and_each_is_used() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    pictures = sorted((ROOT / "docs/images").iterdir())
    assert pictures
    assert [picture.name for picture in pictures if picture.stat().st_size >= 400_000] == []
    assert [picture.name for picture in pictures if picture.name not in text] == []
