"""Writes ggml_blocks.bin: blocks of every supported GGUF type and what they decode to.

Two rows of a real matrix decoded by ggml itself (from the real-input folder), then random blocks
decoded by the gguf Python package, which reach every bit pattern of scales and codes.

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

TYPES = {"q4_0": 32, "q4_1": 32, "q5_0": 32, "q5_1": 32, "q8_0": 32,
         "q4_K": 256, "q5_K": 256, "q6_K": 256}
# Where each type keeps its f16 numbers; random bits there would mostly be infinities and NaN.
HALVES = {"q4_0": [0], "q4_1": [0, 2], "q5_0": [0], "q5_1": [0, 2], "q8_0": [0],
          "q4_K": [0, 2], "q5_K": [0, 2], "q6_K": [208]}


def main():
    folder = pathlib.Path(sys.argv[1])
    rng = np.random.default_rng(20250101)
    out = bytearray()
    for name, width in TYPES.items():
        kind = getattr(gguf.GGMLQuantizationType, name.upper())
        block_bytes = gguf.GGML_QUANT_SIZES[kind][1]
        row_bytes = 512 // width * block_bytes
        real = np.fromfile(folder / f"{name}.blocks", np.uint8)[7 * row_bytes:9 * row_bytes]
        decoded = np.fromfile(folder / f"{name}.deq.f32", np.float32)[7 * 512:9 * 512]
        count = 512 // width
        random = rng.integers(0, 256, (count, block_bytes), dtype=np.uint8)
        for at in HALVES[name]:
            halves = (rng.standard_normal(count) * 2.0 ** rng.integers(-20, 8, count))
            random[:, at:at + 2] = halves.astype(np.float16).view(np.uint8).reshape(count, 2)
        random_decoded = dequantize(random, kind).astype(np.float32).reshape(-1)
        blocks = real.tobytes() + random.tobytes()
        values = decoded.tobytes() + random_decoded.tobytes()
        out += name.encode().ljust(8, b"\0")
        out += struct.pack("<II", len(blocks), len(values) // 4) + blocks + values
    (pathlib.Path(__file__).parent / "ggml_blocks.bin").write_bytes(out)


main()
