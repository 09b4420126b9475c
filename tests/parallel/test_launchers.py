"""Processes that ``torchrun`` and SLURM start: several of them train what one trains."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lis2_lightning.snapshots import read_snapshot
from tests.conftest import TINY
from tests.parallel.conftest import ROOT, Process, end_all, free_port, start

# one worker of the test runner, for the runs to compare with are made once
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("launchers")]
ENDS_WITHIN_S = 180
ADDRESSES = ("10.213.71.1", "10.213.71.2")
# No batch statistics: those are of each process's own samples on CPUs.
PLAIN = """
from torch import nn


class Plain(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1), nn.Sigmoid()
        )
"""


@dataclass
class World:
    """A folder with a configuration, and the processes that were started in it."""

    folder: Path
    started: list[Process]

    def start(self, *words: str, before: Sequence[str] = (), **variables: str) -> Process:
        """Start a module."""
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = start(["-m", *words], self.folder, before=before, streams=streams, **variables)
        self.started.append(process)
        return process

    def fit(self, name: str, *words: str) -> list[str]:
        """The words of a run of this name."""
        config = str(self.folder / "plain.yaml")
        return ["lis2_lightning", "fit", "--config", config, "--run_name", name, *words]

    def weights(self, name: str, file: str = "last.pt") -> dict[str, torch.Tensor]:
        """The weights in a snapshot of a run."""
        model: dict[str, torch.Tensor] = read_snapshot(self.folder / "runs" / name / file)["MODEL"][
            "MODEL_STATE"
        ]
        return model


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Runs of sixteen samples an epoch, eight at a time: one process, and Lightning's own two."""
    folder = tmp_path_factory.mktemp("launchers")
    (folder / "plain_network.py").write_text(PLAIN, encoding="utf-8")
    config: dict[str, Any] = {
        **deepcopy(TINY),
        "output_dir": str(folder / "runs"),
        "model": {"class_path": "plain_network.Plain"},
        "optimizer": {"type": "SGD", "lr": 0.5},
        "epochs": 3,
        "save_last": True,
        "report": False,
    }
    # the larger fold, of which sixteen samples are taken: no batch is cut short
    config["train_dataset"], config["val_dataset"] = config["val_dataset"], config["train_dataset"]
    config["val_dataset"].pop("data_augmentations")
    config["lightning"]["limit_train_batches"] = 2
    (folder / "plain.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    world = World(folder, [])
    try:
        ended(world.start(*world.fit("two", "--lightning.devices=2", "--lightning.strategy=ddp")))
        ended(world.start(*world.fit("one", "--batch_size=8")))
        yield world
    finally:
        end_all(world.started)


@pytest.fixture
def world(compared: World, started: list[Process]) -> World:
    """The same folder, for processes of a test's own."""
    return World(compared.folder, started)


@dataclass(frozen=True)
class Hosts:
    """Two network namespaces, each with one end of a cable of the same name."""

    names: tuple[str, str]
    cable = "lis2"

    def enter(self, host: int, *, own: Path | None = None) -> list[str]:
        """What stands before a command that is to run there, with a folder of the host's own."""
        words = ["ip", "netns", "exec", self.names[host]]
        if own is not None:
            mount = f'mount -t tmpfs tmpfs "{own}" && exec "$@"'
            words += ["unshare", "--mount", "sh", "-c", mount, "sh"]
        return words


@pytest.fixture
def hosts() -> Iterator[Hosts | None]:
    """Two hosts of their own, or null where the machine allows no namespaces."""
    made = Hosts((f"lis2-{os.getpid()}-a", f"lis2-{os.getpid()}-b"))
    try:
        yield made if shutil.which("ip") and join(made) else None
    finally:
        for name in made.names:  # the cable goes with them
            if shutil.which("ip"):
                subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def join(hosts: Hosts) -> bool:
    """Make the namespaces and the cable; whether that is allowed here."""
    a, b = hosts.names
    steps = [f"ip netns add {a}", f"ip netns add {b}"]
    steps.append(f"ip link add {hosts.cable} netns {a} type veth peer name {hosts.cable} netns {b}")
    for name, address in zip(hosts.names, ADDRESSES, strict=True):
        steps += [
            f"ip -n {name} addr add {address}/24 dev {hosts.cable}",
            f"ip -n {name} link set {hosts.cable} up",
            f"ip -n {name} link set lo up",
        ]
    return all(
        subprocess.run(step.split(), capture_output=True, check=False, timeout=30).returncode == 0
        for step in steps
    )


def on_two_hosts(
    world: World, hosts: Hosts, words: Sequence[str], *, unshared: Path | None = None
) -> list[Process]:
    """Start the same command on each host, one process each."""
    return [
        world.start(
            "torch.distributed.run",
            "--nnodes=2",
            "--nproc-per-node=1",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={ADDRESSES[0]}:29400",
            f"--local-addr={ADDRESSES[host]}",
            # torchrun finds the first host by its name, which both have here
            f"--rdzv-conf=is_host={int(host == 0)}",
            "-m",
            *words,
            before=hosts.enter(host, own=unshared if host else None),
            GLOO_SOCKET_IFNAME=hosts.cable,
        )
        for host in (0, 1)
    ]


def ended(*processes: Process) -> list[str]:
    """What processes have told, when all of them are at their end without a failure."""
    outputs = [process.communicate(timeout=ENDS_WITHIN_S)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(outputs)
    return outputs


def assert_is_what_one_and_two_processes_train(world: World, name: str) -> None:
    """The run is Lightning's own of two processes, and that of one with batches of both."""
    for other, file in product(("one", "two"), ("last.pt", "best.pt")):
        weights, others = world.weights(name, file), world.weights(other, file)
        assert weights.keys() == others.keys()
        for key, value in weights.items():
            torch.testing.assert_close(value, others[key], rtol=0, atol=1e-6)


def test_torchrun_over_two_hosts_trains_what_one_process_trains(
    world: World, hosts: Hosts | None, record_property: Callable[[str, object], None]
) -> None:
    record_property("hosts", "two network namespaces" if hosts else "loopback: no namespaces here")
    if hosts is None:
        words = ("--standalone", "--nproc-per-node=2", "-m", *world.fit("torchrun"))
        ended(world.start("torch.distributed.run", *words))
    else:
        outputs = ended(*on_two_hosts(world, hosts, world.fit("torchrun")))
        assert "best train_loss" in "".join(outputs)
        assert sum("best train_loss" in output for output in outputs) == 1
    assert_is_what_one_and_two_processes_train(world, "torchrun")


def test_hosts_that_share_no_folder_are_reported_in_a_sentence(
    world: World, hosts: Hosts | None
) -> None:
    if hosts is None or shutil.which("unshare") is None:
        pytest.skip("no namespaces can be made here")
    runs = world.folder / "runs"
    started = on_two_hosts(world, hosts, world.fit("apart"), unshared=runs)
    output = "".join(process.communicate(timeout=ENDS_WITHIN_S)[0] for process in started)
    assert all(process.returncode for process in started)
    sentences = [line for line in output.splitlines() if line.startswith("lis2: ")]
    there = f"is not visible on {socket.gethostname()}: set output_dir to a folder that all"
    assert sentences
    assert all(there in sentence for sentence in sentences), output
    assert [path.name for path in (runs / "apart").iterdir() if path.name != ".lock"] == []


def srun(world: World, name: str, *words: str) -> list[Process]:
    """Start a command as two tasks of SLURM's, with the variables of its tasks."""
    job = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NAME": "filaments",
        "SLURM_SUBMIT_DIR": str(world.folder),
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_JOB_NODELIST": "127.0.0.1",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NODEID": "0",
        "MASTER_PORT": str(free_port()),
    }
    return [
        world.start(*world.fit(name, *words), **job, SLURM_PROCID=task, SLURM_LOCALID=task)
        for task in ("0", "1")
    ]


def test_two_tasks_of_slurm_train_what_one_process_trains(world: World) -> None:
    main, other = ended(*srun(world, "slurm"))
    assert "best train_loss" in main
    assert other == ""
    assert_is_what_one_and_two_processes_train(world, "slurm")


def test_a_contradiction_to_the_launcher_is_a_sentence_and_code_2(world: World) -> None:
    main, other = srun(world, "wrong", "--lightning.devices=4")
    output = main.communicate(timeout=ENDS_WITHIN_S)[0]
    assert (main.returncode, other.wait(ENDS_WITHIN_S)) == (2, 2)
    assert output.splitlines() == [
        "lis2: SLURM has started processes for devices: 2 and num_nodes: 1, and lightning has "
        "devices: 4 and num_nodes: 1: leave both out, or start as many"
    ]


def test_a_batch_script_without_srun_waits_for_nobody(
    typed: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "filaments", "SLURM_SUBMIT_DIR": "/"}
    tasks = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "0"}
    for name, value in {**job, **tasks}.items():
        monkeypatch.setenv(name, value)
    code, output, errors = typed("fit", "--config", ROOT / "configs" / "quickstart.yaml")
    assert (code, output) == (2, "")
    assert errors == (
        "lis2: SLURM has reserved 2 tasks, and srun has started none of them: put srun before the "
        "command, or set SLURM_NTASKS=1 to train in this process alone\n"
    )
