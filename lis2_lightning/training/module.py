"""The LightningModule: a network with its loss, metrics and optimizer."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import LRSchedulerTypeUnion, OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import Metric

from lis2_lightning.base.labelled import total_weight
from lis2_lightning.base.position import epoch_is_whole, inside_epoch
from lis2_lightning.data import SegmentationData
from lis2_lightning.errors import ConfigError, DataError, one_line
from lis2_lightning.losses import MaskedLoss, Sums
from lis2_lightning.metrics.histogram import best_threshold, dice_at
from lis2_lightning.parallel.exchange import Exchange, of_all_processes
from lis2_lightning.snapshots import COMPILED, INSIDE_EPOCH, rewind
from lis2_lightning.snapshots.format import MODEL_PREFIX
from lis2_lightning.training.joint_loss import JointLoss
from lis2_lightning.training.optimizer_state import renumber
from lis2_lightning.training.scores import Scores, mean_loss
from lis2_lightning.training.symmetry import mean_of_turns

_log = logging.getLogger("lis2_lightning")
OptimizerCallable = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerCallable = Callable[[Optimizer], LRScheduler]
Batch = Mapping[str, Tensor]
Split = Literal["train", "val", "test"]
# of test scores: what was chosen on validation pixels, and the Dice of the test set there
THRESHOLD: Final = "test_val_threshold"
AT_THRESHOLD: Final = "test_dice_at_val_threshold"


class SegmentationModule(pl.LightningModule):
    """Trains a network on labelled pixels.

    A batch is a mapping: ``patch`` and ``target`` (B, C, H, W), optionally ``labelled`` of the
    target's shape (true = counts; all count by default), ``weight`` of the target's shape (how much
    a pixel counts in the loss) and further entries. The network is called
    with the batch keys that its ``forward`` names (all keys for ``**kwargs``), or with ``patch``
    alone.

    Sums and counts stay on the device: no value is read back or logged per step.

    Args:
        model: The network.
        loss: A loss of ``torch.nn`` or of this package; it is evaluated on labelled pixels.
        optimizer: Builds the optimizer from parameters.
        scheduler: Builds the scheduler from an optimizer, or null.
        scheduler_interval: Whether the scheduler steps after each epoch or each optimizer step.
        metrics: The metrics, evaluated on labelled pixels.
        compile_model: Run the network through ``torch.compile``.
        tta: Predict the mean over quarter turns and mirror images.
        channels_last: Keep the channels of a pixel side by side in memory.
        exchange: Sums counts over processes; a new one by default.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: nn.Module,
        optimizer: OptimizerCallable,
        scheduler: SchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        metrics: Sequence[Metric] = (),
        compile_model: bool = False,
        tta: bool = False,
        channels_last: bool = False,
        exchange: Exchange | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = MaskedLoss(loss)
        self.train_scores = Scores(self.loss, metrics)
        self.val_scores = Scores(self.loss, metrics)
        self.test_scores = Scores(self.loss, metrics)
        self._joint = JointLoss(self.loss, exchange or Exchange())
        self._optimizer_factory = optimizer
        self._scheduler_factory = scheduler
        self._scheduler_interval = scheduler_interval
        if channels_last:
            # feature maps follow the weights; torch's stub of Module.to does not know the argument
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compile_model:
            model.compile()  # in place, which keeps the names of the weights
        self.tta = tta
        self._inputs = input_names(model)
        self._has_validated = False
        self.threshold: float | None = None
        """With the best Dice on the validation pixels; it rides in snapshots. Null: unknown."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a text without looking for parameters of its name: Lightning sets 48 in a step."""
        if (value is None or type(value) is str) and name in self.__dict__:
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def forward(self, batch: Batch) -> Tensor:
        """Call the network: probabilities or logits, ``(B, C, H, W)``."""
        if self._inputs is None:
            return self._output(self.model(batch["patch"]))
        names = [name for name in (self._inputs or batch) if name in batch]
        return self._output(self.model(**{name: batch[name] for name in names}))

    def _output(self, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise DataError(
                f"{type(self.model).__name__} returns a {type(output).__name__}, the trainer needs "
                "a tensor of the target's shape: wrap the model in a module that selects it"
            )
        return output

    def probabilities(self, output: Tensor) -> Tensor:
        """The network's output as probabilities in [0, 1], float32, detached."""
        output = output.detach().float()
        return output.sigmoid() if self.loss.expects_logits else output.clamp(0, 1)

    def scores(self, split: Split) -> Scores:
        """The sums of one split."""
        scores: Scores = getattr(self, f"{split}_scores")
        return scores

    def choose_threshold(self) -> None:
        """Take the threshold with the best Dice on the pixels that were just validated."""
        histogram = self.val_scores.metrics.histogram
        self.threshold = None if histogram is None else best_threshold(histogram)

    def scores_at_threshold(self) -> dict[str, float]:
        """The threshold, and the Dice on the pixels just tested; nothing where one is unknown."""
        histogram = self.test_scores.metrics.histogram
        if histogram is None or self.threshold is None:
            return {}
        return {AT_THRESHOLD: dice_at(histogram, self.threshold), THRESHOLD: self.threshold}

    def _step(self, batch: Batch, split: Split, count: Tensor | None = None) -> tuple[Sums, Tensor]:
        output = self(batch)
        sums = self.loss(output, batch["target"], batch.get("labelled"), batch.get("weight"), count)
        probabilities = self.probabilities(output)
        self.scores(split).update(sums, probabilities, batch)
        return sums, probabilities

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of the batch's labelled pixels; 0 without any.

        Its gradient is this process's part of the gradient of the effective batch.
        """
        target, labelled = batch["target"], batch.get("labelled")
        num = 1 if self._trainer is None else self.trainer.accumulate_grad_batches
        count = total_weight(target, labelled, batch.get("weight"))
        self._joint.begin(
            count,
            is_first=batch_idx % num == 0,
            is_last=(batch_idx + 1) % num == 0 or self.trainer.is_last_batch,
            num_batches=num,
        )
        sums, _ = self._step(batch, "train", count)
        return self._joint.of(sums, num_pixels=target.numel())

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Differentiate a batch's loss and join it with the accumulated batches."""
        self._joint.backward(loss, self.model.parameters())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation loss and metrics."""
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Add a batch to the test sums, and return its own ``loss`` and metrics, scalars.

        The loss is NaN without labelled pixels.
        """
        sums, probabilities = self._step(batch, "test")
        metrics = self.test_scores.metrics
        values = metrics.of_batch(probabilities, batch["target"], batch.get("labelled"))
        return {"loss": mean_loss(self.loss.value, torch.stack(sums)), **values}

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Probabilities in [0, 1], float32, ``(B, C, H, W)``."""
        if self.tta:
            return mean_of_turns(lambda turned: self.probabilities(self(turned)), batch)
        return self.probabilities(self(batch))

    def on_train_start(self) -> None:
        """Give a scheduler that begins in a resumed run its own first rate, such as a warm-up's.

        What is resumed has put the optimizer's rate in its place.
        """
        schedulers = self.lr_schedulers() or []
        for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
            if scheduler.last_epoch == 0:
                for group, rate in zip(
                    scheduler.optimizer.param_groups, scheduler.get_last_lr(), strict=True
                ):
                    group["lr"] = rate

    def on_train_epoch_start(self) -> None:
        """Reset the training sums."""
        self.train_scores.reset()
        self._has_validated = False

    def on_validation_epoch_start(self) -> None:
        """Reset the validation sums."""
        self.val_scores.reset()
        self._has_validated = True

    def on_test_epoch_start(self) -> None:
        """Reset the test sums."""
        self.test_scores.reset()

    def on_train_epoch_end(self) -> None:
        """Step ``ReduceLROnPlateau`` before snapshots are written.

        Lightning would step it afterwards, and a resumed run would be one step behind.
        """
        scheduler = self.lr_schedulers()
        # if validation is not run in every epoch, its last loss must not count repeatedly
        is_due = self._has_validated or not validates(self.trainer)
        if isinstance(scheduler, ReduceLROnPlateau) and is_due:
            usual = "val_loss" if self._has_validated else "train_loss"
            seen = getattr(scheduler, "monitor", usual)  # Lightning's own class has it
            scheduler.step(float(self.trainer.callback_metrics[seen]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the threshold, and what the running epoch has counted so far, of every process."""
        checkpoint["threshold"] = self.threshold
        if inside_epoch(self.trainer) or not epoch_is_whole(self.trainer):
            checkpoint[INSIDE_EPOCH] = {
                "train_sums": of_all_processes(self.train_scores.sums()),
                "has_validated": self._has_validated,
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the sums of a partial epoch; load only the weights outside of training.

        Lightning restores the callbacks for a test too, which would overwrite the run's own state
        with that of the tested snapshot.
        """
        self._take_own_names(checkpoint["state_dict"])
        self.threshold = checkpoint.get("threshold")  # snapshots of LIS2 have none
        if self.trainer.state.fn != TrainerFn.FITTING:
            checkpoint.pop("callbacks", None)
            return
        self._renumber(checkpoint)
        if so_far := checkpoint.get(INSIDE_EPOCH):
            sums = so_far["train_sums"]
            if len(sums) != self.trainer.world_size:
                self._restart_epoch(checkpoint, f"{len(sums)} processes")
            elif not self.train_scores.fits(sums[self.trainer.global_rank]):
                self._restart_epoch(checkpoint, "another version, which counted scores differently")
            else:
                self.train_scores.load_sums(sums[self.trainer.global_rank])
                self._has_validated = so_far["has_validated"]

    def _restart_epoch(self, checkpoint: dict[str, Any], saved_by: str) -> None:
        _log.warning("the snapshot was saved inside an epoch by %s: restarting the epoch", saved_by)
        rewind(checkpoint)

    def _renumber(self, checkpoint: dict[str, Any]) -> None:
        """Number the optimizer's state as this network numbers its parameters."""
        names = [name.removeprefix(MODEL_PREFIX) for name in checkpoint["state_dict"]]
        checkpoint["optimizer_states"] = [
            renumber(state, self._optimizer_factory(self._trained()), self.model, names)
            for state in checkpoint["optimizer_states"]
        ]

    def _take_own_names(self, state: dict[str, Any]) -> None:
        """Restore the prefix of compiled networks, which snapshots do not have."""
        own = {name.replace(COMPILED, ""): name for name in self.state_dict()}
        renamed = {own.get(name, name): value for name, value in state.items()}
        state.clear()
        state.update(renamed)  # in the order of the snapshot

    def lr_scheduler_step(self, scheduler: LRSchedulerTypeUnion, metric: Any | None) -> None:
        """Step a scheduler; ``ReduceLROnPlateau`` has already stepped."""
        if isinstance(scheduler, ReduceLROnPlateau):
            return
        try:
            super().lr_scheduler_step(scheduler, metric)
        except ValueError as error:  # a schedule that is over
            raise ConfigError(f"the scheduler cannot go on: {one_line(error)}") from error

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer of the trainable parameters, and its scheduler."""
        try:
            optimizer = self._optimizer_factory(self._trained())
            scheduler = self._scheduler_factory(optimizer) if self._scheduler_factory else None
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"the optimizer or the scheduler cannot be built: {one_line(error)}"
            ) from error
        if scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": scheduler,
                "interval": self._scheduler_interval,
                "monitor": "train_loss",
                "strict": False,
            },
        }


def validates(trainer: pl.Trainer) -> bool:
    """Whether a run has validation, in this epoch or a later one."""
    data = getattr(trainer, "datamodule", None)
    # ours always has the method, which is all that Lightning checks
    has_none = isinstance(data, SegmentationData) and data.val is None
    return trainer.enable_validation and not has_none


def input_names(model: nn.Module) -> tuple[str, ...] | None:
    """The batch keys that a network is called with: the names of its ``forward``.

    An empty tuple for all keys (``**kwargs`` alone, or after ``*args``); None if it does not name
    ``patch``, which is then its first argument. A wrapper is called as what it wraps.

    >>> input_names(nn.Conv2d(1, 1, 3)) is None
    True
    """
    parameters = inspect.signature(model.forward).parameters
    if "patch" in parameters:
        return tuple(parameters)
    kind = inspect.Parameter
    kinds = {parameter.kind for parameter in parameters.values()}
    if kind.VAR_KEYWORD not in kinds or kinds & {
        kind.POSITIONAL_ONLY,
        kind.POSITIONAL_OR_KEYWORD,
    }:
        return None
    # torch.compile and DataParallel pass on whatever they get, as the base model of LIS2 does
    children = dict(model.named_children())
    inner = children.get(COMPILED.rstrip("."), children.get("module"))
    if inner is not None and kind.VAR_POSITIONAL in kinds:
        return input_names(inner)
    return ()
