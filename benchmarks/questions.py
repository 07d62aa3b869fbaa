"""What is asked of the weights, by name, and what asking may cost: times the same call without a question.

A question is a peer of the plain call, so that both take turns in the same rounds. The last two are PyTorch's ways
to the answer of "as eager".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from benchmarks.peers import Peer
from sightline import Received, See

if TYPE_CHECKING:
    from benchmarks.peers import Prepare

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Question(Peer):
    """One row of the table."""

    see: See | None = None
    at_most: float | None = None

    def prepare(self) -> Prepare:
        """The function that prepares a case; imports the library."""
        return cast("Prepare", partial(cast("Any", super().prepare()), self.see))


def _ours(name: str, see: See | None, at_most: float | None = None) -> Question:
    return Question(name, "seeing:ours", "sightline", DTYPES, see=see, at_most=at_most)


_PER_QUERY = See(lse=True, max_score=True, entropy=True, distance=True)
AS_EAGER = See(entropy=True, received=True, top_keys=8)
_ALL = [
    _ours("plain", None),
    _ours("lse + max_score", See(lse=True, max_score=True), 1.02),
    _ours("+ entropy + distance", _PER_QUERY, 1.15),
    _ours("+ received", See(True, True, True, True, received=True), 1.7),  # noqa: FBT003 - the four of _PER_QUERY
    _ours("+ top 8 + pooled", See(True, True, True, True, True, 8, (256, 256)), 2.2),  # noqa: FBT003
    _ours("SnapKV window", See(received=Received(queries=slice(-64, None))), 1.05),
    _ours("as eager", AS_EAGER),
    _ours("everything", See(True, True, True, True, True, 8, (256, 256), (0, -1), diagonals=True)),  # noqa: FBT003
    Question("torch eager", "seeing_torch:eager", "torch", DTYPES, see=AS_EAGER),
    Question("torch in chunks", "seeing_torch:in_chunks", "torch", DTYPES, see=AS_EAGER),
]
QUESTIONS = {question.name: question for question in _ALL}
TORCH = ("torch eager", "torch in chunks")

FASTER_THAN_EAGER = 8.0
LESS_MEMORY_THAN_EAGER = 50.0
MOST_MEMORY = 200.0
"""MiB that "everything" may take at a length of 131,072, one head, beyond inputs and outputs."""
