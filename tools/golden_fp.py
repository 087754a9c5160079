#!/usr/bin/env python3
"""Writes tests/numerics/golden/fp.bin: what mlx itself makes of a few rows in mxfp4, mxfp8 and
nvfp4 from every dtype, and what it decodes every code and scale to. Run from the repository root
with the reference packages of tests/requirements.txt:

    .venv/bin/python tools/golden_fp.py

Little-endian layout:
  "SLGF", u32 inputs, then per input:  u32 dtype (0 f32, 1 f16, 2 bf16, 3 none), rows, columns,
                                       bytes of the values (none for 3: decoding alone)
  u32 cases, then per case:  u32 input, mode (0 mxfp4, 1 mxfp8, 2 nvfp4), bytes of weight and scales,
                             and of mlx.core.dequantize's f32 values
Byte counts follow from shapes. The trailer is the text of the mlx version, u32 length first.
"""

import struct
import sys
from importlib.metadata import version

import mlx.core as mx
import numpy as np

DTYPES = [mx.float32, mx.float16, mx.bfloat16]
MODES = ["mxfp4", "mxfp8", "nvfp4"]
COLUMNS = 256


def rows(seed):
    """Rows whose groups differ in character; from the sixth on they hold the edge cases."""
    random = np.random.default_rng(seed)
    w = random.normal(0, 0.02, (12, COLUMNS)).astype(np.float32)
    w[1] = random.standard_t(3, COLUMNS) * 0.05
    w[2] = np.round(w[2] * 100) / 8  # exact ties at many scales
    w[3] = random.choice([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 6], COLUMNS)
    w[3] *= random.choice([-1, 1], COLUMNS)
    w[4, ::7] *= 30  # outliers
    for group in range(8):  # maxima around the point where the E8M0 byte changes
        part = w[5, 32 * group:32 * group + 32]
        part *= 6 * 2.0 ** (group - 6) / np.abs(part).max() * (1 + (group % 3 - 1) * 1e-3)
    edge = w[6].reshape(8, 32)
    edge[0] = 0
    edge[1] = -0.0
    edge[2] = 0.375
    edge[3] = np.where(np.arange(32) % 2, 448, -448)
    edge[4] = 5e-8
    edge[5] = np.linspace(-6e-8, 9e-8, 32)
    edge[6] = np.linspace(-0.02, 0.02, 32)
    edge[7, 0] = -1000
    w[7, :128] *= 1e5  # beyond what an E4M3 scale reaches
    w[7, 128:] *= 1e-5  # below
    w[8] *= 2.0 ** np.repeat(np.arange(8) * 3 - 14, 32)
    w[9] = np.linspace(-500, 500, COLUMNS)
    w[10, :128] *= 1e-36
    w[10, 128:] *= 1e36
    w[11] = np.where(np.arange(COLUMNS) % 5, w[11] * 1e-3, 1)  # signs of what rounds to zero
    return w


def raw(array):
    if array.dtype == mx.bfloat16:
        array = array.view(mx.uint16)
    return np.ascontiguousarray(np.array(array)).tobytes()


def every_code(mode):
    """Weight and scales that hold every code, under every scale byte where there are few codes."""
    codes = 256 if mode == "mxfp8" else 16
    group = 16 if mode == "nvfp4" else 32
    scales = np.arange(256) if codes == 16 else np.array([0, 1, 2, 60, 126, 127, 128, 254, 255])
    row = np.resize(np.arange(codes, dtype=np.uint8), (len(scales), max(codes, group)))
    if codes == 16:
        row = row[:, 0::2] | row[:, 1::2] << 4
    scales = np.repeat(scales.astype(np.uint8)[:, None], max(codes, group) // group, 1)
    return mx.array(np.ascontiguousarray(row).view(np.uint32)), mx.array(scales)


def main():
    mx.set_default_device(mx.cpu)
    inputs, cases = [], []

    def add(index, mode, weight, scales):
        values = mx.dequantize(weight, scales, mode=MODES[mode], dtype=mx.float32)
        cases.append(struct.pack("<II", index, mode) + raw(weight) + raw(scales) + raw(values))

    with np.errstate(over="ignore"):
        for dtype_index, dtype in enumerate(DTYPES):
            w = rows(7 + dtype_index)
            if dtype == mx.float16:
                w[10] = w[0]  # neither end fits
            array = mx.array(w).astype(dtype)
            assert bool(mx.all(mx.isfinite(array)))
            inputs.append(struct.pack("<III", dtype_index, *array.shape) + raw(array))
            for mode, name in enumerate(MODES):
                add(dtype_index, mode, *mx.quantize(array, mode=name))
    for mode, name in enumerate(MODES):  # without an input: decoding alone
        weight, scales = every_code(name)
        columns = scales.shape[1] * (16 if name == "nvfp4" else 32)
        inputs.append(struct.pack("<III", 3, scales.shape[0], columns))
        add(len(inputs) - 1, mode, weight, scales)
    name = f"mlx {version('mlx')}".encode()
    out = b"SLGF" + struct.pack("<I", len(inputs)) + b"".join(inputs)
    out += struct.pack("<I", len(cases)) + b"".join(cases) + struct.pack("<I", len(name)) + name
    path = sys.argv[1] if len(sys.argv) > 1 else "tests/numerics/golden/fp.bin"
    with open(path, "wb") as file:
        file.write(out)
    print(f"{path}: {len(inputs)} inputs, {len(cases)} cases, {len(out)} bytes")


if __name__ == "__main__":
    main()
