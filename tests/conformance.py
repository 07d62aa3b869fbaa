"""The conformance table: every option and corner of the definition as a named call, for any backend."""

from __future__ import annotations

import numpy as np

from cases import Case, documents, ints, lying, mask_without, per_head, random_bias, random_mask
from corners import ARRANGEMENTS, MEMORY, SPECIAL

CAUSAL = {"causal": True}

SIZES = [
    *(Case(f"length-{n}", lengths=(n, n)) for n in (1, 7, 64, 65, 197, 300)),
    *(Case(f"length-{n}-causal", lengths=(n, n), options=CAUSAL) for n in (1, 7, 64, 65, 197, 300)),
    *(
        Case(f"queries-{q}-keys-{k}", lengths=(q, k))
        for q, k in ((1, 300), (300, 1), (7, 197), (197, 7), (64, 65))
    ),
    *(Case(f"dim-{d}", lengths=(33, 70), dims=(d, d)) for d in (1, 7, 40, 64, 80, 96, 128, 192)),
    *(
        Case(f"dim-{d}-value-{v}", lengths=(33, 70), dims=(d, v))
        for d, v in ((192, 128), (64, 1), (1, 64), (7, 40))
    ),
    *(
        Case(f"heads-{q}-of-{k}", heads=(q, k), options=CAUSAL)
        for q, k in ((4, 4), (4, 2), (6, 2), (5, 1), (1, 1))
    ),
    Case("no-queries", lengths=(0, 5)),
    Case("no-keys", lengths=(5, 0)),
    Case("nothing", lengths=(0, 0)),
    Case("no-sequences", batch=(0,)),
]

RANKS = [
    Case("rank-2", heads=(1, 1), batch=(), plain=True, options=CAUSAL),
    Case("rank-3", heads=(4, 2), batch=(), options=CAUSAL),
    Case("rank-5", heads=(2, 1), batch=(2, 3), lengths=(17, 20)),
    Case("batch-broadcast", batch=(3,), key_batch=(1,), lengths=(17, 20)),
    Case("batch-broadcast-both-ways", batch=(2, 1), key_batch=(1, 3), lengths=(17, 20)),
    Case("layout-blhd", heads=(4, 2), options={"layout": "BLHD"}),
    Case("layout-blhd-rank-3", heads=(4, 2), batch=(), options={"layout": "BLHD", "causal": True}),
    Case("layout-blhd-rank-2", heads=(1, 1), batch=(), plain=True, options={"layout": "BLHD"}),
    Case("layout-blhd-mask", heads=(4, 2), options={"layout": "BLHD", "mask": random_mask("bhqk")}),
    Case(
        "layout-blhd-rank-5",
        batch=(2, 2),
        lengths=(9, 11),
        options={"layout": "BLHD", "bias": random_bias("hqk")},
    ),
]

POSITIONS = [
    *(
        Case(f"causal-{q}-{k}-offset-{n}", lengths=(q, k), options={"causal": True, "query_offset": n})
        for q, k, n in (
            (65, 130, 0),
            (65, 130, 65),
            (130, 65, 0),
            (130, 65, -65),
            (7, 300, 290),
            (5, 5, -3),
            (5, 9, 40),
        )
    ),
    *(
        Case(f"window-{left}-{right}", lengths=(130, 130), options={"window": (left, right)})
        for left, right in (
            (3, 0),
            (0, 0),
            (None, 5),
            (5, None),
            (16, 16),
            (64, 0),
            (0, 64),
            (200, 200),
            (None, None),
        )
    ),
    Case("window-causal", lengths=(130, 130), options={"causal": True, "window": (8, 4)}),
    Case("window-causal-half-open", lengths=(300, 300), options={"causal": True, "window": (70, None)}),
    Case("window-offset", lengths=(40, 300), options={"window": (32, 16), "query_offset": 100}),
    Case("window-out-of-sight", lengths=(5, 9), options={"window": (2, 2), "query_offset": 1000}),
    Case("window-before-the-keys", lengths=(9, 9), options={"window": (2, 2), "query_offset": -5}),
    Case("offsets", batch=(3,), lengths=(7, 65), options={"causal": True, "query_offset": ints(0, 58, -4)}),
    Case(
        "offsets-window",
        batch=(3,),
        lengths=(7, 65),
        options={"window": (9, 3), "query_offset": ints(0, 30, 70)},
    ),
    Case("key-lengths", batch=(4,), lengths=(9, 130), options={"key_lengths": ints(0, 1, 77, 130)}),
    Case("key-length-for-all", batch=(3,), options={"key_lengths": 40}),
    Case("key-lengths-causal", batch=(3,), options={"causal": True, "key_lengths": ints(65, 10, 0)}),
    Case(
        "decode",
        batch=(4,),
        heads=(8, 2),
        lengths=(1, 197),
        options={"causal": True, "key_lengths": ints(1, 50, 128, 197), "query_offset": ints(0, 49, 127, 196)},
    ),
    Case(
        "chunk-window-lengths",
        batch=(2, 2),
        lengths=(16, 100),
        options={
            "window": (20, 0),
            "key_lengths": lambda *_: np.array([[16, 40], [100, 7]]),
            "query_offset": lambda *_: np.array([[0], [24]]),
        },
    ),
]

MASKS = [
    *(
        Case(f"mask-{axes}", batch=(3,), lengths=(65, 130), options={"mask": random_mask(axes)})
        for axes in ("qk", "hqk", "bqk", "bhqk", "bk", "k", "q", "bq", "hk", "b", "h")
    ),
    Case("mask-sparse", lengths=(197, 197), options={"mask": random_mask("hqk", 0.02)}),
    Case("mask-dense", lengths=(197, 197), options={"mask": random_mask("bqk", 0.98)}),
    Case("mask-none", options={"mask": random_mask("qk", 0.0)}),
    Case("mask-all", options={"mask": random_mask("qk", 1.0)}),
    Case("mask-one-sequence-dark", options={"mask": lambda *_: np.array([True, False])[:, None, None, None]}),
    Case("mask-documents", lengths=(300, 300), options={"mask": documents(7)}),
    Case("mask-documents-causal", lengths=(300, 300), options={"mask": documents(3), "causal": True}),
    Case("mask-empty-rows", options={"mask": mask_without(0, 1, 17, 64)}),
    *(
        Case(f"mask-{lie.__name__}", lengths=(65, 70), options={"mask": lying(lie, random_mask("hqk"))})
        for lie in ARRANGEMENTS
    ),
    Case("mask-causal-window", options={"mask": random_mask("hqk"), "causal": True, "window": (20, 0)}),
    Case("mask-key-lengths", options={"mask": random_mask("bqk"), "key_lengths": ints(33, 64)}),
    Case("mask-gqa", heads=(6, 2), options={"mask": random_mask("hqk")}),
    Case("mask-rank-2", heads=(1, 1), batch=(), plain=True, options={"mask": random_mask("qk")}),
]

SCORES = [
    *(
        Case(f"bias-{axes}", batch=(3,), lengths=(33, 70), options={"bias": random_bias(axes)})
        for axes in ("qk", "hqk", "bqk", "bhqk", "bk", "k", "q", "h")
    ),
    *(
        Case(f"bias-{kind}", options={"bias": random_bias("hqk", kind)})
        for kind in ("float64", "float32", "float16", "bfloat16")
    ),
    Case("bias-hidden", options={"bias": random_bias("bhqk", hidden=0.5)}),
    Case("bias-all-hidden", options={"bias": random_bias("qk", hidden=1.0)}),
    *(
        Case(f"bias-{lie.__name__}", lengths=(65, 70), options={"bias": lying(lie, random_bias("hqk"))})
        for lie in ARRANGEMENTS
    ),
    Case("bias-gqa", heads=(6, 2), options={"bias": random_bias("hqk")}),
    Case(
        "bias-causal-mask", options={"bias": random_bias("hqk"), "causal": True, "mask": random_mask("bqk")}
    ),
    *(Case(f"scale-{scale}", options={"scale": scale}) for scale in (0.0, -0.5, 1.0, 4.0)),
    # Sums are kept in two levels: around the places where the first is put aside.
    *(Case(f"keys-{keys}", lengths=(5, keys), dims=(16, 16)) for keys in (960, 961, 1024, 1025, 2100)),
    Case("keys-2100-causal", lengths=(70, 2100), dims=(16, 7), options={"causal": True, "query_offset": 980}),
    Case(
        "keys-2100-everything",
        lengths=(70, 2100),
        dims=(16, 16),
        spread=4.0,
        options={"window": (1500, 0), "query_offset": 1990, "sinks": per_head(0.5, 1.0)},
    ),
    Case("scores-large", spread=8.0),
    Case("scores-large-causal", spread=8.0, lengths=(197, 197), options=CAUSAL),
    # Where PyTorch sums the products of a score in several chains.
    Case("scores-large-one-query", spread=8.0, lengths=(1, 300), dims=(128, 128)),
    Case("scores-large-dim-256", spread=8.0, lengths=(70, 100), dims=(256, 256)),
    Case("scores-huge", spread=1e3, lengths=(33, 33), dims=(16, 16)),
    Case("scores-tiny", spread=1e-4),
    *(Case(f"softcap-{cap}", spread=4.0, options={"softcap": cap}) for cap in (0.25, 5.0, 50.0)),
    Case("softcap-mask", spread=4.0, options={"softcap": 5.0, "mask": random_mask("hqk")}),
    Case("softcap-bias", spread=4.0, options={"softcap": 5.0, "bias": random_bias("hqk", hidden=0.2)}),
    Case("sinks", heads=(3, 1), options={"sinks": per_head(0.0, 5.0, -3.0)}),
    Case(
        "sinks-causal-window",
        heads=(2, 2),
        options={"sinks": per_head(1.0, 9.0), "causal": True, "window": (8, 0)},
    ),
    Case("sinks-empty-rows", options={"sinks": per_head(0.5, -2.0), "mask": mask_without(0, 5)}),
    Case("sinks-no-keys", lengths=(5, 0), options={"sinks": per_head(0.5, -2.0)}),
    Case("sinks-absent", options={"sinks": per_head(-np.inf, 1.0), "mask": mask_without(3)}),
    Case("sinks-large", options={"sinks": per_head(300.0, -300.0)}),
    Case("alibi", heads=(2, 1), options={"alibi_slopes": per_head(0.5, 0.0625)}),
    Case("alibi-causal", lengths=(197, 197), options={"alibi_slopes": per_head(0.5, 0.0), "causal": True}),
    Case(
        "alibi-offset", lengths=(9, 130), options={"alibi_slopes": per_head(0.25, -0.01), "query_offset": 100}
    ),
    Case(
        "alibi-offsets-lengths",
        lengths=(5, 70),
        options={"alibi_slopes": per_head(0.2, 0.1), "query_offset": ints(3, 65), "key_lengths": ints(8, 70)},
    ),
    Case(
        "everything",
        heads=(4, 2),
        batch=(3,),
        lengths=(40, 150),
        dims=(40, 24),
        options={
            "mask": random_mask("bqk", 0.8),
            "bias": random_bias("hqk", hidden=0.1),
            "causal": True,
            "window": (60, 0),
            "query_offset": ints(0, 60, 110),
            "key_lengths": ints(30, 101, 150),
            "scale": 0.3,
            "softcap": 4.0,
            "sinks": per_head(0.0, 1.0, -1.0, 2.0),
            "alibi_slopes": per_head(0.1, 0.05, 0.025, 0.0125),
            "dropout_p": 0.3,
            "seed": 2**64 - 7,
            "layout": "BLHD",
        },
    ),
]

CASES = [*SIZES, *RANKS, *POSITIONS, *MASKS, *SCORES, *MEMORY, *SPECIAL]
