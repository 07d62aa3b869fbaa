"""Named arrays in `.npz` and `.safetensors` files: never unpickled, written whole or not at all."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from sightline.cli.errors import CommandError, listed, reason

if TYPE_CHECKING:
    from collections.abc import Iterator

Array = NDArray[Any]
FORMATS = (".npz", ".safetensors")
BFLOAT16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)

# What safetensors calls the types that NumPy (with ml_dtypes) has. The format is little-endian.
_SAFETENSORS_TYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


class Archive(Protocol):
    """A file of named arrays."""

    path: Path
    names: list[str]

    def read(self, name: str) -> Array:
        """The array of this name, which `names` has."""
        ...


class Npz:
    """NumPy's zip of arrays, each read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not zipfile.is_zipfile(path):
            raise CommandError(f"{path} is not an .npz file (or its end is missing)")
        with _reading(str(path)), zipfile.ZipFile(path) as members:
            self._members = {name.removesuffix(".npy"): name for name in members.namelist()}
        self.names = list(self._members)

    def read(self, name: str) -> Array:
        """Reads one array; one that would have to be unpickled is refused."""
        with (
            _reading(f"{name!r} in {self.path}"),
            zipfile.ZipFile(self.path) as members,
            members.open(self._members[name]) as file,
        ):
            array: Array = np.lib.format.read_array(file, allow_pickle=False)
        if array.dtype == np.dtype("V2"):  # what NumPy writes for bfloat16, a type it does not have
            array = array.view(BFLOAT16)
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turns whatever reading a file may raise into one line; a damaged one can raise anything."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        if "allow_pickle" in str(error):
            raise CommandError(
                f"{what} holds pickled Python objects, which could run any code: save an array of numbers"
            ) from None
        raise CommandError(f"cannot read {what}: {reason(error)}") from None


class Safetensors:
    """Hugging Face's format. Its NumPy reader has no bfloat16, so the bytes are given their type here."""

    def __init__(self, path: Path) -> None:
        self.path = path
        require_safetensors(path)
        import safetensors

        read: Any = safetensors.deserialize  # its type information has no types
        with _reading(str(path)):
            self._entries: dict[str, Any] = dict(read(path.read_bytes()))
        self.names: list[str] = sorted(self._entries)

    def read(self, name: str) -> Array:
        """One tensor as an array over the bytes that were read."""
        entry = self._entries[name]
        dtype = _SAFETENSORS_TYPES.get(entry["dtype"])
        if dtype is None:
            raise CommandError(
                f"{name!r} in {self.path} is of type {entry['dtype']}: "
                f"known are {', '.join(_SAFETENSORS_TYPES)}"
            )
        array: Array = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
        return array


def require_safetensors(path: Path) -> None:
    """Raises unless the package that reads and writes `path` is there."""
    if find_spec("safetensors") is None:
        raise CommandError(f"{path} needs the safetensors package: pip install 'sightline[cli]'")


def open_archive(path: Path) -> Archive:
    """Opens a file of arrays by its ending."""
    check_format(path)
    if path.is_dir():
        raise CommandError(f"{path} is a folder, not a file of arrays")
    if not path.exists():
        raise CommandError(f"there is no file {path}")
    if not path.is_file():  # a pipe would make us wait for ever
        raise CommandError(f"{path} is not a plain file: copy it into one")
    with _reading(str(path)), path.open("rb"):  # may it be read at all?
        pass
    return Npz(path) if path.suffix == ".npz" else Safetensors(path)


def check_format(path: Path) -> None:
    """Raises unless the ending of `path` is one we know."""
    if path.suffix not in FORMATS:
        raise CommandError(f"{path} should end in {' or '.join(FORMATS)}")


def read_named(archive: Archive, name: str, option: str) -> Array:
    """The array that `option` names."""
    if name not in archive.names:
        raise CommandError(
            f"{archive.path} has no array {name!r} (it has {listed(archive.names)}): "
            f"say which one with {option} NAME"
        )
    return archive.read(name)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file."""
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read {path}: {reason(error)}") from None


def check_writable(path: Path, inputs: Path) -> None:
    """Raises now for what would only fail after the work is done: a result nobody can write."""
    check_format(path)
    if path.suffix == ".safetensors":
        require_safetensors(path)
    check_place(path)
    if path.exists() and path.samefile(inputs):
        raise CommandError(f"--output {path} would overwrite the input: give it another name")


def check_place(path: Path) -> None:
    """Raises unless `path` lies in a folder, and is none itself."""
    if not path.parent.is_dir():
        raise CommandError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise CommandError(f"cannot write {path}: it is a folder")


def write_array(path: Path, name: str, array: Array) -> str:
    """Writes one named array, and returns how it was stored where that is not plain."""
    stored, remark = np.ascontiguousarray(array), ""
    if path.suffix == ".npz" and stored.dtype == BFLOAT16:
        stored, remark = stored.astype(np.float32), "stored as float32, exactly: .npz has no bfloat16"
    try:
        with _replacing(path) as new:
            if path.suffix == ".npz":
                save: Any = np.savez  # its type information takes every name for one of its own options
                save(new, **{name: stored})
            else:
                from safetensors.numpy import save_file

                save_file({name: stored}, new)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {reason(error)}") from None
    return remark


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A new file that takes the place of `path` when the block ends well, and is gone when it does not."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".sightline-") as folder:
        new = Path(folder) / path.name
        yield new
        new.replace(path)
