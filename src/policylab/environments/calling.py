"""Calls from a compiled program to Python on the host, without the cost of JAX's own callbacks where the program runs on the CPU.

`jax.experimental.io_callback` puts every operand on a device again, which takes longer than a step of MuJoCo. On the CPU the operands
already lie in memory, so that a handler of XLA's foreign function interface (its C ABI, xla/ffi/api/c_api.h, version 0.3) can read and
write them in place. Elsewhere, and with a version of XLA that refuses the handler, calls go through `io_callback`.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jaxtyping import PyTree

_TARGET = "policylab_host_call"
_VERSION = (0, 3)
_METADATA = 1  # the type of the extension by which XLA asks for the version
_INTERNAL = 13  # code of an error

_MANY = 4096  # views that are kept


class _Struct(ctypes.Structure):
    """What every struct of the interface begins with."""

    _fields_ = (("size", ctypes.c_size_t), ("extension", ctypes.c_void_p))


class _Extension(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("type", ctypes.c_int), ("next", ctypes.c_void_p), ("metadata", ctypes.c_void_p))


class _Version(_Struct):
    _fields_ = (("major", ctypes.c_int), ("minor", ctypes.c_int))


class _Metadata(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("version", _Version), ("traits", ctypes.c_uint32))


class _Buffer(_Struct):
    _fields_ = (("dtype", ctypes.c_int), ("data", ctypes.c_void_p), ("rank", ctypes.c_int64), ("dims", ctypes.c_void_p))


class _Buffers(_Struct):
    _fields_ = (("count", ctypes.c_int64), ("types", ctypes.c_void_p), ("items", ctypes.c_void_p))


class _Frame(_Struct):
    _fields_ = (
        ("interface", ctypes.c_void_p), ("context", ctypes.c_void_p), ("stage", ctypes.c_int),
        ("operands", _Buffers), ("results", _Buffers),
    )  # fmt: skip


class _Interface(_Struct):
    _fields_ = (("version", _Version), ("internal", ctypes.c_void_p), ("create_error", ctypes.c_void_p))


class _NewError(_Struct):
    _fields_ = (("message", ctypes.c_char_p), ("code", ctypes.c_int))


class _View:
    """Reads or writes buffers of one shape and type in place."""

    def __init__(self, like: jax.ShapeDtypeStruct) -> None:
        self.shape, self.dtype = like.shape, like.dtype
        self.memory: Any = ctypes.c_char * (int(np.prod(like.shape)) * like.dtype.itemsize)
        self.known: dict[int, np.ndarray] = {}  # the buffers of a loop are the same ones, again and again

    def at(self, buffer: int) -> np.ndarray:
        """The array that lies where this buffer struct says."""
        address = ctypes.c_void_p.from_address(buffer + _Buffer.data.offset).value or 0
        found = self.known.get(address)
        if found is None:
            if len(self.known) >= _MANY:
                self.known.clear()
            memory = self.memory.from_address(address) if ctypes.sizeof(self.memory) else b""
            found = self.known[address] = np.frombuffer(memory, self.dtype).reshape(self.shape)
        return found


class _Call:
    """A function on the host with the operands and results of one program."""

    def __init__(self, function: Callable[..., Any], structure: Any, operands: tuple, results: tuple) -> None:
        self.function, self.structure = function, structure
        self.operands, self.results = tuple(map(_View, operands)), tuple(map(_View, results))
        self.given: Any = ctypes.c_void_p * (1 + len(operands))  # the number of the call goes first
        self.wanted: Any = ctypes.c_void_p * len(results)

    def run(self, frame: _Frame) -> None:
        """Call the function on the operands and put what it gives into the results."""
        given = self.given.from_address(frame.operands.items)
        values = [view.at(given[i]) for i, view in enumerate(self.operands, 1)]
        made = jax.tree.leaves(self.function(*jax.tree.unflatten(self.structure, values)))
        wanted = self.wanted.from_address(frame.results.items)
        for i, (view, value) in enumerate(zip(self.results, made, strict=True)):
            if np.shape(value) != view.shape:
                raise ValueError(f"result {i} of a call to the host has shape {np.shape(value)}, not {view.shape}")
            view.at(wanted[i])[...] = value


_CALLS: list[_Call] = []  # programs know them by number


@ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
def _handler(address: int) -> int | None:
    """XLA's call: an error, or None when the results stand in their buffers."""
    frame = _Frame.from_address(address)
    if frame.extension:
        extension = _Extension.from_address(frame.extension)
        if extension.type == _METADATA:
            metadata = _Metadata.from_address(extension.metadata)
            metadata.version.major, metadata.version.minor = _VERSION
            metadata.traits = 0
            return None
    try:
        first = ctypes.c_void_p.from_address(frame.operands.items).value or 0
        number = ctypes.c_void_p.from_address(first + _Buffer.data.offset).value or 0
        _CALLS[ctypes.c_int32.from_address(number).value].run(frame)
    except BaseException as error:  # of any kind: an exception must not pass through C
        interface = _Interface.from_address(frame.interface)
        create = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_NewError))(interface.create_error)
        new = _NewError(ctypes.sizeof(_NewError), None, f"{type(error).__name__}: {error}".encode(), _INTERNAL)
        return create(ctypes.byref(new))
    return None


@functools.cache
def _registered() -> bool:
    """Whether XLA takes the handler."""
    try:
        jax.ffi.register_ffi_target(_TARGET, jax.ffi.pycapsule(_handler), platform="cpu")
    except Exception:  # of any kind: another version of the interface
        return False
    return True


@functools.cache
def _number(function: Callable[..., Any], structure: Any, operands: tuple, results: tuple) -> int:
    _CALLS.append(_Call(function, structure, operands, results))
    return len(_CALLS) - 1


def call_host(function: Callable[..., PyTree], results: PyTree[jax.ShapeDtypeStruct], *values: PyTree) -> PyTree:
    """`function` of NumPy arrays, called once where the program comes to it; `results` are the shapes and types it gives.

    What the function is given is valid during the call only and must not be changed. What it raises ends the program. Calls that must
    follow one another have to depend on each other's results.
    """
    if jax.default_backend() != "cpu" or not _registered():
        return io_callback(lambda *given: function(*jax.tree.map(np.asarray, given)), results, *values, ordered=True)
    operands, structure = jax.tree.flatten(values)
    shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in operands)
    wanted, made = jax.tree.flatten(results)
    number = jnp.asarray(_number(function, structure, shapes, tuple(wanted)), jnp.int32)
    return jax.tree.unflatten(made, jax.ffi.ffi_call(_TARGET, wanted, has_side_effect=True)(number, *operands))


def forget_failure() -> None:
    """Make a call that succeeds: JAX keeps the last one, and would report its failure once more when the process ends."""
    jax.block_until_ready(jax.jit(lambda: call_host(_nothing, jax.ShapeDtypeStruct((), jnp.int32)))())


def _nothing() -> int:
    return 0
