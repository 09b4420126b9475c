"""What a snapshot's configuration may import: components, and nothing that does something."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lis2_lightning import ConfigError, Trainer
from lis2_lightning.config.trusted import trusted

Make = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.usefixtures("canary")
PATHS = """
os.system os.popen os.path.join os.remove posix.system nt.system subprocess.Popen subprocess.run
subprocess.call subprocess.check_output builtins.exec builtins.eval builtins.open builtins.compile
builtins.getattr builtins.__import__ builtins.print builtins.dict sys.exit sys.modules.clear
importlib.import_module importlib.util.find_spec importlib.reload runpy.run_path runpy.run_module
ctypes.CDLL ctypes.util.find_library code.InteractiveConsole codeop.compile_command pty.spawn
pdb.Pdb bdb.Bdb timeit.Timer timeit.timeit cProfile.Profile trace.Trace doctest.debug_script
webbrowser.open antigravity.geohash this.s shutil.rmtree shutil.copy pathlib.Path tempfile.mkdtemp
socket.socket socketserver.TCPServer http.server.HTTPServer urllib.request.urlopen smtplib.SMTP
ftplib.FTP ssl.create_default_context asyncio.run multiprocessing.Process threading.Thread
concurrent.futures.ProcessPoolExecutor signal.signal atexit.register gc.collect pickle.loads
pickle.Unpickler marshal.loads shelve.open dbm.open sqlite3.connect zipfile.ZipFile tarfile.open
io.FileIO io.open logging.FileHandler logging.config.dictConfig functools.partial
operator.methodcaller types.FunctionType types.CodeType inspect.getmodule ast.literal_eval
collections.OrderedDict unittest.mock.patch venv.create site.addsitedir
torch.load torch.save torch.hub.load torch.jit.load torch.jit.ScriptModule
torch.package.PackageImporter
torch.compile torch.utils.cpp_extension.load torch.utils.cpp_extension.BuildExtension torch.ops
torch.ops.load_library torch.classes.load_library torch.fx.GraphModule torch.export.load
torch.distributed.launch.main torch.distributed.run.run torch.multiprocessing.spawn torch.Tensor
torch.serialization.load torch.storage.UntypedStorage torch.utils.data.DataLoader
torch.utils.data.datapipes.iter.FileOpener torch.utils.data.datapipes.iter.Mapper
torch.nn.functional.relu torch.nn.functional.torch.load torch.nn.modules.module.OrderedDict
torch.nn.Parameter torch.nn.utils.clip_grad_norm_ torch.nn.os.system torch.nn.nothing
torch.optim.nothing.Nothing torch.optim.lr_scheduler.Counter
lightning.pytorch.Trainer lightning.pytorch.cli.LightningCLI lightning.pytorch.cli.instantiate_class
lightning.pytorch.cli.SaveConfigCallback lightning.fabric.Fabric lightning.pytorch.utilities.seed
lightning.pytorch.core.saving.load_from_checkpoint
lightning.pytorch.demos.boring_classes.BoringModel
torchmetrics.utilities.data.dim_zero_cat torchmetrics.functional.accuracy
monai.bundle.run monai.bundle.ConfigParser monai.apps.download_url monai.data.PersistentDataset
monai.transforms.Lambda monai.utils.optional_import
lis2_lightning.Trainer lis2_lightning.trainer.Trainer lis2_lightning.cli.trainer_cli.main
lis2_lightning.base.files.atomic lis2_lightning.snapshots.write_snapshot
lis2_lightning.config.load_config
jsonargparse.ArgumentParser jsonargparse.set_parsing_settings yaml.unsafe_load yaml.Loader
numpy.load numpy.memmap numpy.ndarray setuptools.setup pip.main IPython.embed pytest.main
evil_when_imported.Net own_package.evil.Net own_package.nothing not_there.Net
own_code.system own_code.Popen own_code.OrderedDict own_code.os.system own_code.subprocess.Popen
own_code.load own_code.hub.load own_code.torch.load own_code.numpy.load own_code.run own_code.net
own_code.rate own_code.Settings own_code.nothing own_code.Net.forward own_code.__builtins__
.os.system os..system os.system. ...
""".split()  # noqa: SIM905 - a hundred lines otherwise
ODD: list[Any] = [
    "os.system\n", " os.system", "os.system ", "os/system", "os:system", "\u043es.system",
    "os.system()", "os.system;x", "a" * 10_000 + ".b", "os\x00.system", 5, 2.5, True, None, [],
    ["os.system"], {"class_path": "torch.nn.Conv2d"}, "", "subprocess.Popen\u200b", "1.2", "..",
]  # fmt: skip


def refusal(config: dict[str, Any]) -> str:
    """What is said of a configuration; it is one sentence in one line."""
    with pytest.raises(ConfigError) as error, trusted(config, source="last.pt"):
        raise AssertionError("it was trusted")
    message = str(error.value)
    assert message.startswith("last.pt ")
    assert message.isprintable()
    assert len(message) < 400
    return message


def test_the_corpus_is_large_enough() -> None:
    assert len(PATHS) >= 100
    assert len(set(PATHS)) == len(PATHS)


@pytest.mark.parametrize("path", [*PATHS, *ODD], ids=lambda path: repr(path)[:40])
def test_what_is_no_component_is_refused_wherever_it_stands_and_nothing_is_imported(
    path: Any,
) -> None:
    named = {"class_path": path}
    for config in (
        {"model": named},
        {
            "train_dataset": {
                "class_path": "torch.utils.data.TensorDataset",
                "init_args": {"a": named},
            }
        },
        {"lightning": {"callbacks": [{"class_path": "LambdaCallback"}, named]}},
        {"trackers": {"init_args": {"x": [[{"y": named}]]}}},
        {"data": {"folds": {"train": [0]}, "train": {"data_augmentations": [named]}}},
        {"model": {"type": "unet", "encoder": [named]}},
    ):
        message = refusal(config)
        if isinstance(path, str) and path.isprintable() and len(path) < 80:
            assert repr(path) in message
    if isinstance(path, str) and all(part.isidentifier() for part in path.split(".")):
        refusal({"optimizer": {"type": path}})
        refusal({"loss": path})
        refusal({"metrics": ["dice", path]})
        refusal({"data": {"type": path, "folds": {"train": [0]}}})
        refusal({"lightning": {"callbacks": ["Timer", {"type": path}]}})
        refusal({"lightning": {"callbacks": [path]}})


def test_the_sentence_says_how_it_is_allowed() -> None:
    assert refusal({"model": {"class_path": "not_there.Net"}}) == (
        "last.pt names 'not_there.Net' under model, which is of a module that is not imported: "
        "import not_there in your program before, or pass the object instead, as in "
        "from_snapshot(..., model=...)"
    )
    message = refusal({"val_dataset": {"type": "SyntheticDataset", "x": {"type": "os.system"}}})
    assert message == (
        "last.pt names 'os.system' under val_dataset.x, which is of Python's standard library: if "
        "you trust it, pass the object instead, as in from_snapshot(..., val_dataset=...)"
    )


def test_a_component_in_a_file_of_its_own_is_looked_into(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text("type: os.system", encoding="utf-8")
    assert "os.system" in refusal({"model": str(tmp_path / "net.yaml")})
    assert "os.system" in refusal({"lightning": {"callbacks": [f"{tmp_path}/net.yaml"]}})
    (tmp_path / "loop.yaml").write_text(f"encoder: {tmp_path}/loop.yaml", encoding="utf-8")
    assert "nested too deep" in refusal({"model": str(tmp_path / "loop.yaml")})


def test_a_key_that_is_no_text_is_refused() -> None:
    assert "the key 5" in refusal({"model": {"type": "unet", "a": {5: 6}}})


def test_names_of_files_are_no_import_paths() -> None:
    config = {
        "train_dataset": {"type": "FilamentsDataset", "dataset_path": "os.system"},
        "val_dataset": {"type": "TileDataset", "image": "code.fits", "target": "test.h5"},
        "output_dir": "os.path", "run_name": "subprocess.run", "monitor": "val.loss",
        "test_dataset": {"type": "PatchDataset", "dataset_path": "../data/runs.v2/test.h5"},
    }  # fmt: skip
    with trusted(config, source="last.pt"):
        pass


def test_what_the_caller_gives_is_trusted(tiny: Make) -> None:
    config = tiny(model={"class_path": "os.system"}, loss={"class_path": "subprocess.Popen"})
    net = own("Net")()
    overrides = {"model": net, "loss.type": "bce", "optimizer.lr": 0.5}
    with trusted(config, source="last.pt", overrides=overrides):
        trainer = Trainer.from_config(config, **overrides)
    assert trainer.model is net
    with (
        pytest.raises(ConfigError, match=r"os\.system.*under model"),
        trusted(config, source="last.pt", overrides={"model.init_args": {}, "loss": "bce"}),
    ):
        pass


def own(name: str) -> Any:
    """Something of the user's own module."""
    return getattr(sys.modules["own_code"], name)


def test_a_configuration_of_components_is_built(tiny: Make) -> None:
    config = tiny(
        model={"class_path": "own_code.Net"},
        scheduler={"class_path": "torch.optim.lr_scheduler.LambdaLR",
                   "init_args": {"lr_lambda": "own_code.rate"}},
        metrics=[{"class_path": "torchmetrics.classification.BinaryAccuracy"}, "dice"],
        lightning={"callbacks": [{"class_path": "LearningRateMonitor"}], "accelerator": "cpu"},
    )  # fmt: skip
    resolved = Trainer.from_config(config).global_config
    with trusted(resolved, source="last.pt"):
        trainer = Trainer.from_config(resolved)
    assert isinstance(trainer.model, own("Net"))
    assert trainer.global_config == resolved


CALLABLES = [
    *("os.system", "subprocess.Popen", "builtins.exec", "evil_when_imported.Net", "torch.hub.load"),
    *("own_code.system", "own_code.load", "own_package.evil.Net", "numpy.load", "own_code.run"),
]


@pytest.mark.parametrize("path", CALLABLES)
def test_a_text_that_a_component_would_have_imported_is_refused(path: str, tiny: Make) -> None:
    for change in (
        {"lightning": {"callbacks": [
            {"class_path": "lightning.pytorch.callbacks.LambdaCallback",
             "init_args": {"on_fit_start": path}}]}},
        {"scheduler": {"type": "LambdaLR", "lr_lambda": path}},
    ):  # fmt: skip
        config = tiny(**change)
        with pytest.raises(ConfigError) as error, trusted(config, source="last.pt"):
            Trainer.from_config(config)
        assert path in str(error.value)
        assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "{class_path: evil_when_imported.Net}",
        "[evil_when_imported.Net, os.system]",
        '"os\\x2esystem"',
        '"evil_when_imported\\u002eNet"',
        '{a: 1, a: "os\\x2esystem"}',
        "own_code.net.forward",
        "own_code.subprocess.run",
        "own_code.Popen",
    ],
)
def test_a_text_that_holds_a_path_is_refused(text: str, tiny: Make) -> None:
    for config in (
        tiny(model={"type": "own_code.Net", "activation": text}),
        tiny(scheduler={"type": "LambdaLR", "lr_lambda": text}),
        tiny(lightning={"callbacks": text}),
        tiny(model={"class_path": "own_code.Net", "init_args.activation": text}),
    ):
        with pytest.raises(ConfigError), trusted(config, source="last.pt"):
            Trainer.from_config(config)


def test_objects_that_the_caller_gives_are_not_judged(tiny: Make) -> None:
    config = tiny(model={"type": "own_code.Net"})
    overrides = {"model.activation": own("load"), "seed": 1}
    with trusted(config, source="last.pt", overrides=overrides):
        trainer = Trainer.from_config(config, **overrides)
    assert trainer.model.activation is own("load")


def test_a_text_may_be_an_activation(tiny: Make) -> None:
    def build(activation: str) -> Trainer:
        config = tiny(model={"type": "own_code.Net", "activation": activation})
        with trusted(config, source="last.pt"):
            return Trainer.from_config(config)

    for name in ("gelu", "relu"):
        function = getattr(torch.nn.functional, name)
        assert build(f"torch.nn.functional.{name}").model.activation is function
    for path in ("os.system", "torch.load", "torch.nn.functional.handle_torch_function"):
        with pytest.raises(ConfigError, match=rf"^last\.pt names '{path}', which is "):
            build(path)


def test_python_imports_as_before_afterwards(tiny: Make) -> None:
    before = list(sys.meta_path)
    config = tiny(scheduler={"type": "LambdaLR", "lr_lambda": "own_package.evil.Net"})
    with pytest.raises(ConfigError), trusted(config, source="last.pt"):
        Trainer.from_config(config)
    assert sys.meta_path == before
    assert Trainer.from_config(tiny(scheduler={"type": "LambdaLR", "lr_lambda": "math.sqrt"}))
