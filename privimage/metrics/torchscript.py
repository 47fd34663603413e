"""A TorchScript file is a program: it is looked through before it is loaded, and loaded as what was looked through.

Loading runs whatever the file defines as ``__setstate__``; both that and the network itself may call operators that
write a tensor to any path, or map any file. So every text of the program is parsed first, and one that names such an
operator, or a library of operators that is not known to be harmless, is refused. What is then loaded is an archive
written anew, in memory, from exactly the members that were looked at: no second reader may see others in it.
"""

from __future__ import annotations

import ast
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

from privimage.errors import UserError

# Operators that reach beyond the network. Those with a path, torch says so of itself; the others call other machines.
NO_OPERATORS = {"save", "from_file", "rpc_sync", "rpc_async", "rpc_remote"}
LIBRARIES = {"aten", "prim", "quantized", "torchvision"}
OTHERS = ("ops", "__torch__.torch.classes", "torch.ops", "torch.classes")  # where else libraries stand
MAX_BYTES, MAX_PACKED = 4_000_000_000, 100_000_000  # of all members; of one that is compressed: only programs are


class Unsafe(Exception):
    """The program may do more than compute: why."""


def load(path: Path, device: torch.device) -> torch.jit.ScriptModule:
    """The network, in evaluation mode.

    Raises:
        UserError: if the file is no TorchScript, or its program may do more than compute.
    """
    try:
        return torch.jit.load(_checked(path), map_location=device).eval()  # noqa: TID251 - looked through
    except Unsafe as error:
        raise UserError(
            f"{path} is TorchScript that {error}; expected a network that computes and does nothing else."
        ) from None
    except (RuntimeError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not TorchScript ({type(error).__name__}); save it by torch.jit.save.") from error


def _checked(path: Path) -> io.BytesIO:
    """The archive with its members as they are, once its program was looked through."""
    buffer, seen = io.BytesIO(), set()
    with zipfile.ZipFile(path) as found, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as written:
        if sum(member.file_size for member in found.infolist()) > MAX_BYTES:
            raise Unsafe(f"holds more than {MAX_BYTES} bytes")
        for member in found.infolist():
            name = member.filename.lower()  # torch finds members whatever their case
            if name in seen or member.compress_type != zipfile.ZIP_STORED and member.file_size > MAX_PACKED:
                raise Unsafe("is packed otherwise than torch packs it")
            seen.add(name)
            content = found.read(member)
            if name.endswith(".py"):
                check_program(content)
            written.writestr(member.filename, content)
    buffer.seek(0)
    return buffer


def check_program(content: bytes) -> None:
    """Return if the program's text names nothing that reaches beyond the network.

    Raises:
        Unsafe: if it does, or cannot be read.
    """
    try:
        text = content.decode()  # before it is parsed: a text may ask Python, but not torch, for another encoding
        tree = ast.parse(text if text.replace("\n", "").isprintable() else "?")
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise Unsafe("holds a program that cannot be looked through") from None
    for name in _names(tree):
        if name in NO_OPERATORS:
            raise Unsafe(f"calls `{name}`")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr not in LIBRARIES and ast.unparse(node.value) in OTHERS:
            raise Unsafe(f"calls the library `{node.attr}`")
        if isinstance(node, ast.Call) and any(isinstance(a, ast.Name) and a.id in ("ops", "torch") for a in node.args):
            raise Unsafe("reaches operators by text")  # getattr(ops, ...)


def _names(tree: ast.AST) -> Iterator[str]:
    """Every name, attribute and text: `getattr` reaches attributes by text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
