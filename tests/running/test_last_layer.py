"""A loss that does not fit the end of a network is refused before training; no other is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lis2_lightning import ConfigError
from lis2_lightning.losses import BceDiceLoss, DiceLoss, MaskedLoss
from lis2_lightning.running.last_layer import check_output
from tests.running.little import LOGITS, Function, Net, Noise, Own, build, refusal


def two_classes(output: Tensor) -> Tensor:
    return torch.cat([output, -output], dim=1).softmax(1)[:, 1:]


class OnlyInEvaluation(Net):
    """Logits in training, probabilities after it, as many detectors have it."""

    def forward(self, patch: Tensor) -> Tensor:
        output = super().forward(patch)
        return output if self.training else output.sigmoid()


ENDS: dict[str, tuple[nn.Module, str]] = {
    "a function": (Net(torch.sigmoid), "sigmoid"),
    "another function": (Net(F.sigmoid), "sigmoid"),
    "a method": (Net(lambda x: x.sigmoid()), "sigmoid"),
    "a layer": (nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Sigmoid()), "sigmoid"),
    "nested layers": (nn.Sequential(Net(), nn.Sequential(nn.Sigmoid(), nn.Identity())), "sigmoid"),
    "a crop": (Net(lambda x: F.pad(x, (1, 1, 1, 1)).sigmoid()[..., 1:-1, 1:-1]), "sigmoid"),
    "a bound": (Net(lambda x: x.sigmoid().clamp(1e-6, 1 - 1e-6)), "sigmoid"),
    "an upsampling": (
        Net(lambda x: F.interpolate(F.avg_pool2d(x, 2).sigmoid(), scale_factor=2.0)),
        "sigmoid",
    ),
    "heads": (Net(lambda x: torch.stack([x.sigmoid(), (-x).sigmoid()]).mean(0)), "sigmoid"),
    "in evaluation only": (OnlyInEvaluation(), "sigmoid"),
    "two classes": (Net(two_classes), "softmax"),
    "logarithms": (Net(F.logsigmoid), "log-sigmoid"),
    "pieces": (Net(F.hardsigmoid), "hard sigmoid"),
}


def judge(model: nn.Module, loss: nn.Module) -> None:
    """What the trial makes of a network in evaluation mode."""
    check_output(MaskedLoss(loss), "Net", model.eval()(Noise()[0]["patch"][None]))


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("loss", [LOGITS(), DiceLoss(from_logits=True), Own()], ids=str)
def test_a_sigmoid_before_a_loss_of_logits_is_refused(end: str, loss: nn.Module) -> None:
    model, activation = ENDS[end]
    remedies = {
        "BCEWithLogitsLoss": "a loss of probabilities such as bce or bce_dice_loss",
        "DiceLoss": "leave out from_logits",
        "Own": "set the loss's attribute expects_logits = False if it takes probabilities",
    }
    name = type(loss).__name__
    with pytest.raises(ConfigError) as caught:
        judge(model, loss)
    assert str(caught.value) == (
        f"Net ends in a {activation}, and {name} applies a sigmoid to it: use a model without it, "
        f"or {remedies[name]}"
    )


@pytest.mark.parametrize(
    "last",
    [
        lambda x: x,
        torch.tanh,
        torch.relu,
        F.silu,
        lambda x: x * x.sigmoid(),  # a gate
        lambda x: x.sigmoid() @ x,  # attention
        lambda x: 2 * x.sigmoid() - 1,
        lambda x: x.sigmoid().logit(),
        lambda x: x.clamp(-9, 9),
        lambda x: (x - x.mean()) / 1e3 + 0.5,  # logits that lie in [0, 1] by chance
        lambda x: torch.cat([x.sigmoid()[..., :4], x[..., 4:]], dim=3),
    ],
)
def test_no_other_last_layer_is_refused_before_a_loss_of_logits(last: Function) -> None:
    for loss in (LOGITS(), BceDiceLoss(from_logits=True), Own()):
        judge(Net(last), loss)


@pytest.mark.parametrize(
    ("loss", "instead"),
    [
        (nn.BCELoss(), "BCEWithLogitsLoss"),
        (DiceLoss(), "from_logits: true"),
        (BceDiceLoss(), "from_logits: true"),
    ],
)
def test_logits_before_a_loss_of_probabilities_are_refused(
    tmp_path: Path, loss: nn.Module, instead: str
) -> None:
    sentence = refusal(build(tmp_path, Net(), loss=loss))
    assert sentence.startswith("the output of Net ranges from -")
    assert sentence.endswith(
        f", and {type(loss).__name__} needs probabilities in [0, 1]: end the model with a sigmoid, "
        f"or use a loss of logits ({instead})"
    )


@pytest.mark.parametrize(
    "last",
    [
        torch.sigmoid,
        lambda x: x.clamp(0, 1),
        lambda x: x.relu().clamp(max=1),
        lambda x: (x.tanh() + 1) / 2,
        lambda x: 1 / (1 + (-x).exp()),
        two_classes,
        lambda x: x.sigmoid() * (1 + 1e-6),  # rounding
    ],
)
def test_probabilities_of_any_origin_pass_and_nothing_is_said(
    tmp_path: Path, last: Function, caplog: pytest.LogCaptureFixture
) -> None:
    build(tmp_path, Net(last), loss=DiceLoss()).check()
    assert not caplog.messages


def test_nan_in_an_output_is_left_to_the_training(tmp_path: Path) -> None:
    build(tmp_path, Net(lambda x: x.sigmoid() * float("nan")), loss=DiceLoss()).check()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_compiled_network_is_tried_as_it_was_written(tmp_path: Path, is_wrapped: bool) -> None:
    compiled = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        compiled.append(graph)
        return graph.forward

    model: Any = Net(torch.sigmoid)
    if is_wrapped:
        model = torch.compile(model, backend=backend)
    else:
        model.compile(backend=backend)
    build(tmp_path, model).check()
    with pytest.raises(ConfigError, match="ends in a sigmoid"):
        build(tmp_path, model, loss=LOGITS()).check()
    assert not compiled


def test_a_wrapped_network_is_judged_by_what_it_wraps(tmp_path: Path) -> None:
    build(tmp_path, nn.DataParallel(Net(torch.sigmoid))).check()
    with pytest.raises(ConfigError, match="ends in a sigmoid"):
        build(tmp_path, nn.DataParallel(Net(torch.sigmoid)), loss=LOGITS()).check()


def test_a_loss_of_ones_own_on_logits_gives_maps_of_probabilities(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = build(tmp_path, Net(), loss=Own())
    with caplog.at_level("INFO"):
        trainer.check()
    assert caplog.messages == [
        "Own behaves like a loss of logits, so metrics and maps apply a sigmoid: its attribute "
        "expects_logits = True (or False) says so"
    ]
    output = torch.tensor([-4.0, 0.0, 4.0])
    assert torch.equal(trainer.module.probabilities(output), output.sigmoid())


@pytest.mark.parametrize(
    ("loss", "hint"),
    [
        (nn.L1Loss(), ""),
        (nn.MSELoss(), ""),
        (nn.CosineSimilarity(), "; if it is logits, set expects_logits = True on CosineSimilarity"),
    ],
)
def test_an_output_that_metrics_cut_is_told(
    tmp_path: Path, loss: nn.Module, hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    if hint:
        loss.forward = F.l1_loss
    trainer = build(tmp_path, Net(), loss=loss)
    trainer.check()
    (message,) = caplog.messages
    assert message.startswith("the output of Net ranges from -")
    assert message.endswith(f": metrics and maps cut it to [0, 1]{hint}")
    assert trainer.module.probabilities(torch.tensor([-4.0, 0.5, 4.0])).tolist() == [0, 0.5, 1]
    caplog.clear()
    build(tmp_path, Net(torch.sigmoid), loss=loss).check()
    assert not caplog.messages


def test_a_weighted_loss_of_logits_after_a_sigmoid_names_its_counterpart(tmp_path: Path) -> None:
    assert refusal(build(tmp_path, loss=LOGITS(pos_weight=torch.tensor(3.0)))).endswith(
        "or bce_dice_loss with alpha: 1 and this pos_weight, which takes probabilities"
    )
