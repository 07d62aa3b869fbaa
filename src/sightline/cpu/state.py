"""What rows know of the keys they have met, their state: m, l, O and statistics. States of different keys join.

Keys are taken in periods of PERIOD_TILES tiles. A period begins with a state that has seen nothing and a maximum
of its own; then it joins what was kept of the periods before it:

    m = max(m₁, m₂)     l = l₁·2^(m₁ − m) + l₂·2^(m₂ − m)     O likewise

So sums over very many keys keep their digits (one sum would lose some at every tile), and any thread may take
any period: wherever its state was put meanwhile, it joins at its turn, and the bits are the same.

The state at work is in the workspace's parts high, sum, output, …, the kept one in kept_high, kept_sum, ….
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import statistics
from sightline.cpu.kinds import ADDRESS, INT, NEGATIVE_INFINITY
from sightline.cpu.softmax import at_least, seen_nothing
from sightline.cpu.vmath import LOG2_E, exp2
from sightline.cpu.workspace import STATISTICS

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Value


def _nothing(k: Kernel) -> dict[str, float]:
    """The parts of a state that are one number for each row, and what they are when nothing has been seen."""
    parts = {"high": NEGATIVE_INFINITY, "sum": 0.0, **(dict.fromkeys(STATISTICS, 0.0) if k.key.see else {})}
    parts |= {"seen_sum": 0.0} if k.key.see and k.key.in_halves else {}
    return parts | ({"best": NEGATIVE_INFINITY} if k.key.see else {})


def clear(k: Kernel, *, kept: str = "") -> Function:
    """M = −inf, l = 0, O = 0, of the state at work or of the kept one. Parameters: workspace, vectors of rows."""
    with k.module.function(f"{kept}clear", ADDRESS, INT) as f:
        w, vectors = f.arguments()
        output = k.table(w, f"{kept}output")
        with f.loop(0, vectors, name="clear") as g:
            for part, nothing in _nothing(k).items():
                k.table(w, kept + part)[g] = f.value(nothing, k.vec)
            with f.loop(0, k.key.value_dim, name="dim") as d:
                output[d, g] = f.zeros(k.vec)
    return f


def keep_sinks(k: Kernel, f: Function, a: Pointer, w: Pointer, vectors: Value, *, careful: bool) -> None:
    """A sink is a key that has a weight and no value: m = sink and l = 1 are kept before the first period."""
    unit = f.value(LOG2_E, k.vec) / k.number(a, "exponent") if careful else LOG2_E
    with f.loop(0, vectors, name="sinks") as g:
        s = k.table(w, "sink")[g] * unit
        k.table(w, "kept_high")[g] = s
        # NaN for a sink of NaN or +inf.
        for part in _nothing(k).keys() & {"sum", "seen_sum"}:
            k.table(w, f"kept_{part}")[g] = (s == NEGATIVE_INFINITY).where(0.0, s.fma(0.0, 1.0))


def join(k: Kernel, *, careful: bool) -> Function:
    """The state at work joins the kept one, and work begins anew.

    Parameters: arguments, workspace, vectors of rows.
    """
    with k.module.function("join.careful" if careful else "join", ADDRESS, ADDRESS, INT) as f:
        a, w, vectors = f.arguments()
        with f.loop(0, vectors, name="rows") as g:
            highs = [k.table(w, f"{kept}high")[g] for kept in ("kept_", "")]
            m = highs[1].max(highs[0])
            shift = seen_nothing(m).where(0.0, m)
            sides = []
            for high in highs:
                climbed = (high - shift) * k.number(a, "exponent") if careful else high - shift
                faded = exp2(climbed)
                sides.append((climbed, at_least(k, faded, seen_nothing(high), 0.0) if careful else faded))
            if k.key.see:
                statistics.join(k, w, g, sides)
            k.table(w, "kept_high")[g] = m
            kept_fade, fade = (faded for _, faded in sides)

            def add(part: str, *index: Value) -> None:
                recent, kept = k.table(w, part), k.table(w, f"kept_{part}")
                kept[index] = kept[index].fma(kept_fade, recent[index] * fade)
                recent[index] = f.zeros(k.vec)

            for part in ("sum", "seen_sum"):
                if part in _nothing(k):
                    add(part, g)
            with f.loop(0, k.key.value_dim, name="dim") as d:
                add("output", d, g)
            for part, nothing in _nothing(k).items():
                k.table(w, part)[g] = f.value(nothing, k.vec)
    return f


def take_up(k: Kernel) -> Function:
    """The kept state is the one at work. Parameters: workspace, vectors of rows."""
    with k.module.function("take_up", ADDRESS, INT) as f:
        w, vectors = f.arguments()
        output, kept = k.table(w, "output"), k.table(w, "kept_output")
        with f.loop(0, vectors, name="rows") as g:
            for part in _nothing(k):
                k.table(w, part)[g] = k.table(w, f"kept_{part}")[g]
            with f.loop(0, k.key.value_dim, name="dim") as d:
                output[d, g] = kept[d, g]
    return f


def moved(k: Kernel, *, out: bool) -> Function:
    """The state at work is copied from the workspace to another place, or (`out`) back from there.

    Parameters: workspace, vectors of rows, the other place.
    """
    with k.module.function("take_out" if out else "put_away", ADDRESS, INT, ADDRESS) as f:
        w, vectors, place = f.arguments()
        row = vectors * k.vector_bytes

        def move(part: str, number: Value | int, *index: Value) -> None:
            table, at = k.table(w, part), place + f.value(number) * row + index[-1] * k.vector_bytes
            if out:
                table[index] = at.load(k.vec)
            else:
                at.store(table[index])

        with f.loop(0, vectors, name="rows") as g:
            for number, part in enumerate(_nothing(k)):
                move(part, number, g)
        with f.loop(0, k.key.value_dim, name="dim") as d, f.loop(0, vectors, name="rows") as g:
            move("output", d + len(_nothing(k)), d, g)
    return f
