"""Import paths are judged by what they name, and nothing unknown is imported to find out."""

from __future__ import annotations

import sys

import pytest

from lis2_lightning.config.components import objection
from lis2_lightning.config.names import TABLES, names

pytestmark = pytest.mark.usefixtures("canary")

ALLOWED = [
    *(path for kind in TABLES for path in sorted(set(names(kind).values()))),
    *("torch.nn.Sequential", "torch.nn.modules.conv.Conv2d", "torch.utils.data.TensorDataset"),
    *("torch.optim.adamw.AdamW", "torch.optim.swa_utils.SWALR", "own_code.Net", "own_code.Augment"),
    "torchmetrics.classification.BinaryAccuracy",
    "torchmetrics.image.StructuralSimilarityIndexMeasure",
    *(f"lightning.pytorch.callbacks.{name}" for name in ("EarlyStopping", "LambdaCallback")),
    *(f"lightning.pytorch.loggers.{name}" for name in ("CSVLogger", "TensorBoardLogger")),
    "lightning.pytorch.profilers.SimpleProfiler",
    "lightning.pytorch.strategies.DDPStrategy",
    "lightning.pytorch.plugins.AsyncCheckpointIO",
    "lightning.pytorch.accelerators.CPUAccelerator",
    "lightning.fabric.plugins.environments.SLURMEnvironment",
]


@pytest.mark.parametrize("path", ALLOWED)
def test_components_are_allowed(path: str) -> None:
    assert objection(path, is_class=True) is None


def test_networks_of_monai_are_allowed() -> None:
    pytest.importorskip("monai")
    for path in ("monai.networks.nets.UNet", "monai.losses.DiceLoss", "monai.optimizers.Novograd"):
        assert objection(path, is_class=True) is None


def test_of_functions_activations_and_ones_own_are_allowed() -> None:
    for path in ("torch.nn.functional.relu", "torch.nn.functional.gelu", "own_code.rate"):
        assert objection(path, is_class=False) is None
        assert objection(path, is_class=True) == "is no class"


def test_what_a_module_has_from_elsewhere_is_judged_by_where_it_was_made() -> None:
    assert objection("own_code.Popen", is_class=True) == "is of Python's standard library"
    assert objection("own_code.load", is_class=False) is not None
    assert objection("own_code.nn.Conv2d", is_class=True) is not None  # no module of that name
    assert objection("own_code.Dataset", is_class=True) is None


def test_a_module_counts_from_the_moment_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["own_code"]
    assert "import elsewhere in your program before" in str(
        objection("elsewhere.Net", is_class=True)
    )
    monkeypatch.setitem(sys.modules, "elsewhere", module)
    assert objection("elsewhere.Net", is_class=True) is None


def test_classes_of_the_program_itself_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    own = vars(sys.modules["own_code"])
    net = type("Net", (own["Net"],), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "Net", net, raising=False)
    assert objection("__main__.Net", is_class=True) is None
    augment = type("Augment", (own["Augment"],), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "Augment", augment, raising=False)
    assert objection("__main__.Augment", is_class=True) is None


def test_of_an_installed_package_only_components_are_allowed() -> None:
    for path in ("numpy.ndarray", "pytest.MonkeyPatch", "yaml.SafeLoader"):
        assert objection(path, is_class=True) == (
            "is no network, data set, optimizer or other component"
        )
