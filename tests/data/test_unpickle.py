"""Pickles of plain arrays are read as numpy reads them; a pickle that asks for anything else runs nothing."""

import builtins
import contextlib
import io
import os
import pickle  # noqa: TID251 - to write what must be refused
import struct
import subprocess
import tracemalloc

import numpy as np
import pytest

from privimage.data import unpickle
from privimage.errors import UserError

DATA = np.arange(24, dtype=np.uint8).reshape(4, 6)
BATCH = {
    "data": DATA,
    "labels": [3, 0, 255, -7, 70_000],
    "mean": np.linspace(0, 1, 6),
    "numbers": np.array([1, -(2**40)]),
    "big endian": np.array([1, 2, 300], ">i4"),
    "columns": np.asfortranarray(DATA),
    "wide": np.arange(2000, dtype=np.float32),
    "empty": np.zeros((0, 3), np.uint8),
    "batch_label": "training batch 1 of 5",
    "names": ["a.png", "ä.png"],
    "raw": b"\x00\xff",
    "count": 4,
    "ratio": 0.5,
    "none": None,
    "flags": (True, False),
}


def load(content, name="batch", limit=10_000_000):
    return unpickle.load(io.BytesIO(content), name, limit)


def same(got, wanted):
    if isinstance(wanted, np.ndarray):
        return isinstance(got, np.ndarray) and got.dtype == wanted.dtype and np.array_equal(got, wanted)
    return type(got) is type(wanted) and got == wanted


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_gives_what_was_pickled(protocol):
    got = load(pickle.dumps(BATCH, protocol))
    assert list(got) == list(BATCH)
    for key, wanted in BATCH.items():
        assert same(got[key], wanted), key


def python_2(protocol):
    """What cPickle of Python 2 writes for {'data': uint8 [4, 6], 'labels': [1, 2]}."""
    raw = DATA.tobytes()
    if protocol == 0:
        text = b"S" + repr(raw)[1:].encode() + b"\n"
        state = b"(I1\n(I4\nI6\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\n" + text + b"tb"
        array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR" + state
        return b"(dS'data'\n" + array + b"sS'labels'\n(lI1\naI2\nas."
    kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    content = b"T" + struct.pack("<I", len(raw)) + raw
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    state = b"(K\x01K\x04K\x06\x86" + kind + b"\x89" + content + b"tb"
    return b"\x80\x02}(U\x04data" + array + state + b"U\x06labels](K\x01K\x02eu."


@pytest.mark.parametrize("protocol", [0, 2])
def test_pickles_of_python_2_are_read_as_python_3_reads_them_in_latin1(protocol):
    content = python_2(protocol)
    trusted = pickle.loads(content, encoding="latin1")  # noqa: S301 - written above
    got = load(content)
    np.testing.assert_array_equal(trusted["data"], DATA)
    assert same(got["data"], DATA) and got["labels"] == trusted["labels"] == [1, 2]


def test_keys_that_are_bytes_become_texts_and_long_texts_of_python_2_stay_bytes():
    assert load(pickle.dumps({b"data": 1}, 3)) == {"data": 1}
    long = bytes(range(256)) * 2
    assert load(b"\x80\x02}U\x01aT" + struct.pack("<I", len(long)) + long + b"s.") == {"a": long}


def test_numbers_of_numpy_become_numbers():
    got = load(pickle.dumps({"labels": [np.int64(5), np.uint8(255)], "mean": np.float32(0.5)}, 4))
    assert got == {"labels": [5, 255], "mean": 0.5} and type(got["labels"][0]) is int


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def short(text):
    return b"\x8c" + bytes([len(text)]) + text


def hostile(sentinel):
    """Name -> pickle; those that Python's own unpickler would obey create the sentinel."""
    touch = f"touch {sentinel}"
    code = f"open({str(sentinel)!r}, 'w')"
    binary = touch.encode()
    command = b"X" + struct.pack("<I", len(binary)) + binary
    ndarray, dtype = np.ndarray, np.dtype
    rebuild = np.zeros(1).__reduce__()[0]
    scalar = np.int64(1).__reduce__()[0]
    frombuffer = np.zeros(1).__reduce_ex__(5)[0]
    array = Calls(rebuild, ndarray, (0,), b"b")
    calls = {
        "os.system": Calls(os.system, touch),
        "subprocess": Calls(subprocess.check_call, ["touch", str(sentinel)]),
        "eval": Calls(builtins.eval, code),
        "exec": Calls(builtins.exec, code),
        "open": Calls(open, str(sentinel), "w"),
        "import": Calls(builtins.__import__, "os"),
        "numpy.load": Calls(np.load, str(sentinel)),  # noqa: TID251
        "numpy.fromfile": Calls(np.fromfile, str(sentinel)),
        "numpy.memmap": Calls(np.memmap, str(sentinel), "uint8", "w+", 0, (4,)),
        "scalar of objects": Calls(scalar, dtype("O"), pickle.dumps(Calls(os.system, touch))),
        "array of objects": np.array([Calls(os.system, touch)], object),
        "objects by state": Calls(rebuild, ndarray, (0,), b"b", state=(1, (1,), dtype("O"), False, [touch])),
        "records": np.zeros(2, [("a", "u1"), ("b", "O")]),
        "too few bytes": Calls(rebuild, ndarray, (0,), b"b", state=(1, (10**6,), dtype("u1"), False, b"abc")),
        "too many bytes": Calls(rebuild, ndarray, (0,), b"b", state=(1, (2,), dtype("u1"), False, b"abc")),
        "negative lengths": Calls(rebuild, ndarray, (0,), b"b", state=(1, (-1, -3), dtype("u1"), False, b"abc")),
        "absurd shape": Calls(rebuild, ndarray, (0,), b"b", state=(1, (2**40, 2**40), dtype("u1"), False, b"")),
        "many dimensions": Calls(rebuild, ndarray, (0,), b"b", state=(1, (1,) * 100, dtype("u1"), False, b"a")),
        "large array at once": Calls(rebuild, ndarray, (2**40,), b"b"),
        "ndarray itself": Calls(ndarray, (2**36,), "u1"),
        "array of a subclass": Calls(rebuild, np.matrix, (0,), b"b"),
        "array without content": array,
        "buffer too short": Calls(frombuffer, b"abc", dtype("u1"), (10**9,), "C"),
        "dtype of a class": Calls(dtype, os._wrap_close),
        "dtype by a text of many": Calls(dtype, "u1,O"),
        "state of a function": Calls(rebuild, ndarray, (0,), b"b", state={"__class__": touch}),
        "another codec": Calls(__import__("_codecs").encode, "x" * 99, "zlib_codec"),
        "decode": Calls(__import__("_codecs").decode, b"x", "latin1"),
        "a set": {1, 2},
        "an instance": io.BytesIO(b"abc"),
    }
    system = b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR"
    crafted = {
        "getattr chain": system + b"(" + command + b"tR.",
        "INST": b"(S'" + binary + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + command + b"o.",
        "NEWOBJ": b"\x80\x02cos\n_wrap_close\n)\x81.",
        "NEWOBJ_EX": b"\x80\x04cos\n_wrap_close\n)}\x92.",
        "GLOBAL and REDUCE": b"cposix\nsystem\n(" + command + b"tR.",
        "dotted name": b"\x80\x04" + short(b"numpy") + short(b"ndarray.__class__") + b"\x93" + b".",
        "dotted function": b"\x80\x04" + short(b"builtins") + short(b"eval.__call__") + b"\x93(" + command + b"tR.",
        "dotted module": b"\x80\x04" + short(b"_codecs.encode") + short(b"__self__") + b"\x93.",
        "STACK_GLOBAL of numbers": b"\x80\x04K\x01K\x02\x93.",
        "copyreg extension": b"\x80\x02\x82\x01.",
        "copyreg extension of 4 bytes": b"\x80\x02\x84\xff\xff\x00\x00.",
        "persistent id": b"Pabc\n.",
        "binary persistent id": b"K\x01Q.",
        "buffer from outside": b"\x80\x05\x97.",
        "read-only buffer": b"\x80\x05B\x03\x00\x00\x00abc\x98.",
        "BUILD of a dict": b"}(S'__setstate__'\nI1\nud}b.",
        "BUILD of a function": b"cnumpy\nndarray\n}b.",
        "REDUCE of a text": b"S'os.system'\n(" + command + b"tR.",
        "empty": b"",
        "truncated": pickle.dumps(BATCH, 4)[:-60],
        "no STOP": pickle.dumps(BATCH, 4)[:-1],
        "not a pickle": b"\x89PNG\r\n\x1a\n",
        "a list": pickle.dumps([1]),
        "stack is empty": b".",
        "no mark": b"K\x01t.",
        "mark as a value": b"}(K\x01s.",
        "memory that was never written": b"h\x05.",
        "far memory": b"K\x01r\xff\xff\xff\x7f.",
        "text of 4 GB": b"X\xff\xff\xff\xffabc.",
        "bytes of 2**62": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
        "bytearray of 2**62": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"abc.",
        "long text of Python 2": b"T\xff\xff\xff\x7fabc.",
        "frame of 2**62": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"}",
        "wide number": b"}U\x01a\x8b" + struct.pack("<I", 100) + b"\x7f" * 100 + b"s.",
        "number of many digits": b"}U\x01aL" + b"9" * 10_000 + b"L\ns.",
        "not UTF-8": b"X\x02\x00\x00\x00\xff\xfe.",
        "key that is a list": b"}]K\x01s.",
        "key of nested pairs": b"}" + b")" + b"q\x00h\x00\x86" * 80 + b"K\x01s.",
        "deep lists": b"]" * 20_000 + b"a" * 19_999 + b".",
        "one text copied often": b"cnumpy.core.multiarray\nscalar\n0X" + struct.pack("<I", 10**6) + b"x" * 10**6
        + b"q\x00]" + b"c_codecs\nencode\nh\x00U\x06latin1\x86Ra" * 1000 + b".",
    }  # fmt: skip
    pickled = {name: pickle.dumps({"data": value}, 4) for name, value in calls.items()}
    return {
        **pickled,
        **{f"{name} in protocol 2": pickle.dumps({"data": v}, 2) for name, v in calls.items()},
        **crafted,
    }


NAMES = sorted(hostile("sentinel"))


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_pickle_runs_nothing_and_is_refused_in_one_sentence(tmp_path, name):
    sentinel = tmp_path / "sentinel"
    content = hostile(sentinel)[name]
    tracemalloc.start()
    with pytest.raises(UserError, match=r"^batch is not a pickle of plain arrays and lists \(.+\); expected") as caught:
        load(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not sentinel.exists()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert peak < 60_000_000


def test_pythons_own_unpickler_would_have_obeyed(tmp_path):
    """The hostile pickles are real ones."""
    for name in ("os.system", "subprocess", "eval", "open", "getattr chain", "INST", "OBJ", "GLOBAL and REDUCE"):
        sentinel = tmp_path / name.replace(" ", "_").replace(".", "_")
        pickle.loads(hostile(sentinel)[name])  # noqa: S301 - this is the point
        assert sentinel.exists(), name


def test_a_file_that_is_longer_than_it_may_be_is_refused():
    content = pickle.dumps({"data": bytes(1000)}, 4)
    assert load(content, limit=len(content))["data"] == bytes(1000)
    with pytest.raises(UserError, match="unpacks to more than it may"):
        load(content, limit=len(content) - 100)


def test_the_number_of_instructions_is_bounded(monkeypatch):
    monkeypatch.setattr(unpickle, "MAX_STEPS", 1000)
    assert load(b"}U\x01a]" + b"K\x01a" * 400 + b"s.") == {"a": [1] * 400}
    with pytest.raises(UserError, match="more than 1000 instructions"):
        load(b"}U\x01a]" + b"K\x01a" * 500 + b"s.")


def test_any_damaged_byte_gives_a_dict_or_one_refusal():
    whole = pickle.dumps({"data": DATA, "labels": [1, 2], "mean": 0.5}, 2)
    generator = np.random.default_rng(0)
    for _ in range(3000):
        damaged = bytearray(whole)
        for place in generator.integers(0, len(whole), generator.integers(1, 4)):
            damaged[place] = generator.integers(256)
        with contextlib.suppress(UserError):
            assert isinstance(load(bytes(damaged)), dict)
