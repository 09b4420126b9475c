"""Mistyped words are one sentence that says what may have been meant; none is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from lis2_lightning import ConfigError, Trainer
from lis2_lightning.cli import manual
from lis2_lightning.config import read_arguments


def read(*words: str) -> dict[str, Any]:
    """The configuration that words come to."""
    return read_arguments(words, command="fit", keys=[*manual.keys(), "data"], environ={})[0]


MISTYPED: list[tuple[Sequence[str], str]] = [
    (["--out", "map"], "'--out': did you mean '--output_dir'?"),
    (["--ep", "3"], "'--ep': did you mean '--epochs'"),
    (["--epoc", "3"], "'--epoc': did you mean '--epochs'? (lis2 fit"),
    (["--see", "3"], "'--see': did you mean '--seed'"),
    (["--epocs=3"], "did you mean '--epochs'"),
    (["--EPOCHS", "3"], "did you mean '--epochs'?"),
    (["-epochs", "3"], "'-epochs': did you mean '--epochs'?"),
    (["\N{EM DASH}epochs", "3"], "epochs': did you mean '--epochs'? (lis2 fit"),
    (["\N{EN DASH}\N{EN DASH}seed", "3"], "did you mean '--seed'? (lis2 fit"),
    (["epochs", "3"], "'epochs': did you mean '--epochs'? (lis2 fit"),
    (["epochs=3"], "'epochs=3': did you mean '--epochs'?"),
    (["c.yaml"], "'c.yaml': did you mean '--config c.yaml'?"),
    (["--metrics", "dice", "iou"], "'iou': a flag takes one value, and a list is one in quotes"),
    (["--lr", "0.1"], "did you mean '--optimizer.lr'?"),
    (["--precision", "16-mixed"], "did you mean '--lightning.precision'?"),
    (["--size", "64"], "did you mean '--data.size'?"),
    (["--xyzzy", "1"], "unrecognised argument '--xyzzy' (lis2 fit --help describes all)"),
    (["--xyzzy", "1", "--ep", "2"], "'--xyzzy'; unrecognised argument '--ep'"),
    (["--"], "unrecognised argument '--'"),
    (["--resume"], "--resume needs a value"),
    (["--save_last", "--seed", "1"], "--save_last needs a value"),
    (["--config"], "--config needs a file"),
    (["--config="], "--config needs a file"),
    (["--json=yes"], "--json takes no value"),
    (["--optimizer", "{type: Adam"], "--optimizer is not valid YAML"),
    (["--data", "3"], "data must hold keys and values, got 3"),
]


@pytest.mark.parametrize(("words", "sentence"), MISTYPED, ids=lambda v: " ".join(v)[:24])
def test_a_mistyped_word_is_one_sentence(words: Sequence[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(*words)
    assert sentence in str(error.value)
    assert len(str(error.value)) < 200


def test_the_last_of_repeated_flags_wins_and_a_negative_number_is_a_value() -> None:
    assert read("--epochs", "3", "--epochs=4", "--seed", "-1") == {"epochs": "4", "seed": "-1"}


def test_what_is_added_to_a_list_may_stand_apart() -> None:
    assert read("--trackers+=", "wandb", "--trackers+", "csv", "--trackers+=mlflow") == {
        "trackers": ["wandb", "csv", "mlflow"]
    }


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": ""}, "epochs must be int, got ''"),
        ({"epochs": "1e2"}, "epochs must be int, got 1e2"),
        ({"model": None}, "model must not be null: leave it out, or give it a value"),
        ({"optimizer": None}, "optimizer must not be null: leave it out, or give it a value"),
        ({"loss": None, "epochs": "x"}, "loss must not be null"),
    ],
)
def test_a_value_that_is_empty_or_null_is_one_sentence(
    changes: dict[str, Any], sentence: str
) -> None:
    data = {"type": "SyntheticDataset", "height": 32, "width": 32, "size": 16}
    with pytest.raises(ConfigError) as error:
        Trainer.from_config({"model": "unet", "train_dataset": data, **changes})
    assert str(error.value).startswith(sentence)
    assert str(error.value).count("null") <= 1
