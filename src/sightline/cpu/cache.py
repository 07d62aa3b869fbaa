"""The disk cache of machine code: one sealed file per kernel, in a directory nobody else can write.

What is in these files runs as code. So a file is read only when it and its directory, as opened, belong to
this user and no one else may write them. Whatever goes wrong on a disk (no home, no space, a torn or altered
file, another process at the same work) costs a compilation and nothing else; `cache_info()` says what it was.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = "SIGHTLINE_CACHE"
LIMIT = 256 << 20  # bytes kept on disk
TRIM_EVERY = 16  # one write in so many looks whether that is exceeded: all files are asked for their sizes

_SUFFIX = ".kernel"
_UNFINISHED = ".part"
_ABANDONED = 3600.0  # seconds after which the writer of an unfinished file must have died
_MAGIC = b"sightline kernel 1\n"
_SEAL_BYTES = 32


class CacheInfo(NamedTuple):
    """The disk cache as it stands. `reason` is empty when it works in full, else it says what does not."""

    directory: str | None
    reason: str
    files: int
    bytes: int
    limit: int
    hits: int  # kernels this process took from the disk
    misses: int  # kernels this process looked for in vain


class _UnusableError(Exception):
    """Why the cache is not used, in words for `cache_info()`."""


class _Record:
    """What this process has seen of the cache so far."""

    hits = 0
    misses = 0
    trouble = ""


def digest(*parts: object) -> str:
    """A file name for what `parts` say, by their `repr`."""
    return blake2b(repr(parts).encode(), digest_size=20).hexdigest()


def _location() -> Path:
    word = os.environ.get(VARIABLE, "").strip()
    if word.lower() == "off":
        raise _UnusableError(f"switched off by {VARIABLE}={word}")
    if word:
        return Path(word).absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # unset, or relative, which the XDG specification tells us to ignore
        try:
            base = Path.home() / ".cache"
        except RuntimeError as error:
            raise _UnusableError(f"there is no home directory: {error}") from error
    return base / "sightline"


def _require_private(status: os.stat_result, what: object) -> None:
    # Group and other write bits cover access control lists too: their mask is shown in the group's bits.
    if status.st_uid != os.geteuid():
        raise _UnusableError(f"{what} belongs to user {status.st_uid}, not to {os.geteuid()}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _UnusableError(f"{what} can be written by others (mode {stat.S_IMODE(status.st_mode):04o})")


@contextlib.contextmanager
def _opened(*, create: bool = False) -> Iterator[int]:
    """The directory, opened and checked. All work goes through this descriptor: a path may be swapped."""
    path = _location()
    if os.name != "posix":
        raise _UnusableError("the disk cache needs POSIX file ownership")
    try:
        if create:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError as error:
        raise _UnusableError(f"{path} is a symbolic link or a file, and must be a directory") from error
    try:
        _require_private(os.fstat(descriptor), path)
        yield descriptor
    finally:
        os.close(descriptor)


def _seal(name: str, code: bytes) -> bytes:
    """A checksum that a torn, altered or renamed file does not match."""
    return blake2b(name.encode() + code, digest_size=_SEAL_BYTES).digest()


def _read_file(name: str, directory: int) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # NONBLOCK: a FIFO must not hang us
    with open(os.open(name, flags, dir_fd=directory), "rb") as file:  # noqa: PTH123 - relative to a descriptor
        _require_private(os.fstat(file.fileno()), f"the file {name} in the cache")
        content = file.read()
        head = len(_MAGIC) + _SEAL_BYTES
        code = content[head:]
        if content[:head] != _MAGIC + _seal(name, code):
            raise _UnusableError(f"the file {name} in the cache was damaged")
        with contextlib.suppress(OSError):  # "used just now"; a read-only file system still serves
            os.utime(file.fileno())
    return code


def read(key: str) -> bytes | None:
    """The object code kept under `key`, or None when there is none that can be trusted."""
    try:
        with _opened() as directory:
            code = _read_file(key + _SUFFIX, directory)
    except FileNotFoundError:
        code = None
    except (_UnusableError, OSError) as error:
        code, _Record.trouble = None, str(error)
    _Record.hits += code is not None
    _Record.misses += code is None
    return code


def write(key: str, code: bytes) -> None:
    """Keep object code under `key`; the file appears whole or not at all."""
    name = key + _SUFFIX
    unfinished = f"{key}.{os.urandom(8).hex()}{_UNFINISHED}"
    try:
        with _opened(create=True) as directory:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                with open(os.open(unfinished, flags, 0o600, dir_fd=directory), "wb") as file:  # noqa: PTH123
                    file.write(_MAGIC + _seal(name, code) + code)
                os.replace(unfinished, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:  # Ctrl-C as well: leave nothing behind
                _remove(unfinished, directory)
                raise
            if os.urandom(1)[0] % TRIM_EVERY == 0:
                _trim(directory)
    except (_UnusableError, OSError) as error:
        _Record.trouble = str(error)


def _remove(name: str, directory: int) -> bool:
    with contextlib.suppress(OSError):  # another process may have removed it
        os.unlink(name, dir_fd=directory)
        return True
    return False


def _files(directory: int) -> list[tuple[float, int, str]]:
    """Our files in the directory: (last use, bytes, name), the least recently used first."""
    found = []
    for name in os.listdir(directory):
        if name.endswith((_SUFFIX, _UNFINISHED)):
            with contextlib.suppress(OSError):
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                found.append((status.st_mtime, status.st_size, name))
    return sorted(found)


def _trim(directory: int) -> None:
    """Remove the least recently used kernels above the limit, and what writers that died have left."""
    files = _files(directory)
    excess = sum(size for _, size, _ in files) - LIMIT
    oldest_unfinished = time.time() - _ABANDONED
    for used, size, name in files:
        abandoned = name.endswith(_UNFINISHED) and used < oldest_unfinished
        if abandoned or (excess > 0 and name.endswith(_SUFFIX)):
            _remove(name, directory)
            excess -= size


def cache_clear() -> int:
    """Remove every kernel from the disk cache and return how many there were; 0 if it is not used."""
    try:
        with _opened() as directory:
            return sum([_remove(name, directory) for _, _, name in _files(directory)])
    except (_UnusableError, OSError):
        return 0


def _first_existing(path: Path) -> Path:
    return next((parent for parent in (path, *path.parents) if parent.exists()), path)


def cache_info() -> CacheInfo:
    """Where the disk cache is, what is in it, and why it is not used if it is not; never fails."""
    path: Path | None = None
    reason, files = _Record.trouble, []  # type: str, list[tuple[float, int, str]]
    try:
        path = _location()
        base = _first_existing(path)
        if not os.access(base, os.W_OK | os.X_OK):
            reason = f"{base} cannot be written"
        if base == path:
            with _opened() as directory:
                files = _files(directory)
    except (_UnusableError, OSError) as error:
        reason = str(error)
    where = None if path is None else str(path)
    size = sum(size for _, size, _ in files)
    return CacheInfo(where, reason, len(files), size, LIMIT, _Record.hits, _Record.misses)
