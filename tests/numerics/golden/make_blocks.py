"""Writes ggml_blocks.bin: blocks of every supported GGUF type and what they decode to.

A row of a real matrix decoded by ggml itself (from the real-input folder), then a row of random
blocks decoded by the gguf Python package, which reach every bit pattern of scales and codes. The
package does not decode Q1_0 and Q2_0; their second row is real too.

Per type: name (8 bytes, zero padded), u32 blocks_bytes, u32 elements, the blocks, the f32 values.
Usage: make_blocks.py <real-inputs>/gguf/quant-fixture
Written with gguf 0.19.0 and numpy 2.4.
"""
import pathlib
import struct
import sys

import gguf
import numpy as np
from gguf.quants import dequantize

# Elements a block, and where each type keeps its f16 numbers: random bits there would mostly be
# infinities and NaN. IQ1_M has its f16 in four pieces.
TYPES = {
    "q4_0": (32, [0]), "q4_1": (32, [0, 2]), "q5_0": (32, [0]), "q5_1": (32, [0, 2]),
    "q8_0": (32, [0]), "q4_K": (256, [0, 2]), "q5_K": (256, [0, 2]), "q6_K": (256, [208]),
    "q2_K": (256, [80, 82]), "q3_K": (256, [108]), "iq1_s": (256, [0]), "iq1_m": (256, []),
    "iq2_xxs": (256, [0]), "iq2_xs": (256, [0]), "iq2_s": (256, [0]), "iq3_xxs": (256, [0]),
    "iq3_s": (256, [0]), "iq4_nl": (32, [0]), "iq4_xs": (256, [0]), "tq1_0": (256, [52]),
    "tq2_0": (256, [64]), "q1_0": (128, [0]), "q2_0": (64, [0]), "mxfp4": (32, []),
    "nvfp4": (64, []),
}
REAL_ONLY = {"q1_0", "q2_0"}
ROW = 512


def random_blocks(rng, name, width, block_bytes, halves):
    count = ROW // width
    blocks = rng.integers(0, 256, (count, block_bytes), dtype=np.uint8)
    values = [(rng.standard_normal(count) * 2.0 ** rng.integers(-20, 8, count)).astype(np.float16)
              for _ in halves or [0]]
    for at, half in zip(halves, values):
        blocks[:, at:at + 2] = half.view(np.uint8).reshape(count, 2)
    if name == "iq1_m":
        for piece in range(4):
            high = (values[0].view(np.uint16) >> (4 * piece) & 15).astype(np.uint8) << 4
            at = 49 + 2 * piece
            blocks[:, at] = blocks[:, at] & 15 | high
    return blocks


def main():
    folder = pathlib.Path(sys.argv[1])
    rng = np.random.default_rng(20250101)
    out = bytearray()
    for name, (width, halves) in TYPES.items():
        blocks = np.fromfile(folder / f"{name}.blocks", np.uint8)
        values = np.fromfile(folder / f"{name}.deq.f32", np.float32)
        row_bytes = blocks.size // (values.size // ROW)
        rows = 2 if name in REAL_ONLY else 1
        blocks = blocks[7 * row_bytes:(7 + rows) * row_bytes].tobytes()
        values = values[7 * ROW:(7 + rows) * ROW]
        if name not in REAL_ONLY:
            kind = getattr(gguf.GGMLQuantizationType, name.upper())
            random = random_blocks(rng, name, width, row_bytes * width // ROW, halves)
            blocks += random.tobytes()
            decoded = dequantize(random, kind).astype(np.float32).reshape(-1)
            values = np.concatenate([values, decoded])
        values = values.tobytes()
        out += name.encode().ljust(8, b"\0")
        out += struct.pack("<II", len(blocks), len(values) // 4) + blocks + values
    (pathlib.Path(__file__).parent / "ggml_blocks.bin").write_bytes(out)


main()
