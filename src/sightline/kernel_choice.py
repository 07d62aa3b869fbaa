"""Which kernel a problem is given. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.kernel_key import MATRIX_KEYS, MATRIX_ROWS, SIZES, KernelKey

if TYPE_CHECKING:
    from sightline.arrays import Spec
    from sightline.cpu.isa import Isa
    from sightline.problem import Problem

MOST_FEW = 8  # query rows of a space up to which keys are put in lanes instead
MATRIX_FEW = 8  # with so few queries most of a matrix unit's tile would be empty
# By terms: query rows and head sizes from which the unit was measured to be faster than multiply-adds.
MATRIX_WORTH = {1: (MATRIX_FEW + 1, 12), 2: (MATRIX_FEW + 1, 16), 3: (256, 24)}


def kernel_for(
    p: Problem, isa: Isa, see: tuple[str, ...], gradients: tuple[str, ...], *,
    listed: bool, values: bool, first: KernelKey | None,
) -> KernelKey:  # fmt: skip
    """The kernel of a pass, but for whether its keys are split.

    The parameters are those of `plan`; listed: the pass is about chosen heads and queries.
    """
    paired = p.dtype == "bfloat16" and isa.multiplies_pairs
    few = 0 if listed or gradients else _few(p, isa, paired=paired, values=values)
    on_unit = values and p.value_dim > 0
    terms = first.terms if first is not None else _terms(p, isa, few) if on_unit else 0
    modified = p.softcap is not None or p.bias is not None or p.alibi_slopes is not None
    in_place = few > 0 or terms > 0
    return KernelKey(
        dtype=p.dtype,
        dim=p.dim,
        value_dim=p.value_dim if values else 0,
        tile_keys=max(_tile_keys(p), MATRIX_KEYS) if terms else _tile_keys(p),
        stage_key=not in_place and (not _in_pairs(p.key) if paired else _staged(p.key)),
        # To be multiplied by dO, values are read as keys are.
        stage_value=not _in_pairs(p.value)
        if paired and gradients
        else values and not in_place and _staged(p.value),
        paired=paired,
        banded=p.band.left is not None or p.band.right is not None,
        mask=p.mask is not None,
        bias=p.bias.dtype if p.bias is not None else None,
        # The largest exponent belongs to the largest score only if the scale is positive.
        scaled=modified or p.scale <= 0,
        softcap=p.softcap is not None,
        alibi=p.alibi_slopes is not None,
        sinks=p.sinks is not None and first is None,
        dropout=p.dropout_p > 0 and values and first is None,
        few=few,
        see=see,
        listed=listed,
        gradients=gradients,
        terms=terms,
    )


def _few(p: Problem, isa: Isa, *, paired: bool, values: bool) -> int:
    """Rows of the kernel for few rows, where that is the one to take."""
    rows = p.queries * p.group
    lanes = isa.lanes(8 if p.dtype == "float64" else 4)
    read = (p.key, p.value) if values else (p.key,)
    in_place = all(spec.strides[-1] == SIZES[p.dtype] for spec in read)
    wide = p.dim >= lanes * (2 if paired else 1) and (p.value_dim >= lanes or not values)
    if not 0 < rows <= MOST_FEW or not in_place or not wide or (paired and p.dim % 2):
        return 0
    return 1 << (rows - 1).bit_length()


def _terms(p: Problem, isa: Isa, few: int) -> int:
    """Bfloat16 terms of each number, where the products are for the matrix unit.

    Three hold a float32 to its last bit, two a float16. A scale that makes lost bits count is left to others.
    Of `few` rows it takes bfloat16 alone, whose keys it can read where they lie.
    """
    tame = 2.0**-40 <= abs(p.scale) <= 2.0**40
    if not isa.multiplies_tiles or p.dtype == "float64" or not tame:
        return 0
    by_precision = {"highest": 3, "high": 2, "default": 1}
    terms = {"float32": by_precision[p.precision], "float16": 2, "bfloat16": 1}[p.dtype]
    least_rows, least_dim = MATRIX_WORTH[terms]
    if few:
        return terms if p.dtype == "bfloat16" and p.dim % MATRIX_KEYS == 0 else 0
    rows = p.queries * (p.group if p.queries < MATRIX_ROWS else 1)
    return terms if rows >= least_rows and p.dim >= least_dim else 0


def _staged(rows: Spec) -> bool:
    """Whether the kernel cannot read these rows of K or V in place."""
    return rows.dtype in {"float16", "bfloat16"} or (
        rows.strides[-1] != SIZES[rows.dtype] and rows.shape[-1] > 1
    )


def _in_pairs(rows: Spec) -> bool:
    """Whether rows of bfloat16 can be read as pairs where they lie."""
    return rows.shape[-1] % 2 == 0 and rows.strides[-1] == SIZES[rows.dtype]


def _tile_keys(p: Problem) -> int:
    """64 keys; fewer where a tile of long rows would push everything else out of the cache."""
    longest = max(p.dim, p.value_dim)
    return 64 if longest <= 256 else 32 if longest <= 2048 else 16
