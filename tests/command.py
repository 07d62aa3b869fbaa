"""Help for the tests of the command line: files to give it, and ways to run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sightline.cli import info

EXAMPLE = Path(__file__).parent.parent / "examples" / "minilm_qkv.npz"
SMALL = Path(info.__file__).with_name("alice.npz")

# Output against the float64 reference: what rounding to the type costs, with room for the arithmetic.
TOLERANCE = {"float64": 1e-13, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}

Array = np.ndarray[Any, Any]


def normal(*shape: int, seed: int = 0, dtype: str = "float32") -> Array:
    """Random numbers, always the same."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def three(seed: int = 0) -> dict[str, Array]:
    """A call with two sequences, four query heads on two key heads, and sizes that are all different."""
    shapes = {"query": (2, 4, 5, 8), "key": (2, 2, 7, 8), "value": (2, 2, 7, 6)}
    return {name: normal(*shape, seed=seed + i) for i, (name, shape) in enumerate(shapes.items())}


def write_npz(folder: Path, **arrays: Array) -> Path:
    """A file of `three` and whatever else is given."""
    path = folder / "in.npz"
    save: Any = np.savez  # its type information takes every name for one of its own options
    save(path, **(three() | arrays))
    return path


def sightline(*words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return python("-m", "sightline", *map(str, words), env=env)


def without(package: str, *words: object) -> subprocess.CompletedProcess[str]:
    """The command where a package is not installed."""
    hide = f"import sys; sys.modules[{package!r}] = None"
    run = f"from sightline.cli.main import main; sys.exit(main({list(map(str, words))}))"
    return python("-c", f"{hide}; {run}")


def python(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own."""
    surroundings = os.environ | (env or {})
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=surroundings)


def assert_close(found: Array, expected: Array) -> None:
    """Equal up to the rounding of `found`'s type."""
    __tracebackhide__ = True
    assert found.shape == expected.shape
    tolerance = TOLERANCE[found.dtype.name]
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=tolerance, atol=tolerance)


def assert_one_line(code: int, out: str, err: str, expected: str) -> None:
    """Exit code 2, and one line that says this."""
    __tracebackhide__ = True
    assert code == 2
    assert out == ""
    assert err.startswith("sightline: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert expected in err


LOWER = np.tri(5, 7, dtype=bool)
OPTIONS: dict[str, tuple[list[str], dict[str, Any], dict[str, Array]]] = {
    "nothing": ([], {}, {}),
    "causal": (["--causal", "--query-offset", "2"], {"causal": True, "query_offset": 2}, {}),
    "window": (["--window", "1,none", "--query-offset=-1"], {"window": (1, None), "query_offset": -1}, {}),
    "scale": (["--scale", "0.5"], {"scale": 0.5}, {}),
    "softcap": (["--softcap", "2"], {"softcap": 2.0}, {}),
    "precision": (["--precision", "highest"], {"precision": "highest"}, {}),
    "threads": (["--threads", "1"], {}, {}),
    "one length": (["--key-lengths", "3"], {"key_lengths": 3}, {}),
    "lengths": (["--key-lengths", "3,0"], {"key_lengths": np.array([3, 0])}, {}),
    "offsets": (
        ["--causal", "--query-offset", "2,0"],
        {"causal": True, "query_offset": np.array([2, 0])},
        {},
    ),
    "named lengths": (["--key-lengths", "n"], {"key_lengths": np.array([6, 1])}, {"n": np.array([6, 1])}),
    "mask": (["--mask", "may"], {"mask": LOWER}, {"may": LOWER}),
    "bias": (["--bias", "b"], {"bias": normal(4, 5, 7)}, {"b": normal(4, 5, 7)}),
    "sinks": (["--sinks", "s"], {"sinks": normal(4)}, {"s": normal(4)}),
    "slopes": (
        ["--alibi-slopes", "slopes", "--query-offset", "0"],
        {"alibi_slopes": normal(4), "query_offset": 0},
        {"slopes": normal(4)},
    ),
}
