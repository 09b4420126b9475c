"""A training in a notebook's kernel: interrupted, continued, and shown when it is saved."""

from pathlib import Path
from typing import Any

import pytest

CELLS = {
    "set up": """
import os, signal, torch
import lightning.pytorch as pl
from lis2_lightning import SyntheticDataset, Trainer, UNet, open_raster

def tiles(*folds):
    return SyntheticDataset(height=128, width=128, seed=3, size=32, num_folds=3, folds=folds)

class Interrupts(pl.Callback):
    is_due = True
    def on_train_batch_end(self, trainer, *args):
        if self.is_due and trainer.current_epoch == 1:
            self.is_due = False
            os.kill(os.getpid(), signal.SIGINT)  # as a kernel's manager sends it

def trainer_of(name, *callbacks):
    torch.manual_seed(0)
    return Trainer(
        run_name=name, model=UNet(features=2, num_blocks=2), train_dataset=tiles(0),
        val_dataset=tiles(1), epochs=3, seed=1, batch_size=2, num_workers=0, report=False,
        monitor="val_loss", lightning={"callbacks": list(callbacks), "accelerator": "cpu"},
    )

trainer = trainer_of("interrupted", Interrupts())
""",
    "interrupted": "trainer.train()",
    "refused": "trainer.train()",
    "continued": 'info = trainer.train(resume="auto"); info',
    "compared": """
whole = trainer_of("whole").train()
places = ("run_name", "final_model_path", "last_model_path")
{key for key in info if info[key] != whole[key]} - set(places)
""",
    "plan": "trainer.plan()",
    "tiles": "tiles(0, 2)",
    "raster": "open_raster(torch.rand(20, 30).numpy())",
    "trainer": "trainer",
    "maps": "trainer.predict()",
}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The outputs of each cell, as they are saved."""
    nbformat: Any = pytest.importorskip("nbformat").v4
    client: Any = pytest.importorskip("nbclient")
    folder: Path = tmp_path_factory.mktemp("kernel")
    notebook = nbformat.new_notebook(cells=[nbformat.new_code_cell(c) for c in CELLS.values()])
    client.NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    return {name: cell.outputs for name, cell in zip(CELLS, notebook.cells, strict=True)}


def text(outputs: list[Any], kind: str = "text/plain") -> str:
    """What a cell shows, joined."""
    return "\n".join(o.text if "text" in o else o.get("data", {}).get(kind, "") for o in outputs)


@pytest.mark.slow
class TestKernel:
    """One kernel is started for all of this."""

    def test_an_interrupt_leaves_one_line_that_says_how_to_go_on(self, cells) -> None:
        assert cells["set up"] == []
        (error,) = [output for output in cells["interrupted"] if output.output_type == "error"]
        (line,) = error.traceback
        assert line.startswith("TrainingStopped: SIGINT in epoch 1, batch ")
        assert line.endswith(': saved runs/interrupted/last.pt; train(resume="auto") continues')

    def test_an_error_is_one_sentence_without_a_traceback(self, cells) -> None:
        (error,) = cells["refused"]
        assert error.traceback == [
            "ConfigError: runs/interrupted holds a run already: set resume to auto to continue it, "
            "or choose another run_name"
        ]

    def test_the_next_cell_goes_on_to_the_result_of_a_run_without_an_interrupt(self, cells) -> None:
        assert "resuming from runs/interrupted/last.pt at epoch 1, batch " in text(
            cells["continued"]
        )
        assert cells["compared"][-1].data["text/plain"] == "set()"

    def test_a_saved_notebook_has_one_table_of_epochs_with_a_curve(self, cells) -> None:
        pages = [o.data["text/html"] for o in cells["compared"] if "text/html" in o.get("data", {})]
        (page,) = [page for page in pages if "<svg" in page]
        assert page.count("<tr>") == 4
        assert page.count("<polyline") == 2
        assert ">best</td>" in page
        plain = text(cells["compared"])
        assert "epoch  train_loss  val_loss     lr  seconds" in plain
        assert "3 epochs in 00:" in plain

    def test_a_plan_is_shown_once(self, cells) -> None:
        assert text(cells["plan"]).count("SegmentationModule(model=") == 1

    @pytest.mark.parametrize(
        ("name", "part"),
        [
            ("tiles", "32 x 32 px, stride 16 px"),
            ("raster", "20 x 30 px"),
            ("trainer", "3 of 3"),
            ("maps", "1 x 128 x 128"),
            ("continued", "best_loss"),
        ],
    )
    def test_objects_show_a_small_table_or_a_line(self, cells, name: str, part: str) -> None:
        data = cells[name][-1].data
        assert part in data["text/html"]
        assert part in data["text/plain"]
        assert len(data["text/html"]) < 2000
