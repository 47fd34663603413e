"""All of the package's secret randomness: which images enter a step, and the noise that hides them.

A draw is a pure function of a secret key, a purpose, indices and a shape. The same arguments give the same draw, so
a step can be replayed after a crash and split over microbatches; any other argument gives an independent one, so no
noise is ever used twice. Nothing here depends on a seed that could be published, and no state can be lost.

Construction: a subkey is the BLAKE2b of the arguments under the secret key; the draw is the ChaCha20 key stream under
the subkey. To tell the stream from random bits is to break ChaCha20.

Not claimed: floating-point numbers are a finite set. A uniform is one of 2^52 odd multiples of 2^-53, a normal its
quantile, at most 8.21 in size; real Gaussian noise is larger than that with probability 2e-16.

Source: RFC 8439 (ChaCha20), RFC 7693 (BLAKE2).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms
from scipy.special import ndtri

from privimage.artifacts import sync_folder
from privimage.errors import UserError

KEY_BYTES, CHECKSUM_BYTES = 32, 8
Shape = int | tuple[int, ...]


@dataclass(frozen=True)
class SecretKey:
    """32 secret bytes, from which every private draw of one release follows. Never shown when printed."""

    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> SecretKey:
        """A fresh key from the operating system."""
        return cls(os.urandom(KEY_BYTES))

    @classmethod
    def from_seed(cls, seed: int) -> SecretKey:
        """A key that anyone can compute: for tests. Whatever is drawn from it is NOT PRIVATE."""
        return cls(hashlib.blake2b(f"not private {seed}".encode(), digest_size=KEY_BYTES).digest())

    @classmethod
    def load(cls, path: Path) -> SecretKey:
        """The key that ``save`` wrote.

        Raises:
            UserError: if the file is not what ``save`` wrote: 32 bytes and their checksum.
        """
        content = Path(path).read_bytes()
        secret = content[:KEY_BYTES]
        if content != secret + _checksum(secret):
            raise UserError(
                f"a key in {Path(path).parent.parent} is damaged ({len(content)} bytes). Delete its folder to draw "
                "anew, which is charged again."
            )
        return cls(secret)

    def save(self, path: Path) -> None:
        """The key is on the disk, whole, readable by its owner alone."""
        path = Path(path)
        temporary = path.with_name(f"{path.name}.new")
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "wb") as file:
            file.write(self.secret + _checksum(self.secret))
            file.flush()
            os.fsync(handle)
        temporary.replace(path)
        sync_folder(path.parent)

    @staticmethod
    def destroy(path: Path) -> None:
        """The key's file is overwritten and gone. A disk that copies on write may keep the old blocks for a while."""
        with open(path, "r+b") as file:
            file.write(bytes(KEY_BYTES + CHECKSUM_BYTES))
            file.flush()
            os.fsync(file.fileno())
        Path(path).unlink()
        sync_folder(Path(path).parent)

    @property
    def identity(self) -> str:
        """A name for the key from which the key cannot be found: 16 hexadecimal digits."""
        return self._stream("identity", "", (), (), 8).hex()

    def uniform(self, purpose: str, *indices: int, shape: Shape) -> np.ndarray:
        """Independent float64 uniforms on the open interval (0, 1)."""
        return self._unit_interval("uniform", purpose, indices, shape)

    def normal(self, purpose: str, *indices: int, shape: Shape) -> np.ndarray:
        """Independent float64 standard normals: the quantiles of uniforms."""
        return ndtri(self._unit_interval("normal", purpose, indices, shape))

    def seed(self, purpose: str, *indices: int) -> int:
        """An integer in [0, 2^63), for a generator that is not this one."""
        return int.from_bytes(self._stream("seed", purpose, indices, (), 8), "little") >> 1

    def stream(self, purpose: str, *indices: int, shape: Shape) -> Callable[[int], bytes]:
        """Random bytes without end, for the draws of an array of this shape: each call gives the next so many."""
        cipher = self._cipher("stream", purpose, indices, _sizes(shape))
        return lambda size: cipher.update(bytes(size))

    def _unit_interval(self, kind: str, purpose: str, indices: tuple[int, ...], shape: Shape) -> np.ndarray:
        sizes = _sizes(shape)
        stream = self._stream(kind, purpose, indices, sizes, 8 * int(np.prod(sizes, dtype=np.int64)))
        integers = np.frombuffer(stream, dtype="<u8") >> np.uint64(12)  # 52 bits, so that adding a half is exact
        return ((integers + 0.5) * 2.0**-52).reshape(sizes)

    def _stream(self, kind: str, purpose: str, indices: tuple[int, ...], sizes: tuple[int, ...], size: int) -> bytes:
        return self._cipher(kind, purpose, indices, sizes).update(bytes(size))

    def _cipher(self, kind: str, purpose: str, indices: tuple[int, ...], sizes: tuple[int, ...]) -> CipherContext:
        what = json.dumps([kind, purpose, [int(i) for i in indices], [int(n) for n in sizes]]).encode()
        subkey = hashlib.blake2b(what, key=self.secret, digest_size=KEY_BYTES, person=b"privimage").digest()
        cipher = Cipher(algorithms.ChaCha20(subkey, bytes(16)), mode=None)  # one stream a subkey: the nonce is free
        return cipher.encryptor()


def _sizes(shape: Shape) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _checksum(secret: bytes) -> bytes:
    return hashlib.blake2b(secret, digest_size=CHECKSUM_BYTES, person=b"privimage file").digest()
