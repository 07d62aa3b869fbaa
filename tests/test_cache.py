"""The disk cache: whole files or none, nothing that another user could have written, and no failure ever."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sightline.cpu import cache

KEY = cache.digest("a kernel")
CODE = b"\x7fELF machine code" * 100


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "kernels"))
    for name, start in (("hits", 0), ("misses", 0), ("trouble", "")):
        monkeypatch.setattr(cache._Record, name, start)
    return tmp_path / "kernels"


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_what_is_written_is_read(folder: Path) -> None:
    assert cache.read(KEY) is None
    cache.write(KEY, CODE)
    assert cache.read(KEY) == CODE
    assert cache.read(cache.digest("another kernel")) is None
    info = cache.cache_info()
    assert (info.directory, info.reason, info.files, info.hits, info.misses) == (str(folder), "", 1, 1, 2)
    assert len(CODE) < info.bytes == only_file(folder).stat().st_size


def test_nobody_else_may_look(folder: Path) -> None:
    old = os.umask(0)
    try:
        cache.write(KEY, CODE)
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(only_file(folder).stat().st_mode) == 0o600


def damaged_versions(content: bytes) -> list[bytes]:
    flipped = bytearray(content)
    flipped[-7] ^= 1
    return [b"", content[:10], content[: len(content) // 2], content + b"x", bytes(flipped), b"hello" * 999]


@pytest.mark.parametrize("case", range(6))
def test_a_damaged_file_is_a_miss_and_is_replaced(folder: Path, case: int) -> None:
    cache.write(KEY, CODE)
    file = only_file(folder)
    file.write_bytes(damaged_versions(file.read_bytes())[case])
    assert cache.read(KEY) is None
    assert "damaged" in cache.cache_info().reason
    cache.write(KEY, CODE)
    assert cache.read(KEY) == CODE


def test_a_file_under_another_kernels_name_is_a_miss(folder: Path) -> None:
    cache.write(KEY, CODE)
    other = cache.digest("another kernel")
    file = only_file(folder)
    file.rename(file.with_name(file.name.replace(KEY, other)))
    assert cache.read(other) is None


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_others_could_write_is_not_read(folder: Path, mode: int) -> None:
    cache.write(KEY, CODE)
    only_file(folder).chmod(mode)
    assert cache.read(KEY) is None
    assert f"can be written by others (mode {mode:04o})" in cache.cache_info().reason


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_directory_others_could_write_is_not_used(folder: Path, mode: int) -> None:
    cache.write(KEY, CODE)
    folder.chmod(mode)
    assert cache.read(KEY) is None
    assert f"{folder} can be written by others (mode {mode:04o})" in cache.cache_info().reason
    cache.write(cache.digest("another kernel"), CODE)
    assert len(list(folder.iterdir())) == 1
    assert cache.cache_clear() == 0
    folder.chmod(0o755)  # others may look, as long as they cannot write
    assert cache.read(KEY) == CODE


def test_a_directory_of_another_user_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write(KEY, CODE)
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    assert cache.read(KEY) is None
    assert f"{folder} belongs to user" in cache.cache_info().reason
    assert "not to 4321" in cache.cache_info().reason


def test_a_file_of_another_user_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write(KEY, CODE)
    true_fstat = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        status = true_fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            return status
        fields = list(status)
        fields[stat.ST_UID] = 4321
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", fstat)
    assert cache.read(KEY) is None
    assert "belongs to user 4321" in cache.cache_info().reason


def test_a_file_behind_a_symbolic_link_is_not_read(folder: Path, tmp_path: Path) -> None:
    cache.write(KEY, CODE)
    file = only_file(folder)
    elsewhere = file.rename(tmp_path / "elsewhere")
    file.symlink_to(elsewhere)
    assert cache.read(KEY) is None
    assert "symbolic links" in cache.cache_info().reason


def test_a_directory_behind_a_symbolic_link_is_not_used(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write(KEY, CODE)
    link = tmp_path / "link"
    link.symlink_to(folder)
    monkeypatch.setenv(cache.VARIABLE, str(link))
    assert cache.read(KEY) is None
    assert f"{link} is a symbolic link or a file" in cache.cache_info().reason


def test_things_that_are_no_files(folder: Path) -> None:
    cache.write(KEY, CODE)
    name = only_file(folder)
    name.unlink()
    os.mkfifo(name, 0o600)  # opening it the ordinary way would wait for a writer for ever
    assert cache.read(KEY) is None
    name.unlink()
    name.mkdir()
    assert cache.read(KEY) is None
    cache.write(KEY, CODE)  # cannot replace a directory: no kernel is kept, and nothing else is left
    assert list(folder.iterdir()) == [name]


def test_a_file_in_place_of_the_directory(folder: Path) -> None:
    folder.write_text("not a directory")
    cache.write(KEY, CODE)
    assert cache.read(KEY) is None
    info = cache.cache_info()
    assert (info.files, info.bytes) == (0, 0)
    assert "must be a directory" in info.reason


def test_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(cache.VARIABLE, "off")
    cache.write(KEY, CODE)
    assert cache.read(KEY) is None
    assert (cache.cache_info().directory, cache.cache_info().reason) == (
        None,
        "switched off by SIGHTLINE_CACHE=off",
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("xdg", "expected"),
    [("{}/xdg", "xdg/sightline"), ("", "home/.cache/sightline"), ("rel", "home/.cache/sightline")],
)
def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, xdg: str, expected: str) -> None:
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", xdg.format(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.cache_info().directory == str(tmp_path / expected)
    assert not (tmp_path / "home").exists()  # asking makes nothing
    cache.write(KEY, CODE)
    assert len(list((tmp_path / expected).iterdir())) == 1


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    cache.write(KEY, CODE)
    assert cache.read(KEY) is None
    assert "no home directory" in cache.cache_info().reason
    assert cache.cache_clear() == 0


def test_a_home_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")  # chmod would not stop root, who may run this

    monkeypatch.setattr(Path, "mkdir", refuse)
    cache.write(KEY, CODE)
    assert "Permission denied" in cache.cache_info().reason
    monkeypatch.setattr(cache._Record, "trouble", "")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cache.cache_info().reason == f"{folder.parent} cannot be written"


def test_a_full_disk_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    cache.write(KEY, CODE)
    assert list(folder.iterdir()) == []
    assert "No space left" in cache.cache_info().reason


def test_an_interrupted_write_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.write(KEY, CODE)
    assert list(folder.iterdir()) == []


def test_the_least_recently_used_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [cache.digest(number) for number in range(4)]
    for age, key in enumerate(keys[:3]):
        cache.write(key, CODE)
        os.utime(folder / f"{key}.kernel", (1000 + age, 1000 + age))
    size = (folder / f"{keys[0]}.kernel").stat().st_size
    assert cache.read(keys[0]) == CODE  # the oldest, but now used
    monkeypatch.setattr(cache, "LIMIT", 2 * size + size // 2)
    monkeypatch.setattr(cache, "TRIM_EVERY", 1)
    cache.write(keys[3], CODE)
    assert [cache.read(key) is not None for key in keys] == [True, False, False, True]
    assert cache.cache_info().bytes == 2 * size


def test_the_limit_is_kept_without_looking_at_every_write(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    files = cache._files

    def looking(directory: int) -> list[tuple[float, int, str]]:
        looked.append(directory)
        return files(directory)

    monkeypatch.setattr(cache, "_files", looking)
    monkeypatch.setattr(cache, "LIMIT", 10 * len(CODE))
    for number in range(300):
        cache.write(cache.digest(number), CODE)
    assert 1 <= len(looked) < 100, "300 writes: 19 looks on average"
    assert len(list(folder.iterdir())) < 290


def test_what_dead_writers_left_is_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "TRIM_EVERY", 1)
    monkeypatch.setattr(cache, "LIMIT", 0)  # though the cache is full, a file being written stays
    cache.write(KEY, CODE)
    dead, alive, foreign = folder / "a.1.part", folder / "b.2.part", folder / "notes.txt"
    for file in (dead, alive, foreign):
        file.write_bytes(b"half")
    long_ago = time.time() - 2 * cache._ABANDONED
    for file in (dead, foreign):
        os.utime(file, (long_ago, long_ago))
    cache.write(KEY, CODE)
    assert (dead.exists(), alive.exists(), foreign.exists()) == (False, True, True)


def test_clear_removes_our_files_only(folder: Path) -> None:
    assert cache.cache_clear() == 0  # no directory yet
    for number in range(3):
        cache.write(cache.digest(number), CODE)
    (folder / "notes.txt").write_text("mine")
    assert cache.cache_clear() == 3
    assert [file.name for file in folder.iterdir()] == ["notes.txt"]
    assert cache.cache_info().files == 0


RACE = """
import sys
from sightline.cpu import cache
code = bytes([int(sys.argv[1])]) * 50_000
seen = set()
for turn in range(200):
    cache.write(cache.digest(turn % 3), code)
    found = cache.read(cache.digest(turn % 3))
    if found is not None:
        seen.add((len(found), len(set(found))))
    if turn % 50 == 49:
        cache.cache_clear()
assert seen == {(50_000, 1)}, seen
assert "damaged" not in cache.cache_info().reason, cache.cache_info()
"""


def test_processes_at_the_same_files(folder: Path) -> None:
    arguments = [sys.executable, "-c", RACE]
    racers = [subprocess.Popen([*arguments, str(number)], stderr=subprocess.PIPE) for number in range(3)]
    errors = [racer.communicate()[1].decode() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0], errors
    assert [file for file in folder.iterdir() if file.suffix == ".part"] == []


def test_threads_at_the_same_files(folder: Path) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        for turn in range(50):
            cache.write(cache.digest(turn % 2), bytes([number]) * 9999)
            found = cache.read(cache.digest(turn % 2))
            if found is None or len(set(found)) != 1:
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.cache_info().reason == ""
