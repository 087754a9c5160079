"""`sluice analyze --features` against numpy: singular values by SVD where AᵀA is kept, the same
sketch computed in f64 where it is not, and kurtosis with numpy's own percentiles."""

import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(os.environ.get("SLUICE_SOURCE_DIR", pathlib.Path(__file__).parents[2]))
                       / "tests" / "e2e"))

import numpy as np
import support

BINARY = os.environ.get("SLUICE_BINARY", "")
RANK = 256


def omega(columns, rank):
    """The signs of matrix_features.cpp, from splitmix64."""
    x = (np.arange(columns, dtype=np.uint64)[:, None] * np.uint64(RANK)
         + np.arange(rank, dtype=np.uint64) + np.uint64(1))
    with np.errstate(over="ignore"):
        x = x * np.uint64(0x9e3779b97f4a7c15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xbf58476d1ce4e5b9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94d049bb133111eb)
    return np.where((x ^ (x >> np.uint64(31))) >> np.uint64(63), -1.0, 1.0)


def squared_values(a):
    """σ² as the program is to find them, descending."""
    if a.shape[1] <= 1024:
        return np.linalg.svd(a, compute_uv=False) ** 2
    o = omega(a.shape[1], RANK)
    z = a.T @ (a @ o)
    values, vectors = np.linalg.eigh(o.T @ z)
    keep = values > 1e-6 * values.max()
    b = z @ (vectors[:, keep] / np.sqrt(values[keep]))
    return np.linalg.svd(b, compute_uv=False) ** 2


def kurtosis(a):
    groups = a[:, :a.shape[1] // 128 * 128].reshape(-1, 128)
    centred = groups - groups.mean(axis=1, keepdims=True)
    variance = (centred ** 2).mean(axis=1)
    excess = (centred ** 4).mean(axis=1) / variance ** 2 - 3
    beyond = (np.abs(centred).max(axis=1) > 3 * np.sqrt(variance)).mean()
    p50, p90, p99 = np.percentile(excess, [50, 90, 99], method="inverted_cdf")
    return {"p90": p90, "p99_minus_p50": p99 - p50, "max_minus_median": excess.max() - p50,
            "share_beyond_3_sigma": beyond}


def bf16(a):
    """Rounded to bfloat16: the values and their bytes."""
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
    bits = ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64), bits.tobytes()


def matrix(rng, rows, columns, decay):
    """Singular values falling as a power, heavy-tailed entries here and there."""
    k = min(rows, columns)
    u, _ = np.linalg.qr(rng.standard_normal((rows, k)))
    v, _ = np.linalg.qr(rng.standard_normal((columns, k)))
    a = (u * (np.arange(1, k + 1.0) ** -decay)) @ v.T
    a[rng.integers(rows, size=20), rng.integers(columns, size=20)] *= 20
    return a


class FeaturesAgainstNumpy(unittest.TestCase):
    def features(self, folder, matrices):
        header, data = {}, b""
        for name, raw in matrices.items():
            shape, raw = raw
            header[name] = {"dtype": "BF16", "shape": shape,
                            "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
        # A plain model of Linears, by the generic rule.
        (folder / "config.json").write_text(json.dumps(
            {"model_type": "plain_linears", "num_hidden_layers": 1, "torch_dtype": "bfloat16"}))
        out = folder / "features.jsonl"
        result = subprocess.run([BINARY, "analyze", folder, "--features", "-o", out, "--json",
                                 "--threads", "8"], capture_output=True, text=True, timeout=300)
        self.assertEqual(result.returncode, 0, result.stderr)
        summary = json.loads(result.stdout)
        if not support.sanitized(BINARY):
            self.assertLess(summary["peak_resident_bytes"], 256e6)
        records = [json.loads(line)["record"] for line in out.read_text().splitlines()]
        self.assertEqual(records[0]["kind"], "features")
        return {r["tensor"]: r for r in records[1:-1]}

    def test_against_numpy(self):
        rng = np.random.default_rng(7)
        shapes = {"a.q_proj": (96, 128, 0.5), "a.k_proj": (300, 200, 1.0), "a.v_proj": (40, 1024, 0.7),
                  "a.o_proj": (129, 1021, 0.3), "b.q_proj": (400, 1025, 0.5),
                  "b.k_proj": (270, 2048, 1.0), "b.v_proj": (24, 8192, 0.8),
                  "b.o_proj": (400, 1280, 0.2)}
        values, stored = {}, {}
        for name, (rows, columns, decay) in shapes.items():
            values[name], raw = bf16(matrix(rng, rows, columns, decay))
            stored[f"{name}.weight"] = ([rows, columns], raw)
        with tempfile.TemporaryDirectory(prefix="sluice-features-") as folder:
            found = self.features(pathlib.Path(folder), stored)
        self.assertEqual(len(found), len(shapes))
        for name, a in values.items():
            with self.subTest(name=name, shape=a.shape):
                record = found[f"{name}.weight"]
                self.assertEqual(len(record["matrices"]), 1)
                self.compare(record["matrices"][0], a)

    def compare(self, record, a):
        norm = (a ** 2).sum()
        squared = squared_values(a)
        # A sketch may miss some at the noise of f32, which f64 here has not.
        rank = min(RANK, *a.shape, len(squared))
        self.assertLessEqual(abs(record["rank"] - rank), 0 if a.shape[1] <= 1024 else 16)
        rank = min(rank, record["rank"])
        self.assertEqual(record["exact"], a.shape[1] <= 1024)
        close = lambda found, expected, part: self.assertLessEqual(
            abs(found - expected), part * abs(expected) + 1e-6, (found, expected))
        close(record["squared_norm"], norm, 1e-5)
        close(record["stable_rank"], norm / squared[0], 1e-4)
        close(record["tail_mass"], max(0, 1 - squared[:rank].sum() / norm), 1e-3)
        close(record["spectral_spread"], np.sqrt(squared[0] / squared[rank - 1]), 1e-2)
        # A sketch is never above the truth, and near it where the spectrum falls.
        true = np.linalg.svd(a, compute_uv=False) ** 2
        self.assertGreaterEqual(record["stable_rank"], norm / true[0] * (1 - 1e-4))
        if not record["exact"]:
            flat = true[0] < 4 * true[min(RANK, *a.shape) - 1]
            self.assertLessEqual(record["stable_rank"], norm / true[0] * (2 if flat else 1.25))
        expected = kurtosis(a)
        self.assertEqual(record["groups"], a.shape[0] * (a.shape[1] // 128))
        for key, value in expected.items():
            self.assertLessEqual(abs(record["kurtosis"][key] - value), 1 / 128 + 1e-4, key)

    def test_plans_refuse_features(self):
        rng = np.random.default_rng(3)
        _, raw = bf16(matrix(rng, 64, 128, 0.5))
        with tempfile.TemporaryDirectory(prefix="sluice-features-") as folder:
            self.features(pathlib.Path(folder), {"a.q_proj.weight": ([64, 128], raw)})
            result = subprocess.run([BINARY, "plan", f"{folder}/features.jsonl", "--min-safe"],
                                    capture_output=True, text=True, timeout=60)
            self.assertEqual(result.returncode, 3)
            self.assertIn("features.jsonl", result.stderr)


if __name__ == "__main__":
    if not os.access(BINARY, os.X_OK):
        print("SLUICE_BINARY is not built")
        raise SystemExit(77)
    unittest.main()
