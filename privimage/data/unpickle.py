"""Reading pickles of plain arrays, lists, texts and numbers, without ever running what they ask for.

CIFAR and Downsampled ImageNet are published as pickles, and a pickle is a program: Python's own unpickler imports and
calls whatever it names. Nothing of that unpickler is used here. A small machine of our own knows the instructions that
such files need and refuses every other one. The few functions that pickled numpy arrays call are known by name only:
what stands in for them checks the type, the shape and the length, and takes the bytes as they are. No instruction can
import, call or set anything else, and the number of steps and of bytes is bounded.
"""

from __future__ import annotations

import codecs
import math
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from privimage.data.forward import Capped
from privimage.data.messages import reason
from privimage.errors import UserError

MAX_STEPS = 2_000_000  # a batch of 128,117 images takes some 130,000
MAX_DIMENSIONS = 8
NUMERIC = re.compile(r"[|<>=]?(\?|b1|[iu][1248]|f[248])")  # booleans, integers, floats: never objects
TEXTS = {"BINSTRING": 4, "SHORT_BINSTRING": 1, "STRING": None}  # Python 2's -> bytes that hold the length, if any do
SHORT = 255  # characters of a text that is surely no content
MARK = object()
CORES = ("numpy.core", "numpy._core")
FUNCTIONS = {
    **{(f"{core}.multiarray", "_reconstruct"): "reconstruct" for core in CORES},
    **{(f"{core}.multiarray", "scalar"): "scalar" for core in CORES},
    **{(f"{core}.numeric", "_frombuffer"): "frombuffer" for core in CORES},
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    ("__builtin__", "bytes"): "no bytes",  # how the older protocols write an empty text of bytes
}


class Refused(Exception):
    """The pickle asks for what no batch of images needs."""


@dataclass(frozen=True)
class Function:
    """A name from `FUNCTIONS`; it is never imported."""

    name: str


@dataclass
class Type:
    """Stands for a numpy dtype."""

    dtype: np.dtype


@dataclass
class Array:
    """Stands for an array while it is put together."""

    value: np.ndarray | None = None


def load(file: BinaryIO, name: str, max_bytes: int) -> dict[str, Any]:
    """The pickled dict, its keys as texts; its values are arrays, lists, numbers, texts or bytes.

    A text of Python 2 is a str up to 255 characters, and bytes beyond. ``name`` is what an error calls the file.

    Raises:
        UserError: if the file is damaged, longer than ``max_bytes``, or asks for anything else.
    """
    try:
        found = Machine(Capped(file, max_bytes), max_bytes).run()
        if not isinstance(found, dict):
            raise Refused(f"it holds a {type(found).__name__}, not a dict")
        return {key: _value(value) for key, value in found.items()}
    except Exception as error:  # MemoryError and RecursionError too: whatever it is, the file is not a batch
        raise UserError(
            f"{name} is not a pickle of plain arrays and lists ({reason(error)}); expected a published batch, fetch "
            "it anew."
        ) from error


def _value(value: Any) -> Any:
    if isinstance(value, (Type, Function)) or isinstance(value, Array) and value.value is None:
        raise Refused("a type or an unfilled array where content was expected")
    return value.value if isinstance(value, Array) else value


class Machine:
    """A stack, a memory and the instructions of plain data."""

    def __init__(self, file: Capped, max_bytes: int) -> None:
        self.file, self.left = file, max_bytes  # bytes that may yet be copied
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def run(self) -> Any:
        """What the pickle describes.

        Raises:
            Refused: if it asks for anything but plain data.
        """
        for _ in range(MAX_STEPS):
            name, argument = self._instruction()
            if name == "STOP":
                return self.stack.pop()
            if name in VALUES:
                self.stack.append(_small(argument))
            elif name in ACTIONS:
                ACTIONS[name](self, argument)
            else:
                raise Refused(f"the instruction {name}")
        raise Refused(f"more than {MAX_STEPS} instructions")

    def _instruction(self) -> tuple[str, Any]:
        code = self.file.read(1)
        if not code:
            raise Refused("it ends too early")
        known = pickletools.code2op.get(code.decode("latin1"))
        if known is None:
            raise Refused(f"the byte {code.hex()} where an instruction was expected")
        if known.name in TEXTS:
            return known.name, self._text(TEXTS[known.name])
        return known.name, known.arg.reader(self.file) if known.arg else None

    def _text(self, width: int | None) -> str | bytes:
        """A text of Python 2, which may be content: pickletools would decode it, at the cost of a second copy."""
        if width is None:
            content = codecs.escape_decode(pickletools.read_stringnl(self.file, decode=False))[0]
        else:
            length = int.from_bytes(self.file.read(width), "little")
            content = self.file.read(length)
            if len(content) < length:
                raise Refused("it ends too early")
        return content.decode("latin1") if len(content) <= SHORT else content

    def since_mark(self) -> list[Any]:
        """Take everything above the last mark."""
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is MARK:
                items = self.stack[place + 1 :]
                del self.stack[place:]
                return items
        raise Refused("a list without a beginning")

    def top(self, count: int) -> tuple[Any, ...]:
        """Take the last ``count`` values."""
        if len(self.stack) < count or any(value is MARK for value in self.stack[-count:]):
            raise Refused("values that are not there")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        return items

    def call(self) -> None:
        """The instruction REDUCE: one of the functions that stand in for numpy's."""
        function, arguments = self.top(2)
        if not isinstance(function, Function) or not isinstance(arguments, tuple):
            raise Refused("a call of something that is no function")
        self.stack.append(self._called(function.name, arguments))

    def _called(self, function: str, arguments: tuple[Any, ...]) -> Any:
        match function, arguments:
            case "reconstruct", (Function("ndarray"), (0,), "b" | b"b"):
                return Array()
            case "dtype", (str() as code, *_) if NUMERIC.fullmatch(code):
                return Type(np.dtype(code))
            case "encode", (str() as text, "latin1" | "latin-1"):
                return self._encoded(text)
            case "no bytes", ():
                return b""
            case "frombuffer", (bytes() | bytearray() as content, Type(dtype), tuple() as shape, "C" | "F" as order):
                return Array(_array(content, dtype, shape, order == "F"))
            case "scalar", (Type(dtype), bytes() | str() as content):
                return _array(self._encoded(content), dtype, (1,), False).item()
        raise Refused(f"{function} with arguments that no array of numbers needs")

    def _encoded(self, text: str | bytes) -> bytes:
        if isinstance(text, bytes):
            return text
        self.left -= len(text)
        if self.left < 0:
            raise Refused("more bytes than the file may hold")
        return text.encode("latin1")

    def build(self) -> None:
        """The instruction BUILD: the content of an array, or the byte order of a type."""
        target, state = self.top(2)
        self.stack.append(target)
        match target, state:
            case Array(None), (int(), tuple() as shape, Type(dtype), bool() | 0 | 1 as columns, bytes() | str() as raw):
                target.value = _array(self._encoded(raw), dtype, shape, bool(columns))
            case Type(dtype), (int(), "<" | ">" | "|" | "=" as order, None, None, None, *_):
                target.dtype = dtype.newbyteorder(order)
            case _:
                raise Refused("the state of something that is no array of numbers")

    def remember(self, place: int | None) -> None:
        """The instructions that put the last value into the memory."""
        (value,) = self.top(1)
        self.stack.append(value)
        self.memory[len(self.memory) if place is None else place] = value

    def recall(self, place: int) -> None:
        """The instructions that take a value from the memory."""
        if place not in self.memory:
            raise Refused("a value that was never stored")
        self.stack.append(self.memory[place])

    def name(self, module: Any, name: Any) -> None:
        """The instructions that import: here they only look into a table."""
        found = FUNCTIONS.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if found is None:
            raise Refused(f"{module}.{name} is asked for" if isinstance(module, str) else "a name that is no text")
        self.stack.append(Function(found))

    def extend(self, items: list[Any] | tuple[Any, ...]) -> None:
        """The instructions that lengthen a list."""
        (target,) = self.top(1)
        if type(target) is not list:
            raise Refused("an item for something that is no list")
        target.extend(items)
        self.stack.append(target)

    def dictionary(self) -> None:
        """The instruction that makes a dict of what follows the last mark."""
        items = self.since_mark()
        self.stack.append({})
        self.update(items)

    def update(self, items: list[Any] | tuple[Any, ...]) -> None:
        """The instructions that fill a dict."""
        (target,) = self.top(1)
        if type(target) is not dict or len(items) % 2:
            raise Refused("a key for something that is no dict")
        target.update((_key(key), value) for key, value in zip(items[::2], items[1::2]))
        self.stack.append(target)


def _small(value: Any) -> Any:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise Refused("a number of more than 64 bits")
    return bytes(value) if isinstance(value, bytearray) else value


def _key(key: Any) -> str:
    if isinstance(key, bytes):
        return key.decode("latin1")
    if not isinstance(key, str):
        raise Refused("a key that is no text")
    return key


def _array(content: bytes | bytearray, dtype: np.dtype, shape: tuple[Any, ...], by_column: bool) -> np.ndarray:
    if len(shape) > MAX_DIMENSIONS or not all(type(length) is int and length >= 0 for length in shape):
        raise Refused("an array of impossible shape")
    if math.prod(shape) * dtype.itemsize != len(content):
        raise Refused(f"an array of shape {list(shape)} and type {dtype} in {len(content)} bytes")
    if not content:
        return np.zeros(shape, dtype)
    return np.frombuffer(content, dtype).reshape(shape, order="F" if by_column else "C")


VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
ACTIONS: dict[str, Callable[[Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), Machine.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine.recall),
    "MARK": lambda machine, _: machine.stack.append(MARK),
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "LIST": lambda machine, _: machine.stack.append(machine.since_mark()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.stack.append(machine.top(1)),
    "TUPLE2": lambda machine, _: machine.stack.append(machine.top(2)),
    "TUPLE3": lambda machine, _: machine.stack.append(machine.top(3)),
    "DICT": lambda machine, _: machine.dictionary(),
    "APPEND": lambda machine, _: machine.extend(machine.top(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.update(machine.top(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.since_mark()),
    "GLOBAL": lambda machine, argument: machine.name(*argument.split(" ", 1)),  # pickletools joins the two lines
    "STACK_GLOBAL": lambda machine, _: machine.name(*machine.top(2)),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}
