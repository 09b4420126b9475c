"""The commands that take a configuration: words become one, which the facade reads and runs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml

from lis2_lightning.assembly.plan import lightning_yaml, usual_metrics
from lis2_lightning.base.files import atomic
from lis2_lightning.base.tables import table
from lis2_lightning.cli.dispatch import OWN_KEYS, TRAINER_COMMANDS
from lis2_lightning.cli.tools import Answer, print_answer
from lis2_lightning.config import Schema, read_arguments
from lis2_lightning.config.arguments import HELP
from lis2_lightning.config.names import KINDS, class_path
from lis2_lightning.errors import ConfigError
from lis2_lightning.evaluation.verify_resume import verify_resume
from lis2_lightning.parallel import is_main
from lis2_lightning.snapshots.compare import render_differences
from lis2_lightning.trainer import Trainer

_log = logging.getLogger("lis2_lightning")


def run(words: Sequence[str]) -> int:
    """Run a command that takes a configuration, and return its exit code.

    Raises:
        Lis2Error: As the command does.
        SystemExit: Help or the configuration was asked for.
    """
    name, *rest = words
    own_key, _ = OWN_KEYS[name]
    schema = Schema(Trainer)
    config, switches = read_arguments(
        rest, command=name, keys=[*schema.keys, own_key], default=partial(_default, schema)
    )
    _show_help(schema, name, switches)
    option = config.pop(own_key, None)
    if "--print_config" in switches:
        sys.stdout.write(yaml.safe_dump(_complete(schema, config), sort_keys=False))
        raise SystemExit(0)
    answer = _COMMANDS[name](config, option)
    # every process has come to the same answer
    return print_answer(answer, as_json="--json" in switches) if is_main() else answer.code


def _default(schema: Schema, key: str) -> Any:
    """What a key holds where nothing sets it, so that a flag can reach inside or add to it."""
    return usual_metrics() if key == "metrics" else schema.defaults().get(key)


def _complete(schema: Schema, config: Mapping[str, Any]) -> dict[str, Any]:
    """Every key, Lightning's included, with its value."""
    complete = schema.parse(config, partly=True).config
    complete["lightning"] = {**schema.lightning_defaults, **complete["lightning"]}
    return complete


def _show_help(schema: Schema, name: str, switches: Mapping[str, str]) -> None:
    """Print help of a command or a component where it was asked for, and end."""
    asked = [switch for switch in switches if switch in {"-h", "--help"} or switch.endswith(HELP)]
    if not asked:
        return
    switch, value = asked[0], switches[asked[0]]
    if kind := KINDS.get(switch.removesuffix(HELP).rpartition(".")[2].removeprefix("--")):
        value = class_path(kind, value, key=switch)
    parser = schema.parser(prog=f"lis2 {name}", description=TRAINER_COMMANDS[name])
    key, text = OWN_KEYS[name]
    parser.add_argument(f"--{key}", help=text)
    parser.add_argument("-c", "--config", help="Configuration file, in YAML; may be repeated.")
    parser.add_argument("--print_config", help="Print the complete configuration and exit.")
    parser.add_argument("--json", help="Print the result as one line of JSON.")
    parser.parse_args([f"{switch}={value}" if value else switch])


def _fit(config: dict[str, Any], ckpt_path: str | None) -> Answer:
    resume = {"resume": ckpt_path} if ckpt_path else {}
    return Answer("", Trainer.from_config(config, **resume).train())


def _measure(method: str, config: dict[str, Any], ckpt_path: str | None) -> Answer:
    scores = getattr(Trainer.from_config(config), method)(ckpt_path or "best")
    return Answer(table(scores), dict(scores))


def _predict(config: dict[str, Any], ckpt_path: str | None) -> Answer:
    trainer = Trainer.from_config(config)
    shapes = [list(probs.shape) for probs in trainer.predict(ckpt_path or "best")]
    return Answer("", {"output_dir": trainer.global_config["output_dir"], "shapes": shapes})


def _plan(config: dict[str, Any], path: str | None) -> Answer:
    trainer = Trainer.from_config(config)
    plan = trainer.planned()
    # what fit would refuse is refused here
    _ = trainer.lightning
    trainer.module.configure_optimizers()
    if path and is_main():
        with atomic(Path(path)) as file:
            file.write(lightning_yaml(trainer.global_config).encode())
        _log.info("%s is written", path)
    return Answer(table(plan), plan)


def _verify_resume(config: dict[str, Any], batches: Any) -> Answer:
    num = str(4 if batches is None else batches)
    if not num.isdigit() or num == "0":
        raise ConfigError(f"batches must be a whole number of at least 1, got {batches}")
    differences = verify_resume(Schema(Trainer).parse(config).config, batches=int(num))
    data = {"exact": not differences, "differences": [asdict(item) for item in differences]}
    if not differences:
        return Answer("no difference: an interrupted run resumes exactly", data)
    text = (
        f"{render_differences(differences[:1])}\n{len(differences)} places differ: look for random "
        "numbers from a generator of the data set's own, and for kernels that are not "
        "deterministic (lightning.deterministic: true)"
    )
    return Answer(text, data, 1)


_COMMANDS: Final[Mapping[str, Callable[[dict[str, Any], Any], Answer]]] = {
    "fit": _fit,
    "validate": partial(_measure, "validate"),
    "test": partial(_measure, "test"),
    "predict": _predict,
    "plan": _plan,
    "verify-resume": _verify_resume,
}
