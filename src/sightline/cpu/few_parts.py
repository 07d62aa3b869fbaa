"""How the values of few queries are cut: rows into pieces read at once, pieces into parts with their sums.

Plain numbers, no code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sightline.cpu.kernel import Kernel


class Piece(NamedTuple):
    """Neighbouring dimensions of a row of V that are read at once."""

    first: int
    vectors: int  # that they become: of pairs, with the next row's, 2, or 1 where there is no room for two

    def dims(self, k: Kernel, vector: int) -> list[int]:
        """Which dimension, counted from the first, stands in each lane of one of the vectors.

        Two rows are interleaved within 128 bits, where that is cheap: four dimensions to each vector in turn.
        """
        if self.vectors == 1:
            return list(range(k.lanes))
        return [lane // 4 * 8 + vector * 4 + lane % 4 for lane in range(k.lanes)]


def pieces_of(k: Kernel, columns: int) -> list[Piece]:
    """Of a whole row. Where some are left over, the last one overlaps the one before, in a place of its own."""
    most = 2 if k.key.paired and _wide(k, columns) > 1 else 1
    made, first = [], 0
    while first + k.lanes <= columns:
        made.append(Piece(first, most if first + most * k.lanes <= columns else 1))
        first += made[-1].vectors * k.lanes
    return made if first == columns else [*made, Piece(columns - k.lanes, 1)]


def _wide(k: Kernel, columns: int) -> int:
    """Vectors of a row that have their sums in registers together.

    Whole rows of few queries, or pieces of rows of many where numbers are converted, which is done once so.
    """
    most = max(1, k.tile.few // k.key.few) if k.key.widens else k.tile.few
    return min(-(-columns // k.lanes), most)


class Part(NamedTuple):
    """What has its sums in the registers together: some pieces of a row, for some queries."""

    place: int  # of the first piece in a row of the result, in vectors
    pieces: list[Piece]
    queries: range


def parts_of(k: Kernel, columns: int) -> list[Part]:
    """Of all pieces and all queries."""
    wide, shares, place = _wide(k, columns), list[tuple[int, list[Piece]]](), 0
    for piece in pieces_of(k, columns):
        if not shares or sum(p.vectors for p in shares[-1][1]) + piece.vectors > wide:
            shares.append((place, []))
        shares[-1][1].append(piece)
        place += piece.vectors
    rows = max(1, k.tile.few // wide)
    return [
        Part(first, pieces, range(i, min(i + rows, k.key.few)))
        for first, pieces in shares
        for i in range(0, k.key.few, rows)
    ]
