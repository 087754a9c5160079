#!/usr/bin/env python3
"""Writes tests/numerics/golden/affine.bin: what mlx itself makes of a few rows in every affine
format and dtype. Run from the repository root with the reference packages of tests/requirements.txt:

    .venv/bin/python tools/golden_affine.py

Little-endian layout:
  "SLGA", u32 inputs, then per input:  u32 dtype (0 f32, 1 f16, 2 bf16), axes, shape[axes], bytes
  u32 cases, then per case:  u32 input, bits, group, bytes of weight, scales and biases
Byte counts follow from shapes. The trailer is the text of the mlx version, u32 length first.
"""

import struct
import sys
from importlib.metadata import version

import mlx.core as mx
import numpy as np

DTYPES = [mx.float32, mx.float16, mx.bfloat16]
COLUMNS = 256


def rows(seed):
    """Eight rows whose groups differ in character; the last two hold the edge cases."""
    random = np.random.default_rng(seed)
    w = random.normal(0, 0.02, (8, COLUMNS)).astype(np.float32)
    w[1] = random.standard_t(3, COLUMNS) * 0.05
    w[2] = np.abs(w[2]) + 0.01  # positive groups
    w[3] = -np.abs(w[3]) - 0.01  # negative groups
    w[4] = np.round(w[4] * 100) / 64  # exact ties
    w[5, ::7] *= 30  # outliers
    edge = w[6].reshape(8, 32)
    edge[0] = 0
    edge[1] = 0.375
    edge[2] = -0.375
    edge[3] = np.where(np.arange(32) % 2, 0.5, -0.5)
    edge[4] = 5e-8
    edge[5] = np.linspace(-6e-8, 9e-8, 32)
    edge[6] = np.linspace(0, 1e-4, 32)
    edge[7, 0] = -1000
    w[7, :128] = 0
    w[7, 128:] *= 1e-5
    return w


def raw(array):
    if array.dtype == mx.bfloat16:
        array = array.view(mx.uint16)
    return np.ascontiguousarray(np.array(array)).tobytes()


def main():
    mx.set_default_device(mx.cpu)
    inputs, cases = [], []
    for dtype_index, dtype in enumerate(DTYPES):
        flat = mx.array(rows(7 + dtype_index)).astype(dtype)
        stacked = mx.array(rows(70 + dtype_index)[:6]).astype(dtype).reshape(2, 3, COLUMNS)
        for array, formats in [
            (flat, [(b, g) for b in (2, 3, 4, 5, 6, 8) for g in (32, 64, 128)]),
            (stacked, [(b, g) for b in (2, 3, 4, 5, 6, 8) for g in (64,)]),
        ]:
            index = len(inputs)
            inputs.append(struct.pack(f"<II{array.ndim}I", dtype_index, array.ndim, *array.shape)
                          + raw(array))
            for bits, group in formats:
                weight, scales, biases = mx.quantize(array, group_size=group, bits=bits)
                assert scales.dtype == dtype and biases.dtype == dtype
                cases.append(struct.pack("<III", index, bits, group)
                             + raw(weight) + raw(scales) + raw(biases))
    name = f"mlx {version('mlx')}".encode()
    out = b"SLGA" + struct.pack("<I", len(inputs)) + b"".join(inputs)
    out += struct.pack("<I", len(cases)) + b"".join(cases) + struct.pack("<I", len(name)) + name
    path = sys.argv[1] if len(sys.argv) > 1 else "tests/numerics/golden/affine.bin"
    with open(path, "wb") as file:
        file.write(out)
    print(f"{path}: {len(inputs)} inputs, {len(cases)} cases, {len(out)} bytes")


if __name__ == "__main__":
    main()
