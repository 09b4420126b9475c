"""What varies: lists, ranges, and what is wrong with them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from lis2_lightning import ConfigError
from lis2_lightning.evaluation.space import Space

SPACE = {
    "optimizer": ["Adam", {"type": "SGD", "momentum": 0.9}],
    "optimizer.lr": {"low": 1e-4, "high": 0.1, "log": True},
    "batch_size": {"low": 8, "high": 32, "step": 8},
}


def test_each_form_becomes_a_distribution_of_optuna() -> None:
    import optuna

    distributions = Space.parse(SPACE).distributions()
    lr, batch_size = distributions["optimizer.lr"], distributions["batch_size"]
    assert isinstance(lr, optuna.distributions.FloatDistribution)
    assert (lr.low, lr.high, lr.log) == (1e-4, 0.1, True)
    assert isinstance(batch_size, optuna.distributions.IntDistribution)
    assert (batch_size.low, batch_size.high, batch_size.step) == (8, 32, 8)


def test_what_is_written_is_read_back() -> None:
    zero = {"optimizer.weight_decay": {"low": 0.0, "high": 0.1}}
    space = Space.parse({**SPACE, **zero})
    assert Space.parse(yaml.safe_load(yaml.safe_dump(space.data()))) == space


def test_a_component_is_chosen_before_what_lies_inside_it() -> None:
    space = Space.parse(dict(reversed(SPACE.items())))
    (sgd,) = [p for p in space.distributions()["optimizer"].choices if "SGD" in p]  # type: ignore[attr-defined]
    values = space.values_of({"optimizer": sgd, "optimizer.lr": 0.01, "batch_size": 8})
    config = space.apply({"optimizer": {"type": "Adam", "eps": 0.1}}, values)
    assert config == {"optimizer": {"type": "SGD", "momentum": 0.9, "lr": 0.01}, "batch_size": 8}


def test_the_examples_hold_every_item_and_both_ends() -> None:
    examples = list(Space.parse(SPACE).examples())
    assert len(examples) == 4
    assert {example["optimizer.lr"] for example in examples} == {1e-4, 0.1}


@pytest.mark.parametrize(
    ("described", "sentence"),
    [
        ([], "space must hold keys, each with a list of values, or a range"),
        ({"epochs": 3}, "space: epochs must be a list of values, or a range as in .*, got 3"),
        ({"epochs": []}, r"space: epochs must be a list of values.*, got \[\]"),
        ({"epochs": [2, 2]}, "space: epochs has a value twice: 2, 2"),
        ({"epochs": {"low": 2}}, "space: epochs.high is missing: a range has low and high"),
        ({"epochs": {"low": 2, "hihg": 3}}, "unknown key 'epochs.hihg': did you mean 'high'?"),
        ({"epochs": {"low": "2", "high": 3}}, "space: epochs.low must be a number, got '2'"),
        ({"epochs": {"low": 2, "high": 3, "log": 1}}, "epochs.log must be true or false, got 1"),
        ({"epochs": {"low": 3, "high": 2}}, "space: epochs is no range: `low <= high` must hold"),
        ({"epochs": {"low": 1, "high": 4, "step": 2}}, "epochs is no range: .* not divisible"),
        ({"monitor": ["val_loss"]}, "space must not vary monitor: it is the same for all trials"),
    ],
)
def test_mistakes_are_one_sentence(described: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Space.parse(described)


def test_a_grid_has_no_ranges() -> None:
    with pytest.raises(ConfigError, match="a grid has no ranges, and batch_size is one"):
        Space.parse(SPACE).grid()
