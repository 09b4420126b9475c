"""The commands that take a configuration: words become one, which the facade reads and runs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml

from lis2_lightning.assembly.plan import lightning_yaml
from lis2_lightning.base.files import written
from lis2_lightning.base.tables import table
from lis2_lightning.cli.dispatch import OWN_KEYS, OWN_SWITCHES
from lis2_lightning.cli.tools import Answer, number, print_answer
from lis2_lightning.config import Schema
from lis2_lightning.config.arguments import HELP
from lis2_lightning.config.names import KINDS, LIGHTNING_KINDS, class_path
from lis2_lightning.errors import ConfigError, SnapshotError, did_you_mean
from lis2_lightning.evaluation.verify_resume import verify_resume
from lis2_lightning.inference import data_of_image
from lis2_lightning.parallel import is_main
from lis2_lightning.running.mapping import default_map_path
from lis2_lightning.snapshots.compare import render_differences
from lis2_lightning.trainer import Trainer

_log = logging.getLogger("lis2_lightning")
Options = Mapping[str, Any]  # the values of the keys and switches of a command's own


def run(name: str, config: dict[str, Any], switches: Mapping[str, str]) -> int:
    """Run a command that takes a configuration, and return its exit code.

    Raises:
        Lis2Error: As the command does.
        SystemExit: Help of a component or the configuration was asked for.
    """
    schema = Schema(Trainer)
    _show_help(schema, name, switches)
    options = {key: config.pop(key, None) for key in OWN_KEYS[name]}
    options |= {switch: f"--{switch}" in switches for switch in OWN_SWITCHES.get(name, {})}
    if "--print_config" in switches:
        sys.stdout.write(yaml.safe_dump(_complete(schema, config), sort_keys=False))
        raise SystemExit(0)
    answer = _COMMANDS[name](config, options)
    # every process has come to the same answer
    return print_answer(answer, as_json="--json" in switches) if is_main() else answer.code


def _complete(schema: Schema, config: Mapping[str, Any]) -> dict[str, Any]:
    """Every key, Lightning's included, with its value."""
    complete = schema.parse(config, partly=True).config
    complete["lightning"] = {**schema.lightning_defaults, **complete["lightning"]}
    return complete


def _show_help(schema: Schema, name: str, switches: Mapping[str, str]) -> None:
    """Print help of a component where it was asked for, and end."""
    kinds = {key: kind for key, kind in KINDS.items() if key in schema.keys}
    kinds |= {f"lightning.{key}": kind for key, kind in LIGHTNING_KINDS.items()}
    for switch in (switch for switch in switches if switch.endswith(HELP)):
        key = switch.removeprefix("--").removesuffix(HELP)
        if key not in kinds:
            raise ConfigError(f"{switch} is no help of a component: {did_you_mean(key, kinds)}")
        value = class_path(kinds[key], switches[switch], key=switch)
        schema.parser(prog=f"lis2 {name}").parse_args([f"{switch}={value}"])


def _fit(config: dict[str, Any], options: Options) -> Answer:
    resume = {"resume": options["ckpt_path"]} if options["ckpt_path"] else {}
    return Answer("", Trainer.from_config(config, **resume).train())


def _measure(method: str, config: dict[str, Any], options: Options) -> Answer:
    trainer, snapshot = _trainer(config, options["ckpt_path"], command=method)
    scores = getattr(trainer, method)(snapshot)
    return Answer(table(scores), dict(scores))


def _predict(config: dict[str, Any], options: Options) -> Answer:
    from lis2_lightning.cli import evaluation_commands  # noqa: PLC0415 - training needs none of it
    from lis2_lightning.evaluation.ensemble import snapshots_matching  # noqa: PLC0415 - nor of this

    image, output = options["image"], options["output"]
    if image and not output:
        raise ConfigError("--image needs --output: name the file of the map, such as map.fits")
    limit = number(options, "threshold", float, allowed="auto or in [0, 1]")
    request = {
        "mask": options["mask"],
        "threshold": "auto" if limit is None else limit,
        "stride": number(options, "stride", allowed="a whole number of at least 1"),
        "dtype": options["dtype"] or "float32",
        "overwrite": options["overwrite"],
    }
    snapshots = snapshots_matching(options["ckpt_path"])
    if len(snapshots) > 1:
        return evaluation_commands.segment_together(snapshots, config, options, request)
    if options["spread"]:
        raise ConfigError("--spread needs several snapshots: --ckpt_path 'runs/x/fold_*/best.pt'")
    ckpt_path = str(snapshots[0]) if snapshots else options["ckpt_path"]
    trainer, snapshot = _trainer(config, ckpt_path, command="predict", image=image)
    path = Path(output) if output else _own_map(trainer)
    maps = trainer.predict(snapshot, output=path, **request)
    shapes = [list(probs.shape) for probs in maps]
    files = [getattr(map_, "source", None) for map_ in maps] if len(maps) > 1 else path
    return Answer("", {"output": files, "mask": request["mask"], "shapes": shapes})


def _own_map(trainer: Trainer) -> Path:
    folder = Path(trainer.global_config["output_dir"], trainer.global_config["run_name"])
    return default_map_path(trainer.data.predict, folder)


def _trainer(
    config: dict[str, Any], ckpt_path: str | None, *, command: str, image: str | None = None
) -> tuple[Trainer, str | Path]:
    """A trainer, and the snapshot that is used.

    Without a configuration, that of the snapshot is taken, and files are written beside it. With
    an ``image``, this is all that the trainer is to map.
    """
    snapshot = _snapshot(ckpt_path)
    if {"model", "train_dataset"} <= set(config):
        if image:
            config |= data_of_image(config, image, source="the configuration")
        return Trainer.from_config(config), snapshot
    if not isinstance(snapshot, Path):
        raise ConfigError(
            f"{command} needs a configuration or a snapshot: add --config, or --ckpt_path with a "
            "snapshot or the folder of a run"
        )
    folder = snapshot.resolve().parent
    overrides = {"output_dir": str(folder.parent), "run_name": folder.name or "run", **config}
    return Trainer.from_snapshot(snapshot, image=image, **overrides), snapshot


def _snapshot(ckpt_path: str | None) -> str | Path:
    """``best`` or ``last`` of the run that is configured, or the file of a snapshot."""
    if ckpt_path is None or ckpt_path in ("best", "last"):
        return ckpt_path or "best"
    path = Path(ckpt_path).expanduser()
    if not path.is_dir():
        return path
    if not (path / "best.pt").is_file():
        raise SnapshotError(f"the folder {path} holds no best.pt: name a snapshot with ckpt_path")
    return path / "best.pt"


def _plan(config: dict[str, Any], options: Options) -> Answer:
    path = options["lightning_yaml"]
    trainer = Trainer.from_config(config)
    plan = trainer.planned()
    # what fit would refuse is refused here
    trainer.check()
    if path and is_main():
        with written(path) as file:
            theirs = trainer.lightning
            callbacks = [*theirs.checkpoint_callbacks, *theirs.early_stopping_callbacks]
            file.write(lightning_yaml(trainer.global_config, callbacks).encode())
        _log.info("%s is written", path)
    return Answer(table(plan), plan)


def _verify_resume(config: dict[str, Any], options: Options) -> Answer:
    batches = number(options, "batches", least=1) or 4
    differences = verify_resume(Schema(Trainer).parse(config).config, batches=batches)
    data = {"exact": not differences, "differences": [asdict(item) for item in differences]}
    if not differences:
        return Answer("no difference: an interrupted run resumes exactly", data)
    text = (
        f"{render_differences(differences[:1])}\n{len(differences)} places differ: look for random "
        "numbers from a generator of the data set's own, and for kernels that are not "
        "deterministic (lightning.deterministic: true)"
    )
    return Answer(text, data, 1)


def _of_many(name: str, config: dict[str, Any], options: Options) -> Answer:
    from lis2_lightning.cli import evaluation_commands  # noqa: PLC0415 - see predict

    command: Callable[[dict[str, Any], Options], Answer] = getattr(evaluation_commands, name)
    return command(config, options)


def _speed(config: dict[str, Any], options: Options) -> Answer:
    from lis2_lightning.evaluation import speed  # noqa: PLC0415 - see predict

    limits = {
        key: number(options, key, float, allowed="more than 0") for key in ("seconds", "limit")
    }
    given = {key: value for key, value in limits.items() if value is not None}
    complete = Schema(Trainer).parse(config).config
    trials = speed.measure(complete, try_compile=bool(options["try_compile"]), **given)
    return Answer(speed.table(trials), speed.plain(trials))


_COMMANDS: Final[Mapping[str, Callable[[dict[str, Any], Options], Answer]]] = {
    "fit": _fit,
    "validate": partial(_measure, "validate"),
    "test": partial(_measure, "test"),
    "predict": _predict,
    "plan": _plan,
    "cross-validate": partial(_of_many, "cross_validate"),
    "tune": partial(_of_many, "tune"),
    "find-lr": partial(_of_many, "find_lr"),
    "baseline": partial(_of_many, "baseline"),
    "speed": _speed,
    "verify-resume": _verify_resume,
}
