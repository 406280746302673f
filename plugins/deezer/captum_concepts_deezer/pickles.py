"""Read the numpy files that hold pickled objects, without unpickling them.

The paper published its CAVs and its playlists as ``np.save`` of Python objects, which is a pickle in a ``.npy`` file.
Unpickling runs whatever code the file asks for, so this module does not: it interprets the pickle's opcodes itself and
knows only those that build plain containers and numpy arrays. Everything a file might call is a name to compare, never
an object to call.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

MAX_BYTES = 512 * 2**20
DTYPE_KINDS = "?biufSU"
MAX_TEXT_ITEM = 1 << 16  # bytes in one item of a numpy text array

_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
GLOBALS: dict[str, str] = {
    **{f"{module}._reconstruct": "reconstruct" for module in _ARRAYS},
    **{f"{module}.scalar": "scalar" for module in _ARRAYS},
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
}
_HEADER = re.compile(rb"\{'descr': '([^']*)', 'fortran_order': (?:True|False), 'shape': \([0-9, ]*\), \}\s*")
_KEYS = (str, int, float, bytes, bool, np.generic, type(None))
_MARK = object()


class _Global:
    """A name the pickle imports; stands for nothing that could be called."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Unbuilt:
    """An array or dtype whose contents have not come yet; ``value`` once they have."""

    def __init__(self, kind: str, code: str = "") -> None:
        self.kind, self.code = kind, code
        self.value: Any = None


def read_object_npy(path: str | PathLike[str], max_bytes: int = MAX_BYTES) -> np.ndarray:
    """The object array in a ``.npy`` file, e.g. from ``np.save(path, {...})``; no code in the file is run.

    Args:
        path: the file; numpy 1.x and 2.x names are known.
        max_bytes: largest file read.

    Returns:
        The object array, in which there are only dict, list, tuple, str, int, float, bool, None, bytes, numpy
        arrays (read-only where they hold numbers) and numpy scalars. A pickled dict is a 0-d array of it.

    Raises:
        InputError: no such file, too large, not a ``.npy`` file of objects, damaged, or it asks for anything beyond
            arrays and plain containers; the message names what.
    """
    where = short_repr(str(path), 200)
    try:
        size = Path(path).stat().st_size
        if size > max_bytes:
            raise InputError(f"{where}: {size} bytes; at most {max_bytes} are read")
        with open(path, "rb") as file:
            _check_header(file, where)
            content = file.read(max_bytes)
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror or error}); check the path") from None
    value = _Interpreter(content, where).run()
    if not isinstance(value, np.ndarray):
        raise InputError(f"{where}: holds {type(value).__name__}, not a numpy array; it was not written by numpy.save")
    return value


def _check_header(file: BinaryIO, where: str) -> None:
    start = file.read(10)
    # numpy's own header parser is made for friendly files: it fails in many ways on a damaged one.
    if start[:6] == b"\x93NUMPY" and start[6:8] == b"\x01\x00":
        match = _HEADER.fullmatch(file.read(int.from_bytes(start[8:10], "little")))
        if match and match[1] == b"|O":
            return
        if match:
            raise InputError(
                f"{where}: a .npy file of {short_repr(match[1].decode('latin-1'))}, not of objects; check the file"
            )
    raise InputError(f"{where}: not a .npy file, or a damaged one; download it again")


class _Interpreter:
    """One pass over the opcodes of a pickle (protocols 0 to 5), with a stack and a memo of its own."""

    def __init__(self, content: bytes, where: str) -> None:
        self.content, self.where = content, where
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.unbuilt: set[_Unbuilt] = set()
        # Cells of object arrays cost memory without costing the file any, as one list can fill many arrays.
        self.cells_left = len(content)

    def run(self) -> Any:
        try:
            for opcode, argument, position in pickletools.genops(self.content):
                if opcode.name == "STOP":
                    break
                self.step(opcode.name, argument, position)
            if len(self.stack) != 1 or self.unbuilt:
                raise self.refusal("it is incomplete")
            return self.checked(self.stack[0])
        except InputError:
            raise
        except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, MemoryError) as error:
            reason = " ".join(str(error).split())[:80]
            raise self.refusal(f"it is damaged ({type(error).__name__}: {reason})") from None

    def refusal(self, why: str) -> InputError:
        return InputError(
            f"{self.where}: refused to read the pickle in it: {why}; only numpy arrays and plain containers are read"
        )

    def step(self, name: str, argument: Any, position: int | None) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _HANDLERS:
            _HANDLERS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            text = f" {short_repr(str(argument).replace(' ', '.'))}" if argument is not None else ""
            raise self.refusal(f"it uses {name}{text} at byte {position}")

    def checked(self, value: Any) -> Any:
        """``value``, if it may stand inside a container."""
        if value is _MARK or isinstance(value, (_Global, _Unbuilt)):
            raise self.refusal(f"a {value.name if isinstance(value, _Global) else 'half-built object'} is used as data")
        return value

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("unexpected mark")
        return value

    def pop_many(self, count: int) -> list[Any]:
        return [self.pop() for _ in range(count)][::-1]

    def pop_to_mark(self) -> list[Any]:
        position = len(self.stack) - 1
        while self.stack[position] is not _MARK:
            position -= 1
            if position < 0:
                raise ValueError("no mark")
        values = self.stack[position + 1 :]
        del self.stack[position:]
        return values

    def top(self, kind: type) -> Any:
        value = self.stack[-1]
        if type(value) is not kind:
            raise ValueError(f"a {kind.__name__} was expected")
        return value

    # What the opcodes do --------------------------------------------------------------------------------------

    def put(self, index: int | None = None) -> None:
        self.memo[len(self.memo) if index is None else int(index)] = self.stack[-1]

    def get(self, index: int) -> None:
        value = self.memo[int(index)]
        if isinstance(value, _Unbuilt):
            if value in self.unbuilt:
                raise self.refusal("an array contains itself")
            value = value.value
        self.stack.append(value)

    def append(self, values: list[Any]) -> None:
        self.top(list).extend(map(self.checked, values))

    def set_items(self, values: list[Any]) -> None:
        target = self.top(dict)
        if len(values) % 2:
            raise ValueError("a key without a value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, _KEYS):  # hashing a nested tuple can take for ever
                raise self.refusal(f"a {type(key).__name__} is used as a key")
            target[key] = self.checked(value)

    def new(self, container: list[Any] | dict[Any, Any], values: list[Any]) -> None:
        self.stack.append(container)
        if isinstance(container, list):
            self.append(values)
        else:
            self.set_items(values)

    def add_global(self, name: str) -> None:
        if name not in GLOBALS:
            raise self.refusal(f"it asks for {short_repr(name)}")
        self.stack.append(_Global(name))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise ValueError("a name was expected")
        self.add_global(f"{module}.{name}")

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Global) or type(arguments) is not tuple:
            raise self.refusal("it calls something that is not a numpy constructor")
        kind = GLOBALS[function.name]
        if kind == "reconstruct":
            if len(arguments) != 3 or not isinstance(arguments[0], _Global) or GLOBALS[arguments[0].name] != "ndarray":
                raise self.refusal("it makes an array of another class than numpy.ndarray")
            self.begin(_Unbuilt("array"))
        elif kind == "dtype":
            self.begin(_Unbuilt("dtype", _dtype_code(arguments)))
        elif kind == "scalar" and len(arguments) == 2:
            dtype, data = arguments
            if not isinstance(dtype, np.dtype) or dtype.hasobject or type(data) is not bytes:
                raise self.refusal("a numpy scalar holds an object")
            self.stack.append(_numbers(data, dtype, 1)[0])
        else:
            raise self.refusal(f"it calls {short_repr(function.name)}")

    def begin(self, placeholder: _Unbuilt) -> None:
        self.unbuilt.add(placeholder)
        self.stack.append(placeholder)

    def build(self) -> None:
        state, target = self.pop(), self.pop()
        if not isinstance(target, _Unbuilt) or target not in self.unbuilt or type(state) is not tuple:
            raise self.refusal("it sets the state of something that is not a new numpy array")
        target.value = _finished_dtype(target.code, state) if target.kind == "dtype" else self.finished_array(state)
        self.unbuilt.discard(target)
        self.stack.append(target.value)

    def finished_array(self, state: tuple[Any, ...]) -> np.ndarray:
        _, shape, dtype, fortran, data = state
        if type(shape) is not tuple or any(type(n) is not int or n < 0 for n in shape) or len(shape) > 32:
            raise self.refusal(f"an array has the shape {short_repr(shape)}")
        if not isinstance(dtype, np.dtype) or type(fortran) is not bool:
            raise self.refusal("an array has no numpy dtype")
        count = math.prod(shape)
        if dtype.hasobject:
            if type(data) is not list or len(data) != count or count > self.cells_left:
                raise self.refusal(f"an object array of shape {short_repr(shape)} has not as many items")
            self.cells_left -= count
            flat = np.empty(count, object)
            for cell, item in enumerate(data):
                flat[cell] = item
        else:
            if type(data) is not bytes:
                raise self.refusal("an array of numbers has no bytes")
            flat = _numbers(data, dtype, count)
        return flat.reshape(shape, order="F" if fortran else "C")


def _numbers(data: bytes, dtype: np.dtype[Any], count: int) -> np.ndarray:
    if len(data) != count * dtype.itemsize:
        raise ValueError(f"{len(data)} bytes where {count * dtype.itemsize} belong")
    values = np.frombuffer(data, dtype)
    if dtype.kind == "U":
        values.tolist()  # numpy notices code points that do not exist only now
    return values


def _dtype_code(arguments: tuple[Any, ...]) -> str:
    code = arguments[0] if arguments else None
    if type(code) is str and (code in ("O", "O8") or (code[:1] in DTYPE_KINDS and code[1:].isascii())):
        digits = code[1:] or "1"
        if digits.isdigit() and (code[0] == "O" or 0 < int(digits[:9]) <= MAX_TEXT_ITEM):
            return code
    raise InputError(f"dtype {short_repr(code)} in a pickle: only numbers, text and objects are read")


def _finished_dtype(code: str, state: tuple[Any, ...]) -> np.dtype[Any]:
    """``dtype.__setstate__``'s (version, byte order, subarray, names, fields, item size, alignment, flags)."""
    order, compound = state[1], state[2:5]
    if order not in ("<", ">", "|", "=") or any(part is not None for part in compound):
        raise ValueError("a dtype with fields")
    finished: np.dtype[Any] = np.dtype(code).newbyteorder("=" if order == "|" else order)
    return finished


_LITERALS = frozenset(
    [
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
    ]
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}


_HANDLERS: dict[str, Callable[[_Interpreter, Any], None]] = {
    "PUT": _Interpreter.put,
    "BINPUT": _Interpreter.put,
    "LONG_BINPUT": _Interpreter.put,
    "MEMOIZE": _Interpreter.put,
    "GET": _Interpreter.get,
    "BINGET": _Interpreter.get,
    "LONG_BINGET": _Interpreter.get,
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.stack.append(tuple(machine.pop_many(1))),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(machine.pop_many(2))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(machine.pop_many(3))),
    "LIST": lambda machine, _: machine.new([], machine.pop_to_mark()),
    "APPEND": lambda machine, _: machine.append(machine.pop_many(1)),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "DICT": lambda machine, _: machine.new({}, machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop_many(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "GLOBAL": lambda machine, name: machine.add_global(name.replace(" ", ".", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.stack_global(),
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
}
