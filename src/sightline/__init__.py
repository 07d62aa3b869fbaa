"""Sightline: exact scaled dot-product attention on the CPU, by kernels generated for the very call."""

from sightline import fronts as _fronts
from sightline import merge_seen as _merge_seen
from sightline import see as _see
from sightline.attention import FRONTS as _FRONTS
from sightline.attention import attention
from sightline.cpu.threads import get_num_threads, set_num_threads
from sightline.explain import explain
from sightline.look import draw as _draw
from sightline.look_only import look_only
from sightline.merge import merge
from sightline.see import Received, See, Seen, TopKeys
from sightline.vjp import Gradients, attention_vjp
from sightline.watch import watch

__version__ = "0.1.0"

__all__ = [
    "Gradients",
    "Received",
    "See",
    "Seen",
    "TopKeys",
    "__version__",
    "attention",
    "attention_vjp",
    "explain",
    "get_num_threads",
    "look_only",
    "merge",
    "set_num_threads",
    "watch",
]

# What earlier rooms do through later ones, which they do not know: the front tells them.
_FRONTS["torch"] = _fronts.torch  # tensors that autograd follows are for sightline.torch
_see.do_with(plot=_draw.plot, merge=_merge_seen.merge)
