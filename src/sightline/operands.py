"""Checks of a call's arrays: types, ranks and sizes. Each gives the form in which the other rooms read it.

That form is (*batch, heads, length, dim), whatever the caller's layout: an axis moves or repeats by its
stride, and nothing is copied. Every error says what came, what was expected and what to try.
"""

import math
from typing import Final, NamedTuple

import numpy as np

from sightline.arrays import Spec

FLOATS: Final = ("float64", "float32", "float16", "bfloat16")
FLOATS_TEXT: Final = "float64, float32, float16 or bfloat16"

Shape = tuple[int, ...]


class Trio(NamedTuple):
    """The three arrays of attention, in one form."""

    query: Spec
    key: Spec
    value: Spec


def is_integer(dtype: str) -> bool:
    """Whether a type's name is that of a signed or unsigned integer."""
    return dtype.startswith(("int", "uint"))


def check_types(trio: Trio) -> None:
    """One floating-point type for all three."""
    for name, spec in trio._asdict().items():
        if spec.dtype not in FLOATS:
            hint = (
                f"one of its real parts, {name}.real"
                if spec.dtype.startswith("complex")
                else "casting to float32"
            )
            raise TypeError(f"{name} has dtype {spec.dtype}; expected {FLOATS_TEXT}; try {hint}.")
    query, key, value = (spec.dtype for spec in trio)
    if not query == key == value:
        widest = min((query, key, value), key=FLOATS.index)
        if {"float16", "bfloat16"} == {query, key, value}:
            widest = "float32"  # neither of the two holds the other
        raise TypeError(
            f"query is {query}, key is {key} and value is {value}; expected one dtype for all three; "
            f"try casting them to {widest}."
        )


def check_ranks(trio: Trio, layout: str) -> int:
    """One rank for all three, at least 2: (length, dim)."""
    axes = "(…, length, heads, dim)" if layout == "BLHD" else "(…, heads, length, dim)"
    for name, spec in trio._asdict().items():
        if len(spec.shape) < 2:
            hint = f"{name}[None, :] for a length of 1" if spec.shape else "an array of two axes or more"
            raise ValueError(f"{name} has shape {spec.shape}; expected (length, dim) or {axes}; try {hint}.")
    query, key, value = (len(spec.shape) for spec in trio)
    if not query == key == value:
        raise ValueError(
            f"query has rank {query}, key {key} and value {value} (shapes {_shapes(trio)}); "
            f"expected one rank for all three, {axes}; try adding leading axes of size 1, as in key[None]."
        )
    return query


def canonical(trio: Trio, layout: str) -> Trio:
    """The three as (*batch, heads, length, dim) with one batch, or an error naming sizes that disagree."""
    forms = Trio(*(heads_first(spec, layout) for spec in trio))
    misfit = _misfit(forms)
    if misfit is not None:
        came, expected, hint = misfit
        other = "BHLD" if layout == "BLHD" else "BLHD"
        if len(trio.query.shape) > 2 and _misfit(Trio(*(heads_first(spec, other) for spec in trio))) is None:
            order = "length, heads, dim" if other == "BLHD" else "heads, length, dim"
            hint = f'layout="{other}" if the axes are (…, {order}), or {hint}'
        raise ValueError(
            f'{came} (shapes {_shapes(trio)}, layout="{layout}"); expected {expected}; try {hint}.'
        )
    batch = _batch(forms)
    return Trio(*(broadcast(spec, batch + spec.shape[-3:]) for spec in forms))


def _shapes(trio: Trio) -> str:
    """The three shapes as the caller knows them."""
    return ", ".join(str(spec.shape) for spec in trio)


def heads_first(spec: Spec, layout: str) -> Spec:
    """(…, heads, length, dim) through strides; (length, dim) is one head."""
    shape, strides = spec.shape, spec.strides
    if len(shape) == 2:
        return Spec((1, *shape), (0, *strides), spec.dtype)
    if layout == "BLHD":
        shape = (*shape[:-3], shape[-2], shape[-3], shape[-1])
        strides = (*strides[:-3], strides[-2], strides[-3], strides[-1])
    return Spec(shape, strides, spec.dtype)


def _misfit(trio: Trio) -> tuple[str, str, str] | None:
    """The first sizes that disagree, as (what came, what was expected, what to try)."""
    (heads, _, dim), (kv_heads, keys, key_dim), (value_heads, values, value_dim) = (
        spec.shape[-3:] for spec in trio
    )
    if dim != key_dim:
        hint = "key.swapaxes(-1, -2)" if keys == dim else "the key projection that belongs to this query"
        return f"query has dim {dim} and key has dim {key_dim}", "one dim for both", hint
    if dim < 1 or value_dim < 1:
        name, size = ("query", dim) if dim < 1 else ("value", value_dim)
        return (
            f"{name} has dim {size}",
            "at least 1",
            "an array with at least one column",
        )
    if keys != values:
        hint = "value.swapaxes(-1, -2)" if keys == value_dim else "slicing both to the shorter"
        return f"key has length {keys} and value has length {values}", "one length for both", hint
    if kv_heads != value_heads:
        return (
            f"key has {kv_heads} heads and value has {value_heads}",
            "one number for both",
            "broadcasting the smaller",
        )
    if heads < 1 or kv_heads < 1:
        return f"query has {heads} heads and key and value have {kv_heads}", "at least 1", "more heads"
    if heads % kv_heads:
        return (
            f"query has {heads} heads and key and value have {kv_heads}",
            "a multiple: query head h reads key head h // (query heads / key heads)",
            "repeating or dropping heads until it is one",
        )
    try:
        _batch(trio)
    except ValueError:
        came = ", ".join(f"{name} has batch {spec.shape[:-3]}" for name, spec in trio._asdict().items())
        return came, "sizes that are equal or 1", "one call for each batch"
    return None


def _batch(trio: Trio) -> Shape:
    """The batch that the three have together, or ValueError."""
    query, key, value = (spec.shape[:-3] for spec in trio)
    return query if query == key == value else np.broadcast_shapes(query, key, value)


def broadcast(spec: Spec, shape: Shape) -> Spec:
    """`spec` seen with a larger shape by NumPy's rules: axes that repeat get stride 0.

    Axes of size 1 before the last two get stride 0 as well, so that equal work has equal form.

    Raises:
        ValueError: the shapes do not broadcast; the caller says it better.
    """
    if spec.shape == shape and 1 not in shape:
        return spec
    missing = len(shape) - len(spec.shape)
    if missing < 0:
        raise ValueError(f"{spec.shape} has more axes than {shape}")
    strides = [0] * missing
    for axis, (size, stride, target) in enumerate(
        zip(spec.shape, spec.strides, shape[missing:], strict=True)
    ):
        if size not in (1, target):
            raise ValueError(f"{spec.shape} does not broadcast to {shape}")
        outer = missing + axis < len(shape) - 2
        strides.append(0 if size == 1 and (outer or target != 1) else stride)
    return Spec(shape, tuple(strides), spec.dtype)


def check_mask(spec: Spec | None, scores: Shape) -> Spec | None:
    """Booleans that broadcast to the scores, (*batch, Hq, Lq, Lk)."""
    if spec is None:
        return None
    if spec.dtype != "bool":
        hint = "mask != 0, if what is not 0 may be attended to"
        if spec.dtype in FLOATS:
            hint = (
                "bias=mask if it is added to the scores, or mask=mask > 0 if it is 1 where a query may attend"
            )
        raise TypeError(
            f"mask has dtype {spec.dtype}; expected bool, True where a query may attend to a key; try {hint}."
        )
    return _beside_scores(spec, "mask", scores)


def check_bias(spec: Spec | None, scores: Shape) -> Spec | None:
    """Floats that broadcast to the scores, (*batch, Hq, Lq, Lk)."""
    if spec is None:
        return None
    if spec.dtype not in FLOATS:
        hint = "mask=bias if it says who may attend" if spec.dtype == "bool" else "casting it to float32"
        raise TypeError(
            f"bias has dtype {spec.dtype}; expected {FLOATS_TEXT}, added to the scores; try {hint}."
        )
    return _beside_scores(spec, "bias", scores)


def _beside_scores(spec: Spec, name: str, scores: Shape) -> Spec:
    """`spec` broadcast to the scores."""
    try:
        return broadcast(spec, scores)
    except ValueError:
        raise ValueError(
            f"{name} has shape {spec.shape}; expected one that broadcasts to {scores}, which is (*batch, "
            f"query heads, queries, keys) in either layout; try {_mask_hint(spec.shape, name, scores)}."
        ) from None


def _mask_hint(shape: Shape, name: str, scores: Shape) -> str:
    """What to write instead of a mask or bias of a shape that does not broadcast."""
    batch, lengths = scores[:-3], scores[-2:]
    if shape == (*batch, scores[-1]):
        return f"{name}[..., None, None, :] for one row of keys per sequence"
    if shape == (*batch, *lengths):
        return f"{name}[..., None, :, :] for one matrix per sequence"
    if lengths[0] != lengths[1] and shape[-2:] == lengths[::-1]:
        return f"{name}.swapaxes(-1, -2)"
    if len(shape) > len(scores):
        return f"a {name} of rank {len(scores)} or less"
    return "axes of size 1 where all sequences, heads, queries or keys share it"


def check_per_head(spec: Spec | None, name: str, heads: int) -> Spec | None:
    """One float for each query head."""
    if spec is None:
        return None
    if spec.dtype not in FLOATS:
        raise TypeError(f"{name} has dtype {spec.dtype}; expected {FLOATS_TEXT}; try casting it to float32.")
    if spec.shape != (heads,):
        hint = f"{name}.reshape(-1)" if math.prod(spec.shape) == heads else "one number for each query head"
        raise ValueError(
            f"{name} has shape {spec.shape}; expected ({heads},), one number for each query head; try {hint}."
        )
    return spec


def check_per_sequence(spec: Spec, name: str, batch: Shape) -> None:
    """Ints that broadcast to the batch."""
    if not is_integer(spec.dtype):
        hint = (
            f"mask={name}[..., None, None, :] if it is a mask of the keys" if spec.dtype == "bool" else "ints"
        )
        raise TypeError(f"{name} has dtype {spec.dtype}; expected one int for each sequence; try {hint}.")
    try:
        broadcast(spec, batch)
    except ValueError:
        hint = "a single int, as there is no batch" if not batch else "one int for each sequence"
        raise ValueError(
            f"{name} has shape {spec.shape}; expected one that broadcasts to the batch, {batch}; try {hint}."
        ) from None


def check_out(spec: Spec | None, shape: Shape, dtype: str) -> None:
    """An array to write to: exactly the output's shape and type."""
    if spec is None:
        return
    if spec.dtype != dtype:
        raise TypeError(
            f"out has dtype {spec.dtype}; expected {dtype}, as query has; try an out of that dtype."
        )
    if spec.shape != shape:
        raise ValueError(f"out has shape {spec.shape}; expected {shape}; try an out of that shape.")
