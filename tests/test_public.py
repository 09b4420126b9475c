"""The public names, and what importing them costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import lis2_lightning

HEAVY = (
    "torch",
    "lightning",
    "wandb",
    "mlflow",
    "matplotlib",
    "astropy",
    "monai",
    "tifffile",
    "zarr",
)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import json, sys, lis2_lightning; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(json.loads(done.stdout))


@pytest.mark.parametrize("name", lis2_lightning.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(lis2_lightning, name)
    assert name == "__version__" or value.__doc__


def test_all_is_sorted_and_complete() -> None:
    assert lis2_lightning.__all__ == sorted(set(lis2_lightning.__all__))
    assert dir(lis2_lightning) == lis2_lightning.__all__
    assert set(lis2_lightning._LATE) < set(lis2_lightning.__all__)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Trainr"):
        lis2_lightning.Trainr  # noqa: B018
