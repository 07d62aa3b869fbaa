"""exp2, tanh and log2 for vectors, lane by lane, with the errors stated here and tested.

The polynomials are minimax (Remez) in relative error; log2's is its series. Every function keeps NaN.

| function | float32 | float64 | error measured over the whole range, in units of the last place |
|---|---|---|---|
| exp2(x), x ≤ 0 | degree 6 | degree 11 | ≤ 1.0; on AVX-512 ≤ 1.1, just below x = 0 ≤ 1.5 |
| exp2(x), for one or two terms | degree 4 | – | ≤ 56 (3.3e-6) |
| tanh(x) | degree 5 | degree 10 | ≤ 4.2 (tanh −0 = +0) |
| log2(x), x > 0 and normal | 6 terms | 12 terms | ≤ 1.0; between 1/2 and 2 ≤ 3.0; of powers of two none |

Where 2^x is under the smallest normal number, exp2 gives that subnormal on AVX-512, and 0 elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sightline.cpu.kinds import BYTE, DOUBLE, FLOAT, I16, I32, bytes_of, scalar

if TYPE_CHECKING:
    from sightline.cpu.values import Value

LOG2_E = math.log2(math.e)


@dataclass(frozen=True)
class _Format:
    """What the algorithms need to know of a floating-point format."""

    mantissa: int  # bits after the point
    bias: int  # of the exponent
    lowest: float  # least exponent of a normal number
    saturation: float  # |x| beyond which tanh x rounds to ±1
    exp2: tuple[float, ...]  # 2^f on [−1/2, 1/2], relative error 1.9e-9 / 3.1e-18
    exp2_floor: tuple[float, ...]  # the same on [0, 1]
    log2_terms: int  # of the series of log2, until they no longer count
    exp2m1: tuple[float, ...]  # (2^f − 1) / f, relative error 1.1e-8 / 1.8e-17

    @property
    def log2(self) -> tuple[float, ...]:
        """What t to the 2n is multiplied by in the series of log2: 2 / (ln 2 · (2n + 1))."""
        return tuple(2 * LOG2_E / (2 * n + 1) for n in range(self.log2_terms))


_FORMATS = {
    FLOAT: _Format(
        mantissa=23,
        bias=127,
        lowest=-126.0,
        saturation=9.2,
        log2_terms=6,
        exp2=(
            1.0000000005541663,
            0.6931472057372526,
            0.24022646890639573,
            0.055503287769976636,
            0.009618488956522791,
            0.001339993120947414,
            0.00015345812158740183,
        ),
        exp2_floor=(
            1.0000000018557977,
            0.6931469838404387,
            0.24022983627589423,
            0.05548334197771016,
            0.009678841007043672,
            0.0012439687747148747,
            0.00021702255680520308,
        ),
        exp2m1=(
            0.6931471879266856,
            0.2402264979496441,
            0.05550357433648187,
            0.009618237494183314,
            0.0013390735475399872,
            0.00015403512618661003,
        ),
    ),
    DOUBLE: _Format(
        mantissa=52,
        bias=1023,
        lowest=-1022.0,
        saturation=19.2,
        log2_terms=12,
        exp2=(
            1.0,
            0.6931471805599453,
            0.24022650695910155,
            0.055504108664819925,
            0.009618129107588335,
            0.001333355814678995,
            0.00015403530462514614,
            1.5252733489960805e-05,
            1.321543308959463e-06,
            1.0178198033328528e-07,
            7.074105626245659e-09,
            4.4352809446103363e-10,
        ),
        exp2_floor=(
            1.0,
            0.6931471805599463,
            0.2402265069590547,
            0.05550410866571114,
            0.009618129098792621,
            0.0013333558661575758,
            0.00015403511446490553,
            1.5253190248831244e-05,
            1.3208193495747122e-06,
            1.0254457379014551e-07,
            6.554457162654839e-09,
            6.27243446480289e-10,
        ),
        exp2m1=(
            0.6931471805599453,
            0.24022650695910097,
            0.055504108664821236,
            0.009618129107607065,
            0.0013333558146531644,
            0.00015403530441481284,
            1.5252733701200714e-05,
            1.3215442723878389e-06,
            1.0178121305806717e-07,
            7.072561768398301e-09,
            4.445536131848176e-10,
        ),
    ),
}


# 2^f on [0, 1], exact at both ends, relative error 3.3e-6: for weights that become one or two bfloat16 terms.
_COARSE = (1.0, 0.6930321208204105, 0.24137976291565472, 0.05203236906373544, 0.013555747200199308)


def exp2(x: Value, terms: int = 0) -> Value:
    """Two to the x, for x ≤ 0: 2^n · 2^f with n an integer. −inf gives 0.

    With so many `terms` no better than a sum of them is, and for float32 and AVX-512 alone.
    """
    form = _FORMATS[scalar(x.kind)]
    if _has_scalef(x):  # n = floor(x): vreduce gives f = x − n, vscalef multiplies by 2^n
        return _scaled(_polynomial(_fraction(x), _COARSE if terms in {1, 2} else form.exp2_floor), x)
    power, f = _split(x, form)  # n = the nearest integer
    return (x < form.lowest).where(0.0, _polynomial(f, form.exp2) * power)


def tanh(x: Value) -> Value:
    """Tanh x = e / (e + 2) with e = exp(2x) − 1, made without cancellation near 0."""
    form = _FORMATS[scalar(x.kind)]
    x = (x > form.saturation).where(form.saturation, x)
    x = (x < -form.saturation).where(-form.saturation, x)
    power, f = _split(x * (2 * LOG2_E), form)
    e = (_polynomial(f, form.exp2m1) * f).fma(power, power - 1.0)  # 2^n·(2^f − 1) + (2^n − 1)
    return e / (e + 2.0)


def log2(x: Value) -> Value:
    """The logarithm to base 2 of a normal number x > 0: e + log2 m, with x = 2^e · m and √½ ≤ m < √2."""
    form = _FORMATS[scalar(x.kind)]
    root = x.f.value(math.sqrt(0.5), x.kind).bits()
    biased = (x.bits() - root + (form.bias << form.mantissa)) >> form.mantissa
    e = biased - form.bias
    m = (x.bits() - (e << form.mantissa)).as_bits_of(x.kind)
    t = (m - 1.0) / (m + 1.0)  # log m = 2 (t + t³/3 + t⁵/5 + …), |t| ≤ 0.172
    result = t.fma(_polynomial(t * t, form.log2), e.to(scalar(x.kind)))
    return (x == x).where(result, x)  # noqa: PLR0124 (NaN)


def _polynomial(f: Value, coefficients: tuple[float, ...]) -> Value:
    """Horner's rule."""
    y = f.f.value(coefficients[-1], f.kind)
    for c in reversed(coefficients[:-1]):
        y = y.fma(f, c)
    return y


def _split(x: Value, form: _Format) -> tuple[Value, Value]:
    """2^n and f with x = n + f, |f| ≤ 1/2, for |n| within the exponent's range.

    Adding 1.5·2^mantissa rounds x to an integer that stands in the low bits: shifted, it is an exponent.
    """
    magic = 1.5 * 2.0**form.mantissa + form.bias
    shifted = x + magic
    power = (shifted.bits() << form.mantissa).as_bits_of(x.kind)
    return power, x - (shifted - magic)


def _has_scalef(x: Value) -> bool:
    return x.f.isa.vector_bytes == bytes_of(x.kind) == 64


def _masked(x: Value) -> tuple[str, Value, Value]:
    """Suffix, all-ones mask and rounding mode of AVX-512's masked intrinsics."""
    single = scalar(x.kind) == FLOAT
    f = x.f
    return ("ps" if single else "pd"), f.value(-1, I16 if single else BYTE), f.value(4, I32)


def _fraction(x: Value) -> Value:
    """X − floor(x)."""
    suffix, mask, current_rounding = _masked(x)
    to_floor = x.f.value(9, I32)
    return x.f.intrinsic(
        f"llvm.x86.avx512.mask.reduce.{suffix}.512", x.kind, x, to_floor, x, mask, current_rounding
    )


def _scaled(y: Value, x: Value) -> Value:
    """Y · 2^floor(x), down to subnormals and zero."""
    suffix, mask, current_rounding = _masked(x)
    return x.f.intrinsic(f"llvm.x86.avx512.mask.scalef.{suffix}.512", x.kind, y, x, y, mask, current_rounding)
