"""Files that somebody has put together to do harm: nothing runs, and each is refused."""

from __future__ import annotations

import pickle  # noqa: TID251 - the test that the corpus would do harm
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lis2_lightning import SnapshotError
from lis2_lightning.snapshots import newest_snapshot, peek, read_snapshot

EVIL = "evil_when_imported"
TOUCH = "open('canary', 'w').close()"

# what a pickle could call, by the arguments with which it would touch the canary, were it run
CALLS: dict[tuple[Any, ...], str] = {
    ("touch canary",): """os:system posix:system nt:system os:popen subprocess:getoutput
        pathlib:os.system configurable:os.system""",
    (("touch", "canary"),): """subprocess:Popen subprocess:run subprocess:call pty:spawn
        subprocess:check_output subprocess:check_call multiprocessing.util:spawnv_passfds""",
    ("/bin/sh", ("sh", "-c", "touch canary"), ()): """os:posix_spawn os:execve posix:execve
        _posixsubprocess:fork_exec os:spawnve""",
    (TOUCH,): """builtins:eval builtins:exec __builtin__:eval __builtin__:exec timeit:timeit
        cProfile:run profile:run pdb:run bdb:Bdb.run trace:Trace.run doctest:debug_script
        codeop:compile_command code:interact torch.utils.cpp_extension:load_inline
        torch._C:_jit_script_compile numpy.f2py:compile ast:literal_eval""",
    (TOUCH, "x", "exec"): "builtins:compile __builtin__:compile",
    ("canary", "w"): """builtins:open io:open _io:FileIO codecs:open os:open gzip:open
        shelve:open dbm:open sqlite3:connect zipfile:ZipFile tarfile:open logging:FileHandler""",
    ("canary",): """os:mkdir os:remove os:mkfifo shutil:rmtree pathlib:Path.touch ctypes:CDLL
        _ctypes:dlopen torch:load torch.jit:load torch.hub:load torch.ops:load_library
        torch.package:PackageImporter torch.classes:load_library numpy:load numpy:memmap
        runpy:run_path __builtin__:execfile site:addsitedir webbrowser:open joblib:load
        urllib.request:urlopen lightning.fabric.utilities.cloud_io:_load""",
    (EVIL,): """builtins:__import__ importlib:import_module importlib._bootstrap:_load
        runpy:run_module pkgutil:find_loader pydoc:locate importlib.util:find_spec""",
    (b"x",): """pickle:loads _pickle:loads marshal:loads torch.storage:_load_from_bytes
        yaml:unsafe_load dill:loads cloudpickle:loads""",
    (10**12,): """builtins:bytearray builtins:range builtins:bytes builtins:list torch:Tensor
        torch:FloatStorage torch:empty torch:zeros numpy:zeros collections:deque""",
    (1, 15): "os:kill signal:raise_signal posix:kill os:killpg",
    ("", "__class__"): "builtins:getattr operator:attrgetter builtins:setattr builtins:delattr",
    ("127.0.0.1", 9): "socket:create_connection smtplib:SMTP ftplib:FTP http.client:HTTPConnection",
    (): f"""{EVIL}:anything antigravity:webbrowser.open builtins:globals builtins:vars
        builtins:set builtins:print builtins:input builtins:breakpoint
        functools:partial functools:reduce types:FunctionType types:CodeType atexit:register
        copyreg:_reconstructor copy_reg:__newobj__ sys:exit sys:settrace gc:get_objects
        asyncio:run multiprocessing:Process tempfile:mkdtemp logging:Logger logging:shutdown
        logging.config:dictConfig collections:namedtuple collections:defaultdict
        collections:OrderedDict.fromkeys numpy.core.multiarray:_reconstruct numpy:dtype
        torch:compile torch:device torch:dtype torch.nn:Linear
        torch.serialization:add_safe_globals torch._utils:_rebuild_wrapper_subclass
        torch._utils:_rebuild_parameter_with_state torch._utils:_rebuild_meta_tensor_no_storage
        torch._utils:_rebuild_device_tensor_from_numpy torch._tensor:_rebuild_from_type_v2
        jsonargparse:set_parsing_settings lightning.pytorch:Trainer lis2_lightning:Trainer
        configurable:Configurable lis2.trainer:Trainer argparse:Namespace""",
}


def part(value: Any) -> bytes:
    """What a value is in a pickle, without the pickle's begin and end."""
    return pickle.dumps(value, 2)[2:-1]


def text(value: str) -> bytes:
    """A text in a pickle."""
    content = value.encode()
    return b"X" + struct.pack("<I", len(content)) + content


SYSTEM = b"cos\nsystem\n"
STUB = b"cconfigurable\nGlobalConfig\n)\x81"
ORDERED = b"ccollections\nOrderedDict\n)R"
COUNTER = b"ccollections\nCounter\n"
TOUCHES = part(("touch canary",))
# the same and other harm in every form that a pickle knows
FORMS: dict[str, bytes] = {
    "stack global": text("os") + text("system") + b"\x93" + TOUCHES + b"R",
    "inst": b"(" + text("touch canary") + b"ios\nsystem\n",
    "obj": b"(" + SYSTEM + text("touch canary") + b"o",
    "newobj": b"csubprocess\nPopen\n" + part((("touch", "canary"),)) + b"\x81",
    "newobj with names": b"csubprocess\nPopen\n)" + part({"args": "touch canary"}) + b"\x92",
    "newobj of a function": b"ccollections\nOrderedDict\n)\x81",
    "a call of what a call gave": ORDERED + b")R",
    "a call of a text": text("os.system") + TOUCHES + b"R",
    "a call of a stub": STUB + TOUCHES + b"R",
    "a call with no tuple": COUNTER + part([1]) + b"R",
    "a call with too much": b"ccollections\nOrderedDict\n" + part(([("a", 1)],)) + b"R",
    "an attribute of an attribute": b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n" + b"tR",
    "a dotted name": b"ctorch\nserialization.os.system\n" + TOUCHES + b"R",
    "a name of a name": b"ccollections\nOrderedDict.__init__.__globals__\n",
    "a name without a module": b"c\nsystem\n" + TOUCHES + b"R",
    "a name in other letters": "cos\nsystem\u200b\n".encode() + TOUCHES + b"R",
    "a long name": b"c" + b"o" * 100_000 + b"\nsystem\n)R",
    "a name with breaks": b"cos\r\x1b[31m\nsystem\n)R",
    "a name that is left over": SYSTEM,
    "a known name that is left over": b"ctorch\nFloatStorage\n",
    "an extension": b"\x82\x01)R",
    "a wide extension": b"\x84\x01\x00\x00\x00)R",
    "a persistent text": b"Pos.system\n",
    "a persistent name": text("os.system") + b"Q",
    "a persistent call": b"(" + text("storage") + SYSTEM + part(("0", "cpu", 1))[:-1] + b"Q",
    "a storage of a module": part(("module", "os", "system", "x", 1)) + b"Q",
    "a bytearray": b"\x96" + struct.pack("<Q", 1 << 40),
    "a buffer": b"\x97\x98",
    "a frame": b"\x95" + struct.pack("<Q", 1 << 40),
    "a frozen set": b"(K\x01\x91",
    "a set": b"\x8f(K\x01\x90",
    "a long number": b"\x8b" + struct.pack("<I", 0x7FFFFFFF),
    "a number in letters": b"L" + b"9" * 100_000 + b"L\n",
    "a text in quotes": b"S'os.system'\n",
    "a text of 8 bytes length": b"\x8d" + struct.pack("<Q", 1 << 60),
    "bytes of 8 bytes length": b"\x8e" + struct.pack("<Q", 1 << 60),
    "a text longer than the file": b"X\xff\xff\xff\xff",
    "a text that is none": b"X\x01\x00\x00\x00\xff",
    "twice the same": b"K\x012",
    "nothing to take": b"0" * 50,
    "too many tuples": b"\x87" * 50,
    "what was never remembered": b"h\xc8",
    "an end in the middle": b"N.N",
    "attributes of a class": b"ctorch\nFloatStorage\n" + part({"__init__": 1}) + b"b",
    "attributes of a list": b"]" + part({"append": 1}) + b"b",
    "attributes of a text": text("x") + part({"lower": 1}) + b"b",
    "methods of a mapping": ORDERED + part({"items": 1}) + b"b",
    "attributes that are none": STUB + part(5) + b"b",
    "an item of a text": text("x") + part(1) + part(2) + b"s",
    "an item of a counter": COUNTER + part(({},)) + b"R" + part(1) + part([2]) + b"s",
    "half an item": b"}(K\x01u",
    "appended to a mapping": b"}K\x01a",
    "appended to a class": b"ctorch\nFloatStorage\nK\x01a",
    "a list for a key": b"}]K\x01s",
    "a mapping for a key": b"}}K\x01s",
    "a class for a key": b"}ctorch\nFloatStorage\nK\x01s",
    "a counter of texts": COUNTER + part(("abc",)) + b"R",
    "a counter of huge counts": COUNTER + part(({"a": "b"},)) + b"R",
    "bytes in another encoding": b"c_codecs\nencode\n" + part(("x", "rot13")) + b"R",
    "bytes of no text": b"c_codecs\nencode\n" + part((5, "latin1")) + b"R",
    "a path of numbers": b"cpathlib\nPosixPath\n" + part((5,)) + b"R",
    "a logger of two names": b"clogging\ngetLogger\n" + part(("a", "b")) + b"R",
    "a layout of another kind": b"ctorch.serialization\n_get_layout\n" + part(("os",)) + b"R",
    "a protocol of another time": b"\x80\x05N",
}


def calls(path: str, arguments: tuple[Any, ...]) -> bytes:
    """A call in a pickle."""
    module, _, name = path.partition(":")
    return f"c{module}\n{name}\n".encode() + part(arguments) + b"R"


CORPUS: dict[str, bytes] = {
    path: calls(path, arguments) for arguments, paths in CALLS.items() for path in paths.split()
} | FORMS


def ours(harm: bytes) -> bytes:
    """A pickle that looks like one of ours."""
    return (
        b"\x80\x02}("
        + text("MODEL") + part({"MODEL_CONFIG": {}, "MODEL_STATE": {}})
        + text("TRAIN_INFO") + part({"EPOCHS_RUN": 0, "BEST_LOSS": 0.5})[:-1]
        + text("OPTIMIZER_STATE") + b"}" + text("SCHEDULER_STATE") + b"}" + text("x") + harm + b"su"
        + text("GLOBAL_CONFIG") + part({"epochs": 2})
        + text("LIGHTNING") + part({"format": 1, "next_epoch": 1, "next_batch": 0,
                                    "other_state": {}, "checkpoint": {"loops": {}}})
        + b"u."
    )  # fmt: skip


def theirs(harm: bytes) -> bytes:
    """A pickle that looks like one of LIS2's."""
    logger = calls("logging:getLogger", ("lis2",))
    return (
        b"\x80\x02}("
        + text("MODEL") + part({"MODEL_CONFIG": {}, "MODEL_STATE": {}})
        + text("TRAIN_INFO") + part({"EPOCHS_RUN": 0, "BEST_LOSS": 0.5})[:-1]
        + text("OPTIMIZER_STATE") + b"}" + text("SCHEDULER_STATE") + b"}("
        + text("logger") + logger + text("global_config") + STUB + b"}" + text("config")
        + harm + b"sb" + b"uu"
        + text("GLOBAL_CONFIG") + part({"epoch": 2})
        + b"u."
    )  # fmt: skip


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that is there only where something has run; a module on the path makes it, too."""
    path, code = tmp_path / "canary", tmp_path / "code"
    code.mkdir()
    (code / f"{EVIL}.py").write_text(TOUCH, encoding="utf-8")
    monkeypatch.syspath_prepend(str(code))
    monkeypatch.chdir(tmp_path)
    yield path
    assert not path.exists(), "something of the file has run"
    assert EVIL not in sys.modules


def test_the_corpus_is_large_enough() -> None:
    assert len(CORPUS) >= 60
    assert len(set(CORPUS.values())) == len(CORPUS)


@pytest.mark.parametrize(
    "name", ["os:system", "builtins:exec", "os:mkdir", "runpy:run_module", "stack global"]
)
def test_what_the_corpus_holds_would_run(name: str, canary: Path) -> None:
    pickle.loads(ours(CORPUS[name]))  # noqa: S301 - or the tests below could not fail
    assert canary.exists()
    canary.rmdir() if canary.is_dir() else canary.unlink()
    sys.modules.pop(EVIL, None)


def test_the_frames_of_the_corpus_are_read_where_they_hold_no_harm(
    archive: Callable[..., Any], tmp_path: Path
) -> None:
    harmless = part({"a": [1, (2.5, None)]})
    for frame in (ours, theirs):
        snapshot = read_snapshot(archive(frame(harmless)).write(tmp_path / "a.pt"))
        assert snapshot["GLOBAL_CONFIG"]


@pytest.mark.usefixtures("canary")
@pytest.mark.parametrize("frame", [ours, theirs])
@pytest.mark.parametrize("name", CORPUS)
def test_nothing_of_a_malicious_pickle_runs_and_it_is_refused(
    name: str, frame: Callable[[bytes], bytes], archive: Callable[..., Any], tmp_path: Path
) -> None:
    path = archive(frame(CORPUS[name])).write(tmp_path / "evil.pt")
    with suppress(SnapshotError):
        peek(path)  # what only torch would stumble over is no harm here
    with pytest.raises(SnapshotError) as raised:
        read_snapshot(path)
    message = str(raised.value)
    assert message.startswith(f"{path} ")
    assert message.isprintable()
    assert len(message) < len(str(path)) + 250
    assert newest_snapshot(tmp_path) is None
