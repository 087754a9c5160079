"""Every type that safetensors can hold, as a source: floats are decoded, rounded and quantized as
numpy and mlx do it, integers and truth values are copied, and values that do not fit are refused
with their place."""

import json

import numpy as np
import support
from support import read_folder, sluice, sluice_json

SEED = support.test_seed()
COLUMNS = 128


def small_float(codes, exponent_bits, mantissa_bits, bias):
    """float64 values of 8-bit floats, infinities and NaN not told apart."""
    codes = codes.astype(np.int64)
    exponent = (codes >> mantissa_bits) & ((1 << exponent_bits) - 1)
    mantissa = codes & ((1 << mantissa_bits) - 1)
    normal = (mantissa + (1 << mantissa_bits)) * 2.0 ** (exponent - bias - mantissa_bits)
    magnitude = np.where(exponent == 0, mantissa * 2.0 ** (1 - bias - mantissa_bits), normal)
    return np.where(codes & 0x80, -magnitude, magnitude)


def bits_to_float(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


# dtype → (codes or values from a generator, float64 values of those codes).
FLOATS = {
    "F64": (lambda r, n: r.standard_normal(n), lambda x: x),
    "F32": (lambda r, n: r.standard_normal(n).astype("<f4"), lambda x: x),
    "F16": (lambda r, n: r.standard_normal(n).astype("<f2"), lambda x: x),
    "BF16": (lambda r, n: (r.standard_normal(n).astype("<f4").view("<u4") >> 16).astype("<u2"),
             bits_to_float),
    "F8_E4M3": (lambda r, n: (r.integers(0, 127, n) | r.integers(0, 2, n) << 7).astype("u1"),
                lambda x: small_float(x, 4, 3, 7)),
    "F8_E5M2": (lambda r, n: (r.integers(0, 124, n) | r.integers(0, 2, n) << 7).astype("u1"),
                lambda x: small_float(x, 5, 2, 15)),
    "F8_E8M0": (lambda r, n: r.integers(107, 137, n).astype("u1"),
                lambda x: 2.0 ** (x.astype(np.float64) - 127)),
}
INTEGERS = {"I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "<u1", "U16": "<u2",
            "U32": "<u4", "U64": "<u8", "BOOL": "<u1"}


class Dtypes(support.TestCase):
    def model(self, tensors):
        folder = self.folder / f"model-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        support.write_safetensors(folder / "model.safetensors", tensors)
        (folder / "config.json").write_text(json.dumps(
            dict(model_type="novel_thing", torch_dtype="bfloat16")))
        return folder

    def draw(self, dtype, shape, seed=0):
        make, decode = FLOATS[dtype]
        stored = make(np.random.default_rng(SEED + seed), int(np.prod(shape)))
        values = decode(stored).astype(np.float64).astype(np.float32).reshape(shape)
        return (dtype, shape, stored.tobytes()), values

    def run_both(self, folder, *arguments):
        out = folder.with_name(f"{folder.name}-{'-'.join(map(str, arguments))}".replace("--", ""))
        sluice("quantize", folder, *arguments, "-o", out, "--quiet")
        self.assertTrue(sluice_json("verify", folder, out)["passed"])
        return read_folder(out)

    def test_floats(self):
        import mlx.core as mx
        for dtype in FLOATS:
            weight, values = self.draw(dtype, (24, COLUMNS))
            norm, norm_values = self.draw(dtype, (COLUMNS,), 1)
            folder = self.model({"model.layers.0.up_proj.weight": weight,
                                 "model.layers.0.norm.weight": norm})
            for name, kind in (("bfloat16", mx.bfloat16), ("float16", mx.float16),
                               ("float32", mx.float32)):
                with self.subTest(source=dtype, output=name):
                    found = self.run_both(folder, "--bits", 4, "--dtype", name)
                    cast = mx.array(norm_values).astype(kind).astype(mx.float32)
                    np.testing.assert_array_equal(
                        found["model.layers.0.norm.weight"].floats(), np.array(cast))
                    codes, scales, biases = mx.quantize(mx.array(values).astype(kind),
                                                        group_size=64, bits=4)
                    path = "model.layers.0.up_proj"
                    np.testing.assert_array_equal(found[f"{path}.weight"].array(), np.array(codes))
                    for part, expected in (("scales", scales), ("biases", biases)):
                        np.testing.assert_array_equal(found[f"{path}.{part}"].floats(),
                                                      np.array(expected.astype(mx.float32)))

    def test_integers_are_copied(self):
        random = np.random.default_rng(SEED)
        tensors = {"model.layers.0.up_proj.weight": self.draw("BF16", (8, COLUMNS))[0]}
        for dtype, kind in INTEGERS.items():
            values = random.integers(0, 2 if dtype == "BOOL" else 100, (3, 5)).astype(kind)
            tensors[f"model.layers.0.table_{dtype}"] = (dtype, values.shape, values.tobytes())
            tensors[f"model.list_{dtype}"] = (dtype, (5,), values[0].tobytes())
        found = self.run_both(self.model(tensors), "--bits", 4)
        for name, (dtype, shape, data) in tensors.items():
            if not name.endswith("weight"):
                self.assertEqual(found[name], support.Tensor(dtype, shape, data), name)

    def test_an_analysis_prices_them(self):
        tensors = {"model.list": ("I64", (5,), np.arange(5, dtype="<i8").tobytes())}
        for dtype in FLOATS:
            tensors[f"model.layers.0.{dtype}_proj.weight"] = self.draw(dtype, (8, COLUMNS))[0]
        folder = self.model(tensors)
        out = folder.with_name("fitted")
        sluice("fit", folder, "--min-safe", "-o", out, "--quiet")
        self.assertEqual(read_folder(out)["model.list"].data, tensors["model.list"][2])

    def test_values_that_do_not_fit(self):
        cases = [("F64", 1e300, [], "1e+300"), ("F64", 1e39, ["--dtype", "float32"], "1e+39"),
                 ("F64", 3.4e38, ["--dtype", "bfloat16"], "too large for BF16"),
                 ("F32", 70000, ["--dtype", "float16"], "too large for F16"),
                 ("F64", float("nan"), [], "nan"), ("F32", float("-inf"), [], "-inf")]
        for number, (dtype, bad, arguments, expected) in enumerate(cases):
            with self.subTest(dtype=dtype, value=bad):
                values = np.ones((6, COLUMNS), {"F64": "<f8", "F32": "<f4"}[dtype])
                values[4, 17] = bad
                folder = self.model({"model.layers.0.up_proj.weight":
                                     (dtype, values.shape, values.tobytes())})
                out = folder.with_name(f"refused-{number}")
                result = sluice("quantize", folder, "--bits", 4, *arguments, "-o", out, expect=3)
                self.assertIn("model.layers.0.up_proj.weight, row 4, column 17", result.stderr)
                self.assertIn(expected, result.stderr)
                self.assertFalse(out.exists())

    def test_packed_integers_are_no_weights(self):
        for dtype, kind in INTEGERS.items():
            data = np.zeros((8, COLUMNS), kind).tobytes()
            folder = self.model({"model.layers.0.up_proj.weight": (dtype, (8, COLUMNS), data)})
            result = sluice("inspect", folder, expect=3)
            self.assertIn("model.layers.0.up_proj.weight", result.stderr)


if __name__ == "__main__":
    support.main(needs_mlx=True)
