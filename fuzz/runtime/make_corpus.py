#!/usr/bin/env python3
"""Writes the seeds of session_fuzz beside this file: sessions of its model, good and bad."""

import json
import struct
from pathlib import Path

HEADER = dict(model="0" * 32, kv="f16", layers=1, kv_heads=2, head_dim=32, block_tokens=64)
ROWS = HEADER["layers"] * HEADER["kv_heads"] * 2  # a token's keys and values


def session(ids, version=1, good_digest=True, row=b"\x00\x3c" * 32, **changes):
    header = json.dumps({**HEADER, "tokens": len(ids), **changes}).encode()
    content = b"SLUICEKV" + struct.pack("<II", version, len(header)) + header
    content += struct.pack(f"<{len(ids)}I", *ids) + row * ROWS * len(ids)
    return content + (b"\x00" if good_digest else b"\x07")


SEEDS = dict(
    empty=session([]),
    three=session([1, 2, 3]),
    full=session(range(8)),
    too_long=session(range(9)),
    nan=session([1], row=b"\x00\x7e" * 32),
    large=session([5, 6], row=b"\xff\x7b" * 32),
    beyond=session([1, 16]),
    digest=session([1], good_digest=False),
    version=session([1], version=2),
    q8=session([1], kv="q8"),
    other_model=session([1], model="f" * 32),
    more_claimed=session([1], tokens=1 << 62),
    cut=session([1, 2, 3])[:60],
)

folder = Path(__file__).parent / "corpus" / "session"
folder.mkdir(parents=True, exist_ok=True)
for name, content in SEEDS.items():
    (folder / name).write_bytes(content)
