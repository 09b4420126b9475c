"""An optimizer's state from a snapshot, numbered as this run numbers its parameters.

torch numbers them in the order in which a network registers them. That of LIS2's snapshots, or of
earlier ones of ours, may be another; a snapshot lists its weights in the order that held when it
was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from lis2_lightning.errors import SnapshotError, one_line

_ADVICE: Final = "set weights to the snapshot to begin with its weights and a new optimizer"


def renumber(
    state: Mapping[str, Any], optimizer: Optimizer, model: nn.Module, stored: Iterable[str]
) -> dict[str, Any]:
    """The state with the numbers that the parameters of `optimizer` have.

    Args:
        state: What the optimizer of the snapshot's run held.
        optimizer: A new optimizer of this run's parameters; it is used up.
        model: The network.
        stored: The names of the network's weights in the snapshot's order.

    Raises:
        SnapshotError: It is the state of other parameters, or of another kind of optimizer.
    """
    ages: dict[int, int] = {}
    named = dict(model.named_parameters(remove_duplicate=False))
    for age, name in enumerate(name for name in stored if name in named):
        ages.setdefault(id(named[name]), age)  # a weight that is shared has several names
    try:
        saved = [group["params"] for group in state["param_groups"]]
        current = [group["params"] for group in optimizer.param_groups]
        if [len(numbers) for numbers in saved] != [len(parameters) for parameters in current]:
            raise SnapshotError(
                f"the snapshot's optimizer has {_sizes(saved)} parameters, this run's has "
                f"{_sizes(current)}: train the same ones, or {_ADVICE}"
            )
        groups = [
            {**group, "params": _numbers(group["params"], parameters, ages)}
            for group, parameters in zip(state["param_groups"], current, strict=True)
        ]
        renumbered = {**state, "param_groups": groups}
        required = [set(group) for group in optimizer.param_groups]
        optimizer.load_state_dict(renumbered)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SnapshotError(
            f"the snapshot's optimizer state cannot be used ({one_line(error)}): {_ADVICE}"
        ) from error
    _check(optimizer, required, {id(parameter): name for name, parameter in named.items()})
    return renumbered


def _numbers(saved: list[int], parameters: list[Tensor], ages: Mapping[int, int]) -> list[int]:
    """The numbers that a group's parameters have in the snapshot."""
    if any(id(parameter) not in ages for parameter in parameters):
        return saved  # weights of another object than the network, about which nothing is known
    oldest_first = sorted(range(len(parameters)), key=lambda i: ages[id(parameters[i])])
    numbers = dict(zip(oldest_first, saved, strict=True))
    return [numbers[i] for i in range(len(parameters))]


def _check(optimizer: Optimizer, required: list[set[str]], names: Mapping[int, str]) -> None:
    """Check arguments and shapes of what the optimizer has taken, which torch does not."""
    for group, expected in zip(optimizer.param_groups, required, strict=True):
        if missing := sorted(expected - set(group)):
            raise SnapshotError(
                f"the snapshot's optimizer state is not that of {type(optimizer).__name__}, it "
                f"has no {missing[0]}: use the optimizer that it was written with, or {_ADVICE}"
            )
    if not type(optimizer).__module__.startswith("torch.") or isinstance(optimizer, LBFGS):
        return  # these keep tensors of shapes of their own
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, Tensor) and not _fits(value.shape, parameter.shape):
                raise SnapshotError(
                    f"the snapshot's optimizer state does not fit the network: {key} of "
                    f"{names.get(id(parameter), 'a parameter')} is {_sides(value)}, and the "
                    f"parameter is {_sides(parameter)}: use the network that it was written with, "
                    f"or {_ADVICE}"
                )


def _fits(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether values are a number, or have the shape of a parameter or of its sums (Adafactor)."""
    same = len(shape) == len(whole) and all(a in {1, b} for a, b in zip(shape, whole, strict=True))
    return same or not shape


def _sizes(groups: Iterable[list[Any]]) -> str:
    return " + ".join(str(len(group)) for group in groups)


def _sides(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
