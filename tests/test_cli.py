"""The command line computes what it is asked, and ends as a command should."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import pytest

from command import (
    EXAMPLE,
    OPTIONS,
    TOLERANCE,
    assert_close,
    normal,
    sightline,
    write_npz,
)
from sightline import get_num_threads, reference
from sightline.cli.files import open_archive
from sightline.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path
from typing import Any


def test_attend_on_the_example(tmp_path: Path) -> None:
    done = sightline("attend", EXAMPLE, "--output", tmp_path / "out.npz")
    assert (done.returncode, done.stderr) == (0, "")
    labels = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert labels == [
        *(
            "query",
            "key",
            "value",
            "options",
            "output",
            "kernel",
            "visible",
            "time",
            "speed",
            "error",
            "written",
        )
    ]
    assert "12 × 470 × 32  float16" in done.stdout
    assert "visible     100.0%" in done.stdout
    assert re.search(r"time +\S+ \S+(  \(median of [1-5]; the first took .*)?\n", done.stdout)
    error = re.search(r"error +(\S+) +relative, worst of 96 rows", done.stdout)
    assert error is not None
    assert 0 < float(error[1]) < TOLERANCE["float16"]
    arrays = np.load(EXAMPLE)
    expected, _ = reference.output_and_lse(arrays["query"], arrays["key"], arrays["value"])
    assert_close(np.load(tmp_path / "out.npz")["output"], expected)


@pytest.mark.parametrize("case", OPTIONS)
def test_options_reach_attention(case: str, tmp_path: Path) -> None:
    words, options, arrays = OPTIONS[case]
    path, out = write_npz(tmp_path, **arrays), tmp_path / "out.npz"
    assert main(["attend", str(path), *words, "--output", str(out)]) == 0
    given = np.load(path)
    expected, _ = reference.output_and_lse(given["query"], given["key"], given["value"], **options)
    assert_close(np.load(out)["output"], expected)
    if options:
        plain, _ = reference.output_and_lse(given["query"], given["key"], given["value"])
        assert case == "precision" or not np.allclose(plain, expected)


def test_blhd_layout_and_chosen_names(tmp_path: Path) -> None:
    q, k, v = normal(5, 4, 8), normal(7, 2, 8, seed=1), normal(7, 2, 6, seed=2)
    path, out = write_npz(tmp_path, a=q, b=k, c=v), tmp_path / "out.npz"
    words = ["--query", "a", "--key", "b", "--value", "c", "--layout", "BLHD", "--output", str(out)]
    assert main(["attend", str(path), *words]) == 0
    assert_close(np.load(out)["output"], reference.output_and_lse(q, k, v, layout="BLHD")[0])


def test_short_names_and_plain_matrices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    q, k, v = normal(5, 8), normal(7, 8, seed=1), normal(7, 6, seed=2)
    np.savez(tmp_path / "in.npz", q=q, k=k, v=v)
    assert main(["attend", str(tmp_path / "in.npz"), "--output", str(tmp_path / "out.npz")]) == 0
    assert_close(np.load(tmp_path / "out.npz")["output"], reference.output_and_lse(q, k, v)[0])
    assert "5 × 8  float32  (tokens × size)  ('q')" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_dtype_converts(dtype: str, tmp_path: Path) -> None:
    path, out = write_npz(tmp_path), tmp_path / "out.safetensors"
    assert main(["attend", str(path), "--dtype", dtype, "--output", str(out)]) == 0
    given = np.load(path)
    found = open_archive(out).read("output")
    assert found.dtype.name == dtype
    three = (given[name].astype(found.dtype) for name in ("query", "key", "value"))
    assert_close(found, reference.output_and_lse(*three)[0])


def test_integers_convert(tmp_path: Path) -> None:
    whole = np.arange(2 * 4 * 5 * 8).reshape(2, 4, 5, 8) % 5
    path = write_npz(tmp_path, query=whole)
    assert main(["attend", str(path), "--dtype", "float32", "--output", str(tmp_path / "out.npz")]) == 0
    given = np.load(path)
    three = (given[name].astype(np.float32) for name in ("query", "key", "value"))
    assert_close(np.load(tmp_path / "out.npz")["output"], reference.output_and_lse(*three)[0])


def test_numbers_from_a_machine_of_the_other_byte_order(tmp_path: Path) -> None:
    key, bias = normal(2, 2, 7, 8), normal(5, 7, seed=9)
    path = write_npz(tmp_path, key=key.astype(">f4"), b=bias.astype(">f4"))
    assert main(["attend", str(path), "--bias", "b", "--output", str(tmp_path / "out.npz")]) == 0
    given = np.load(path)
    expected, _ = reference.output_and_lse(given["query"], key, given["value"], bias=bias)
    assert_close(np.load(tmp_path / "out.npz")["output"], expected)


def test_threads(capsys: pytest.CaptureFixture[str]) -> None:
    before = get_num_threads()
    for count in (1, 2, 3):
        assert main(["attend", str(EXAMPLE), "--threads", str(count)]) == 0
        assert f"64 keys, {count} thread" in capsys.readouterr().out
    assert get_num_threads() == before


def test_bfloat16_in_both_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import save_file

    three = {name: normal(1, 6, 8, seed=i).astype(ml_dtypes.bfloat16) for i, name in enumerate("qkv")}
    expected, _ = reference.output_and_lse(*three.values())
    save: Any = np.savez
    save(tmp_path / "in.npz", **three)
    save_file(three, tmp_path / "in.safetensors")
    for path in (tmp_path / "in.npz", tmp_path / "in.safetensors"):
        out = tmp_path / f"out{path.suffix}"
        assert main(["attend", str(path), "--output", str(out)]) == 0
        assert "1 × 6 × 8  bfloat16" in capsys.readouterr().out
        found = open_archive(out).read("output")
        assert found.dtype.name == ("float32" if path.suffix == ".npz" else "bfloat16")
        assert_close(found.astype(ml_dtypes.bfloat16), expected)
        np.testing.assert_array_equal(found, found.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_nan_is_not_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = normal(2, 4, 5, 8)
    query[1, 2, 3] = np.nan
    assert main(["attend", str(write_npz(tmp_path, query=query))]) == 0
    assert "(NaN in 1 of its rows)" in capsys.readouterr().out


def test_empty_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attend", str(write_npz(tmp_path, query=normal(2, 4, 0, 8)))]) == 0
    assert "nothing to check" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["info"], ["--help"], ["attend", str(EXAMPLE)]])
def test_nobody_reads_on(words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sightline", *words]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with os.fdopen(write, "w") as nobody:
        done = subprocess.run(
            command, stdout=nobody, stderr=subprocess.PIPE, check=False, timeout=60, env=buffered
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_ctrl_c_ends_a_long_call_quietly(tmp_path: Path) -> None:
    long = np.zeros((12, 16384, 32), np.float16)  # 4·10¹¹ operations: some seconds for one thread
    path = str(tmp_path / "long.npz")
    np.savez(path, q=long, k=long, v=long)
    # A shell that starts a command in the background makes it ignore Ctrl-C, and the tests may run in one.
    listen = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    attend = f"from sightline.cli.main import main; sys.exit(main(['attend', {path!r}, '--threads', '1']))"
    command = [sys.executable, "-c", f"{listen}; {attend}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "options" in line:
                break
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_terminal_without_these_letters() -> None:
    done = sightline("attend", EXAMPLE, env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "12 ? 470 ? 32" in done.stdout


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    import sightline as package

    done = sightline("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"sightline {package.__version__}\n", "")
    for words in (
        ["--help"],
        ["attend", "--help"],
        ["explain", "--help"],
        ["info", "--help"],
        ["cache", "--help"],
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 0
        assert "usage: sightline" in capsys.readouterr().out


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: sightline" in capsys.readouterr().err
