#!/usr/bin/env python3
"""Qwen's hybrids from GGUF, in the layout of llama.cpp's converter, against the same weights from Hugging
Face's: the same output, byte for byte."""

import importlib.util

import numpy as np
import support
from gguf_hybrids import ARCHITECTURES, write_gguf
from support import make_checkpoint, read_folder, read_json, sluice, sluice_json

SEED = support.test_seed()


class GgufHybrids(support.TestCase):
    def source(self, name, family, **options):
        folder = self.folder / name
        make_checkpoint(folder, family, seed=SEED, dtype="f32", **options)
        return folder

    def converted(self, model):
        out = self.folder / f"{model.name}-out"
        sluice("quantize", model, "--bits", 4, "--group-size", 32, "--dtype", "float16", "-o", out,
               "--quiet")
        self.assertTrue(sluice_json("verify", model, out)["passed"])
        return out

    def check(self, source, path):
        folders = [self.converted(model) for model in (path, source)]
        ours, expected = (read_folder(folder) for folder in folders)
        self.assertEqual(sorted(ours), sorted(expected))
        wrong = [n for n in expected if ours[n] != expected[n]]
        # Kept as −e^x, whose logarithm may be another neighbour.
        self.assertTrue(all(name.endswith("A_log") for name in wrong), wrong)
        for name in wrong:
            np.testing.assert_allclose(ours[name].floats(), expected[name].floats(), rtol=1e-3,
                                       atol=1e-6)
        support.load_stock(folders[0])
        return folders[0]

    def test_every_architecture(self):
        for number, family in enumerate(ARCHITECTURES):
            with self.subTest(family):
                source = self.source(family, family, tied=number % 2 == 1)
                path = self.folder / f"{family}.gguf"
                write_gguf(path, source)
                out = self.check(source, path)
                config, expected = (read_json(folder / "config.json") for folder in (out, source))
                text, wanted = (c.get("text_config", c) for c in (config, expected))
                for key in wanted:
                    if key in text and key not in ("dtype", "torch_dtype", "transformers_version",
                                                   "intermediate_size", "tie_word_embeddings"):
                        self.assertEqual(text[key], wanted[key], key)
                self.assertTrue(sluice_json("inspect", path)["runs"])

    def test_one_value_head_for_a_key_is_not_moved(self):
        source = self.source("single", "qwen3_5", linear_num_key_heads=4, linear_key_head_dim=32)
        path = self.folder / "single.gguf"
        write_gguf(path, source)
        self.check(source, path)

    def test_prediction_is_left_out_and_experts_may_be_fused(self):
        source = self.source("fused", "qwen3_5_moe")
        path = self.folder / "fused.gguf"
        write_gguf(path, source, predicting=True, fuse_experts=True)
        self.check(source, path)

    def test_blocks_of_columns_that_move(self):
        """Decoded first: what was moved in blocks is what the blocks stood for."""
        from gguf.quants import dequantize, quantize
        from gguf import GGMLQuantizationType

        kind = GGMLQuantizationType.Q8_0
        source = self.source("blocks", "qwen3_5")
        path = self.folder / "blocks.gguf"
        write_gguf(path, source, lambda name, values: (kind, quantize(values, kind))
                   if name.endswith("ssm_out.weight") else None)
        out = self.folder / "blocks-out"
        sluice("quantize", path, "--bits", 8, "--group-size", 32, "-o", out, "--quiet")
        stored = read_folder(source)["model.language_model.layers.0.linear_attn.out_proj.weight"]
        # Heads are as wide as a block, so that the columns of either order make the same blocks.
        expected = dequantize(quantize(stored.floats(), kind), kind)
        name = "language_model.model.layers.0.linear_attn.out_proj.weight"
        found = support.decoded_folder(out)[name]
        self.assertLess(np.abs(found - expected).max(), np.abs(expected).max() / 100)
        self.assertGreater(np.abs(np.roll(found, 32, 1) - expected).max(),
                           np.abs(expected).max() / 3)

    def test_what_does_not_fit_is_named(self):
        source = self.source("bad", "qwen3_5")
        for name, change, words in (
                ("heads", lambda w: w.add_ssm_time_step_rank(3), ["inner_size", "3 heads"]),
                ("sizes", lambda w: w.add_ssm_group_count(4), ["should have shape"]),
                ("rope", lambda w: w.add_rope_dimension_count(65), ["rope.dimension_count", "65"]),
                ("layers", lambda w: w.add_array("qwen35.attention.recurrent_layers", [True] * 4),
                 ["recurrent_layers", "every 4th"])):
            with self.subTest(name):
                path = self.folder / f"bad-{name}.gguf"
                write_gguf(path, source, change=change)
                self.assert_refused(["inspect", path], words)


if __name__ == "__main__":
    if importlib.util.find_spec("gguf") is None:
        support.skip("the gguf package is not installed; run scripts/setup test")
    support.main(needs_mlx=True)
