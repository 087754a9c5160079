#!/usr/bin/env python3
"""Writes tests/numerics/golden/rope.json: the RoPE frequencies and attention factors of each scaling
rule with the figures of released models, as mlx_lm's own classes compute them (in f32, tolerance
accordingly). What mlx_lm lacks comes from the formulas of transformers' modeling_rope_utils in
numpy: dynamic frequencies, yarn without truncation, longrope's short factors. Run from the
repository root with the reference packages of tests/requirements.txt:

    .venv/bin/python tools/golden_rope.py
"""

import json
import math
from importlib.metadata import version

import numpy as np
from mlx_lm.models.rope_utils import Llama3RoPE, SuScaledRoPE, YarnRoPE

LONG = [1.0 + 0.37 * j for j in range(24)]
SHORT = [1.0 + 0.01 * j for j in range(24)]


def plain(dim, base):
    return base ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)


def of_periods(rope):
    return 1 / np.array(rope._freqs, dtype=np.float64)


def case(rule, rotary_dim, rope_theta, inv_freq, attention_factor=1.0, sequence=1, **figures):
    return {
        "rule": rule, "rotary_dim": rotary_dim, "rope_theta": rope_theta, "sequence": sequence,
        "figures": figures, "inv_freq": [float(f"{x:.9g}") for x in inv_freq],
        "attention": float(f"{attention_factor:.9g}"),
    }


def llama3(dim, base, **figures):
    rope = Llama3RoPE(dim, base=base, scaling_config=figures)
    return case("llama3", dim, base, of_periods(rope), **figures)


def yarn(dim, base, factor, original, **figures):
    rope = YarnRoPE(dim, base=base, scaling_factor=factor,
                    original_max_position_embeddings=original, **figures)
    return case("yarn", dim, base, of_periods(rope), rope.mscale, factor=factor,
                original_max_position_embeddings=original, **figures)


def yarn_untruncated(dim, base, factor, original):
    def at(turns):
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(at(32), 0), min(at(1), dim - 1)
    ramp = np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)
    inv_freq = plain(dim, base) * (1 - ramp) + plain(dim, base) / factor * ramp
    return case("yarn", dim, base, inv_freq, 0.1 * math.log(factor) + 1, factor=factor,
                original_max_position_embeddings=original, truncate=False)


def dynamic(dim, base, factor, trained, sequence):
    length = max(sequence, trained)
    grown = base * ((factor * length / trained) - (factor - 1)) ** (dim / (dim - 2))
    return case("dynamic", dim, base, plain(dim, grown), sequence=sequence, factor=factor,
                max_position_embeddings=trained)


def longrope(sequence):
    rope = SuScaledRoPE(48, 10000.0, 131072, 4096, SHORT, LONG)
    inv_freq = of_periods(rope) if sequence > 4096 else plain(48, 10000.0) / np.array(SHORT)
    return case("longrope", 48, 10000.0, inv_freq, rope._scale, sequence, factor=32.0,
                original_max_position_embeddings=4096, long_factor=LONG, short_factor=SHORT)


cases = [
    case("default", 64, 10000.0, plain(64, 10000.0)),
    case("default", 64, 1e7, plain(64, 1e7)),
    case("linear", 32, 1e6, plain(32, 1e6) / 8, factor=8.0),
    llama3(128, 500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
           original_max_position_embeddings=8192),
    llama3(64, 500000.0, factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
           original_max_position_embeddings=8192),
    yarn(128, 1e6, 4.0, 32768),
    yarn(64, 10000.0, 40.0, 4096, mscale=1.0, mscale_all_dim=1.0),
    yarn(64, 50000.0, 32.0, 4096, beta_fast=1.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0),
    yarn(64, 10000.0, 40.0, 4096, mscale=0.707, mscale_all_dim=0.4),
    yarn_untruncated(64, 150000.0, 32.0, 4096),
    dynamic(64, 10000.0, 2.0, 2048, 1000),
    dynamic(64, 10000.0, 2.0, 2048, 5000),
    longrope(4096),
    longrope(4097),
]
with open("tests/numerics/golden/rope.json", "w", encoding="utf-8") as file:
    lines = ",\n  ".join(json.dumps(one) for one in cases)
    file.write(f'{{"mlx_lm": "{version("mlx-lm")}", "cases": [\n  {lines}\n]}}\n')
