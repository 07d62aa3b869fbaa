"""Every mistake on the command line is one line on stderr and exit code 2."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from command import (
    EXAMPLE,
    SMALL,
    assert_one_line,
    normal,
    sightline,
    without,
    write_npz,
)
from sightline.cli.errors import CommandError
from sightline.cli.files import open_archive
from sightline.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = f"{shlex.quote(sys.executable)} -m sightline"

BAD_CALLS: dict[str, tuple[list[str], str]] = {
    "unknown option": (["attend", "{in}", "--causl"], "unknown option --causl; did you mean --causal?"),
    "shortened option": (["attend", "{in}", "--caus"], "unknown option --caus; did you mean --causal?"),
    "strange option": (["attend", "{in}", "--xyzzy"], "unknown option --xyzzy (see"),
    "extra word": (["attend", "{in}", "more"], "unexpected argument 'more'"),
    "no file": (["attend"], "the following arguments are required: FILE"),
    "unknown command": (["atend"], "invalid choice: 'atend'"),
    "missing file": (["attend", "none.npz"], "there is no file none.npz"),
    "ending": (["attend", "in.txt"], "in.txt should end in .npz or .safetensors"),
    "folder": (["attend", "{folder}"], "is a folder"),
    "no such name": (
        ["attend", "{in}", "--query", "Q"],
        "has no array 'Q' (it has query, key, value, text, whole,",
    ),
    "no such mask": (["attend", "{in}", "--mask", "M"], "say which one with --mask NAME"),
    "no default name": (
        ["attend", "{other}"],
        "has no array 'query' or 'q' (it has x): say which one with --query NAME",
    ),
    "text": (
        ["attend", "{in}", "--query", "text"],
        "query ('text' in {in}) is of type <U1: expected float64,",
    ),
    "integers": (
        ["attend", "{in}", "--query", "whole"],
        "is of type int64: expected float64, float32, float16, bfloat16; --dtype",
    ),
    "pickled": (["attend", "{in}", "--query", "objects"], "'objects' in {in} holds pickled Python objects"),
    "two types": (["attend", "{in}", "--query", "double"], "float64"),
    "shapes": (
        ["attend", "{in}", "--key", "query", "--value", "key"],
        "key has length 5 and value has length 7",
    ),
    "mask type": (["attend", "{in}", "--mask", "bias"], "bias"),
    "mask shape": (["attend", "{in}", "--mask", "odd"], "mask"),
    "alignment": (["attend", "{in}", "--causal"], "query_offset"),
    "dtype": (["attend", "{in}", "--dtype", "int8"], "invalid choice: 'int8'"),
    "layout": (["attend", "{in}", "--layout", "BHDL"], "invalid choice: 'BHDL'"),
    "window of one": (["attend", "{in}", "--window", "3"], "'3' should be L,R, such as 256,0 or none,128"),
    "window of words": (["attend", "{in}", "--window", "a,b"], "'a' is not a whole number"),
    "window backwards": (["attend", "{in}", "--window=-1,0"], "-1 is negative"),
    "threads": (["attend", "{in}", "--threads", "0"], "0 threads cannot work"),
    "scale": (["attend", "{in}", "--scale", "big"], "invalid float value: 'big'"),
    "softcap": (["attend", "{in}", "--softcap", "-3"], "softcap is -3"),
    "key lengths": (["attend", "{in}", "--key-lengths", "8"], "key_lengths is 8"),
    "as many lengths": (["attend", "{in}", "--key-lengths", "1,2,3"], "key_lengths"),
    "output ending": (
        ["attend", "{in}", "--output", "out.npy"],
        "out.npy should end in .npz or .safetensors",
    ),
    "output folder": (
        ["attend", "{in}", "--output", "none/out.npz"],
        "cannot write none/out.npz: there is no folder none",
    ),
    "output over input": (["attend", "{in}", "--output", "{in}"], "would overwrite the input"),
    "output is a folder": (["attend", "{in}", "--output", "{folder}"], "is a folder"),
    "cache": (["cache", "empty"], "invalid choice: 'empty'"),
}


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """A line for a shell, which can hand over streams that are full or closed."""
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("case", BAD_CALLS)
def test_mistakes_in_one_line(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = np.array([{"a": 1}], dtype=object)
    path = write_npz(
        tmp_path,
        text=np.array(["a"]),
        whole=np.ones((2, 4, 5, 8), np.int64),
        objects=objects,
        double=normal(2, 4, 5, 8, dtype="float64"),
        bias=normal(5, 7),
        odd=np.ones((3, 3), bool),
    )
    np.savez(tmp_path / "other.npz", x=normal(3))
    (tmp_path / "folder.npz").mkdir()
    places = {"in": str(path), "other": str(tmp_path / "other.npz"), "folder": str(tmp_path / "folder.npz")}
    words, expected = BAD_CALLS[case]
    code = main([word.format(**places) for word in words])
    assert_one_line(code, *capsys.readouterr(), expected.format(**places))
    assert not list(tmp_path.glob(".sightline-*"))


def test_a_mistake_in_a_process_of_its_own() -> None:
    done = sightline("attend", EXAMPLE, "--query", "nothing")
    assert_one_line(
        done.returncode, done.stdout, done.stderr, "has no array 'nothing' (it has query, key, value, tokens)"
    )


def torn(whole: bytes) -> dict[str, bytes]:
    middle = len(whole) // 2
    return {
        "empty": b"",
        "cut": whole[:middle],
        "text": b"query,key,value\n1,2,3\n",
        "pickle": b"\x80\x04cos\nsystem\n.",
        "flipped": whole[:200] + bytes(255 - byte for byte in whole[200:220]) + whole[220:],
    }


@pytest.mark.parametrize(
    ("ending", "harm"),
    [(ending, harm) for ending in ("npz", "safetensors") for harm in ("empty", "cut", "text", "pickle")]
    + [("npz", "flipped")],  # safetensors keeps no checksum: changed numbers are other numbers
)
def test_damaged_files(ending: str, harm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_npz(tmp_path)
    if ending == "safetensors":
        from safetensors.numpy import save_file

        save_file(dict(np.load(path)), tmp_path / "in.safetensors")
        path = tmp_path / "in.safetensors"
    path.write_bytes(torn(path.read_bytes())[harm])
    assert_one_line(main(["attend", str(path)]), *capsys.readouterr(), str(path))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_any_damage_is_one_line_or_none(save: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "in.npz"
    save(path, q=normal(9, 16), k=normal(9, 16))
    whole, refused = path.read_bytes(), 0
    random = np.random.default_rng(0)
    for _ in range(200):
        harmed = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            harmed[place] ^= int(random.integers(1, 256))
        path.write_bytes(harmed)
        try:
            archive = open_archive(path)
            for name in archive.names:
                archive.read(name)
        except CommandError as error:
            refused += str(path) in str(error)
    assert refused > 150  # the rest hit what nobody reads: dates, and the like


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    path = write_npz(tmp_path, query=np.array([Trap()], dtype=object))
    assert main(["attend", str(path)]) == 2
    assert not (tmp_path / "sprung").exists()
    np.load(path, allow_pickle=True)["query"]
    assert (tmp_path / "sprung").exists()  # the trap does work


def test_a_type_that_numpy_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    header = json.dumps({"q": {"dtype": "F8_E4M3", "shape": [2, 2], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "in.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    expected = f"'q' in {path} is of type F8_E4M3: known are F64, F32, F16, BF16"
    assert_one_line(main(["attend", str(path), "--key", "q", "--value", "q"]), *capsys.readouterr(), expected)


@pytest.mark.parametrize("words", [["{tmp}/in.safetensors"], ["{npz}", "--output", "{tmp}/out.safetensors"]])
def test_without_the_safetensors_package(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "in.safetensors").write_bytes(b"")
    words = [word.format(tmp=tmp_path, npz=EXAMPLE) for word in words]
    done = without("safetensors", "attend", *words)
    assert_one_line(done.returncode, done.stdout, done.stderr, "pip install 'sightline[cli]'")


def test_an_instruction_set_the_machine_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sightline.cpu import isa

    lacking = next(name for name in isa.NAMES if name not in {each.name for each in isa.runnable()})
    monkeypatch.setenv("SIGHTLINE_ISA", lacking)
    assert_one_line(
        main(["attend", str(SMALL)]), *capsys.readouterr(), f"SIGHTLINE_ISA={lacking} cannot run here"
    )


def test_a_result_that_cannot_be_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    path, out = write_npz(tmp_path), tmp_path / "out.npz"
    out.write_bytes(b"what was there")
    monkeypatch.setattr(np, "savez", full)
    assert main(["attend", str(path), "--output", str(out)]) == 2
    assert f"cannot write {out}: No space left on device\n" in capsys.readouterr().err
    assert out.read_bytes() == b"what was there"
    assert not list(tmp_path.glob(".sightline-*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_stdout_is_one_line() -> None:
    done = shell(f"{COMMAND} info > /dev/full")
    assert (done.returncode, done.stderr) == (2, "sightline: No space left on device\n")


def test_a_closed_stdout_is_not_an_error() -> None:
    done = shell(f"{COMMAND} cache info >&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pipe_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "in.npz")
    assert_one_line(main(["attend", str(tmp_path / "in.npz")]), *capsys.readouterr(), "is not a plain file")


@pytest.mark.parametrize(
    ("name", "word", "expected"),
    [
        ("SIGHTLINE_NUM_THREADS", "many", "SIGHTLINE_NUM_THREADS='many' is not a whole number"),
        ("SIGHTLINE_ISA", "mmx", "SIGHTLINE_ISA='mmx' is not an instruction set"),
    ],
)
def test_variables_that_make_no_sense(name: str, word: str, expected: str) -> None:
    done = sightline("attend", SMALL, env={name: word})
    assert_one_line(done.returncode, done.stdout, done.stderr, expected)
