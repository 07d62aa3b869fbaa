"""Joining attention over parts of the keys into attention over all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import arrays
from sightline.options import LAYOUTS, word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def merge(outputs: Sequence[Any], lses: Sequence[Any], *, layout: str = "BHLD") -> tuple[Any, Any]:
    """Σ_i output_i · exp(lse_i − lse), with lse = log Σ_i exp(lse_i): what one call over all keys would give.

    Each part attends to keys of its own (a chunk of a cache, another machine's share) with the same queries and
    options. A sink counts in every part that has it: give it to one.

    Args:
        outputs: one array (…, Hq, Lq, Dv) for each part, floating; as `layout` says.
        lses: their log-sum-exps (…, Hq, Lq), natural logarithm, as `see=("lse",)` gives them. A part in which a
            query saw no key has −inf there, and its output is not looked at.
        layout: "BHLD", or "BLHD" for outputs (…, Lq, Hq, Dv).

    Returns:
        The output in the first output's dtype and kind of array, and the lse. A query that saw no key in any part
        has output 0 and lse −inf.

    Raises:
        TypeError, ValueError: what came, what was expected, and what to try.

    Example:
        >>> import numpy as np, sightline
        >>> q, k, v = np.random.default_rng(0).standard_normal((3, 4, 100, 16))
        >>> parts = [sightline.attention(q, k[:, s], v[:, s], see=["lse"]) for s in (slice(30), slice(30, 100))]
        >>> output, lse = sightline.merge([out for out, _ in parts], [seen.lse for _, seen in parts])
        >>> np.allclose(output, sightline.attention(q, k, v), rtol=0, atol=1e-14)
        True
    """
    word(layout, "layout", LAYOUTS)
    views = [_view(x, f"outputs[{i}]") for i, x in enumerate(outputs)]
    weights = [_view(x, f"lses[{i}]") for i, x in enumerate(lses)]
    _check(views, weights, layout)
    wide = np.float64 if views[0].dtype == np.float64 else np.float32
    output = np.zeros(views[0].shape, wide)
    each, joined = shares(weights)
    for part, share in zip(views, each, strict=True):
        factor = _beside(share, layout)
        output += np.where(factor == 0, 0, part.astype(wide) * factor)
    return _given_back(outputs[0], output, views[0].dtype.name), _given_back(
        lses[0], joined, joined.dtype.name
    )


@np.errstate(invalid="ignore", divide="ignore")  # a NaN, or a sink of +∞, makes NaN of its row
def shares(lses: Sequence[NDArray[Any]]) -> tuple[list[NDArray[Any]], NDArray[Any]]:
    """exp(lse_i − lse) of each part, 0 where it saw nothing, and lse = log Σ_i exp(lse_i).

    Shares add up to 1 also where lse itself is too large to tell the parts apart.
    """
    highest = np.max(lses, axis=0)
    shift = np.where(np.isneginf(highest), 0.0, highest).astype(highest.dtype)
    weights = [np.exp(lse - shift) for lse in lses]
    total = sum(weights, np.zeros(highest.shape, highest.dtype))
    some = total != 0
    return [np.divide(w, total, out=np.zeros_like(w), where=some) for w in weights], shift + np.log(total)


def _view(x: Any, name: str) -> NDArray[Any]:
    return arrays.to_numpy(arrays.view(x, name))


def _beside(per_query: NDArray[Any], layout: str) -> NDArray[Any]:
    """(…, H, L) as a factor of outputs: (…, H, L, 1) or (…, L, H, 1)."""
    turned = layout == "BLHD" and per_query.ndim > 1
    return (per_query.swapaxes(-2, -1) if turned else per_query)[..., None]


def _check(outputs: list[NDArray[Any]], lses: list[NDArray[Any]], layout: str) -> None:
    if not outputs or len(outputs) != len(lses):
        raise ValueError(
            f"there are {len(outputs)} outputs and {len(lses)} lses; expected one lse for each output."
        )
    for i, (output, lse) in enumerate(zip(outputs, lses, strict=True)):
        if output.shape != outputs[0].shape or output.dtype != outputs[0].dtype:
            raise ValueError(
                f"outputs[{i}] is {output.dtype} {output.shape} and outputs[0] {outputs[0].dtype} "
                f"{outputs[0].shape}; expected the same of all parts."
            )
        if output.dtype.name not in {"float64", "float32", "float16", "bfloat16"}:
            raise TypeError(
                f"outputs[{i}] has dtype {output.dtype}; expected floating point; try casting it."
            )
        if _beside(lse, layout).shape != (*output.shape[:-1], 1) or lse.dtype.name not in {
            "float32",
            "float64",
        }:
            raise ValueError(
                f"lses[{i}] is {lse.dtype} {lse.shape}; expected float32 or float64 of shape (…, heads, queries) "
                f'for outputs of shape {output.shape} with layout="{layout}"; try the lse that see=("lse",) gave.'
            )


def _given_back(like: Any, made: NDArray[Any], dtype: str) -> Any:
    result = arrays.empty_like(like, made.shape, dtype)
    _view(result, "result")[...] = made
    return arrays.give_back(like, result)
