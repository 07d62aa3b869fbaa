"""Checks of a call's plain options: numbers, words, windows. Each returns the value in its canonical form.

Every error says what came, what was expected and what to try. Arrays are checked in `operands`.
"""

import math
import operator
from contextlib import suppress
from numbers import Real
from typing import Final

import numpy as np

LAYOUTS: Final = ("BHLD", "BLHD")
PRECISIONS: Final = ("highest", "high", "default")

FARTHEST_OFFSET: Final = 2**31
"""A query_offset reaches no further than this from 0, so that no difference of positions overflows."""

FAR: Final = 2**40
"""A window of this size holds every key there can be: it is the same as None."""

Window = tuple[int | None, int | None]


def describe(value: object) -> str:
    """A value and its type, short enough for an error message."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def word(value: object, name: str, words: tuple[str, ...]) -> str:
    """One of a few words, exactly as written."""
    choices = " or ".join(f'"{choice}"' for choice in words)
    if not isinstance(value, str):
        raise TypeError(f'{name} is {describe(value)}; expected {choices}; try {name}="{words[0]}".')
    if value not in words:
        near = next((choice for choice in words if choice.lower() == value.lower()), words[0])
        raise ValueError(f'{name} is "{value}"; expected {choices}; try {name}="{near}".')
    return value


def switch(value: object, name: str) -> bool:
    """True or False, and nothing that merely counts as such."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {describe(value)}; expected True or False; try {name}=True.")
    return bool(value)


def whole(value: object, name: str, meaning: str) -> int:
    """An int of any kind that is not a bool."""
    if not isinstance(value, bool | np.bool_):
        with suppress(TypeError):
            return operator.index(value)  # type: ignore[arg-type]  # asking is the test
    raise TypeError(f"{name} is {describe(value)}; expected {meaning}; try an int.")


def _number(value: object, name: str, meaning: str, dtype: str) -> float:
    """A real number that is finite in the arithmetic of `dtype`."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} is {describe(value)}; expected {meaning}; try float({name}).")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    largest = float(np.finfo(np.float64 if dtype == "float64" else np.float32).max)
    if not abs(number) <= largest:
        raise ValueError(
            f"{name} is {number}; expected {meaning}, no larger than {largest:.2g} for {dtype} inputs; "
            f"try None for the default."
        )
    return number


def check_scale(value: object, dim: int, dtype: str) -> float:
    """The factor on q · k: any finite number, 1/√D by default."""
    return 1 / math.sqrt(dim) if value is None else _number(value, "scale", "a finite number", dtype)


def check_softcap(value: object, dtype: str) -> float | None:
    """The bound of softcap · tanh(score / softcap), or None for no bound."""
    if value is None:
        return None
    meaning = "None or a finite number above 0"
    number = _number(value, "softcap", meaning, dtype)
    smallest = float(np.finfo(np.float64 if dtype == "float64" else np.float32).tiny)
    if number < smallest:
        least = "" if number <= 0 else f" (at least {smallest:.2g} for {dtype} inputs)"
        raise ValueError(f"softcap is {number:g}; expected {meaning}{least}; try softcap=None for no cap.")
    return number


def check_dropout(value: object) -> float:
    """The probability with which a weight is dropped."""
    expected = "expected a number from 0 to 1, the probability with which a weight is dropped"
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"dropout_p is {describe(value)}; {expected}; try dropout_p=0.0 for no dropout.")
    p = float(value)
    if not 0 <= p <= 1:
        hint = f"dropout_p={p / 100:g}" if 1 < p <= 100 else "dropout_p=0.0 for no dropout"
        raise ValueError(f"dropout_p is {p:g}; {expected}; try {hint}.")
    return p


def check_seed(value: object, dropout_p: object) -> int:
    """The seed that says which weights are dropped; 0 where there is no dropout and none is given."""
    if value is None and type(dropout_p) is float and not dropout_p:  # nearly every call
        return 0
    p = check_dropout(dropout_p)
    expected = "expected an int from 0 to 2**64 − 1, which says which weights are dropped"
    if value is None:
        if not p:
            return 0
        raise ValueError(
            f"dropout_p is {p:g} and seed is None; {expected}; try seed=0 and another one for each call, or "
            f"sightline.torch.attention, which draws one."
        )
    seed = whole(value, "seed", "an int from 0 to 2**64 − 1")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}; {expected}; try seed={seed % 2**64}.")
    return seed


def check_window(value: object) -> Window | None:
    """(left, right), both ends included, None being unbounded; a window that bounds nothing becomes None."""
    if value is None:
        return None
    expected = "expected None or a pair (left, right), each None or an int ≥ 0"
    if not isinstance(value, tuple | list):
        if isinstance(value, int | np.integer) and not isinstance(value, bool) and value > 0:
            raise TypeError(
                f"window is {describe(value)}; {expected}; try window=({value}, 0) for {value} keys before "
                f"each query and its own, or window=({value - 1}, 0) where {value} counts the query's own."
            )
        raise TypeError(f"window is {describe(value)}; {expected}; try window=None for no window.")
    if len(value) != 2:
        raise ValueError(
            f"window is {describe(value)}; {expected}; try window=(left, right), with None for an open side."
        )
    left, right = (_reach(reach, value, expected) for reach in value)
    return None if left is None and right is None else (left, right)


def _reach(reach: object, window: object, expected: str) -> int | None:
    """One side of a window."""
    if reach is None:
        return None
    size = whole(reach, f"a side of window={window}", "None or an int ≥ 0")
    if size < 0:
        raise ValueError(
            f"window is {window}, with {size} in it; {expected}; try None for an unbounded side."
        )
    return size if size < FAR else None


def check_offset(value: object, name: str) -> int:
    """The position of the first query among the keys; `name` says whose it is, as in query_offset[3]."""
    offset = whole(value, name, "an int, or one int for each sequence")
    if abs(offset) > FARTHEST_OFFSET:
        raise ValueError(
            f"{name} is {offset}; expected an int from −2**31 to 2**31; "
            f"try the first query's position counted from the first key."
        )
    return offset


def check_length(value: object, name: str, keys: int) -> int:
    """How many of a sequence's keys exist; `name` says whose, as in key_lengths[3]."""
    length = whole(value, name, "an int, or one int for each sequence")
    if not 0 <= length <= keys:
        raise ValueError(
            f"{name} is {length}; expected an int from 0 to {keys}, the length of key; "
            f"try {min(max(length, 0), keys)}, or a longer key."
        )
    return length


def check_alignment(
    query_length: int, key_length: int, *, causal: bool, window: Window | None, key_lengths: bool
) -> None:
    """Refuse to guess where unequal numbers of queries and keys are aligned: the field has two readings."""
    if query_length == key_length or not (causal or window):
        return
    name = "causal=True" if causal else f"window={window}"
    ends = "key_lengths − Lq, per sequence" if key_lengths else str(key_length - query_length)
    raise ValueError(
        f"{name} with {query_length} queries and {key_length} keys has two readings; "
        f"expected query_offset, which says where the first query stands; "
        f"try query_offset=0 (top-left, where the first query meets the first key: PyTorch, JAX, Keras) or "
        f"query_offset={ends} (bottom-right, where the last query meets the last key: FlashAttention, MLX)."
    )
