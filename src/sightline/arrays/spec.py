"""The form of an array, and a look at memory that somebody else owns: the two plain records of this room."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Spec(NamedTuple):
    """An array's form without its memory: hashable, so it can key plans and compiled kernels."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In bytes, one per dimension; zero and negative strides are allowed."""
    dtype: str
    """NumPy's name for the type: "float32", "bfloat16", "bool", "int64", …"""


class View(NamedTuple):
    """Memory that somebody else owns, seen without copying it."""

    spec: Spec
    address: int
    """Of the element at index 0 in every dimension: with negative strides that is not the lowest one."""
    writable: bool
    owner: object
    """Whatever keeps the memory alive: hold it for as long as the address is in use."""


class Workers(NamedTuple):
    """The threads that a framework computes with, whose arrays' calls are to run on them too."""

    number: Callable[[], int]
    """how many, for whoever asks"""
    library: str
    """a shared library of the framework's, loaded already: the one that calls the threads' runtime"""


class NoSignatureError(TypeError):
    """The object has no cheap signature: `settle` it first, and use what that returns in its place."""


class FollowedError(TypeError):
    """A framework follows the array (autograd, tracing): a call with it is for that framework's own door."""

    def __init__(self, message: str, framework: str) -> None:
        super().__init__(message)
        self.framework = framework
