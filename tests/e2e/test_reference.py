"""The references themselves: our numpy decoder against mlx, and made checkpoints against mlx_lm."""

import numpy as np
import support
from support import (BITS, FAMILIES, FP_MODES, GROUPS, Tensor, decode_affine, decode_fp, load_stock,
                     logits, make_checkpoint)

SEED = support.test_seed()


class NumpyDecoder(support.TestCase):
    def test_equals_mlx_dequantize(self):
        import mlx.core as mx

        mx.set_default_device(mx.cpu)
        values = np.random.default_rng(SEED).standard_normal((7, 256)).astype(np.float32)
        for bits in BITS:
            for group in GROUPS:
                packed = mx.quantize(mx.array(values), group_size=group, bits=bits)
                tensors = [Tensor("U32" if p.dtype == mx.uint32 else "F32", p.shape,
                                  np.array(p).tobytes()) for p in packed]
                expected = np.array(mx.dequantize(*packed, group_size=group, bits=bits))
                found = decode_affine(*tensors, bits, group)
                with self.subTest(bits=bits, group=group):
                    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


    def test_equals_mlx_dequantize_of_fp_modes(self):
        import mlx.core as mx

        mx.set_default_device(mx.cpu)
        values = np.random.default_rng(SEED).standard_normal((7, 256)).astype(np.float32)
        for mode in FP_MODES:
            packed = mx.quantize(mx.array(values), mode=mode)
            tensors = [Tensor("U32" if p.dtype == mx.uint32 else "U8", p.shape,
                              np.array(p).tobytes()) for p in packed]
            expected = np.array(mx.dequantize(*packed, mode=mode, dtype=mx.float32))
            with self.subTest(mode=mode):
                np.testing.assert_array_equal(decode_fp(*tensors, mode), expected)


class MadeCheckpoints(support.TestCase):
    def test_stock_mlx_lm_runs_them(self):
        for family in FAMILIES:
            with self.subTest(family=family):
                folder = self.folder / family
                config = make_checkpoint(folder, family, seed=SEED, shards=2)
                output = logits(load_stock(folder), [1, 2, 3])
                self.assertEqual(output.shape, (3, config.get("text_config", config)["vocab_size"]))
                self.assertTrue(np.isfinite(output).all())
                self.assertGreater(output.std(), 0.01)

    def test_same_seed_same_bytes(self):
        for name in ("a", "b"):
            make_checkpoint(self.folder / name, "qwen3_moe", seed=5)
        files = [(self.folder / n / "model.safetensors").read_bytes() for n in ("a", "b")]
        self.assertEqual(files[0], files[1])


if __name__ == "__main__":
    support.main(needs_mlx=True)
