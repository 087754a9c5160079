#!/usr/bin/env python3
"""Where stock mlx_lm departs from the published formulas (docs/families.md), each departure by itself:
--compat mlx gives its logits, the default those of a stock model that is patched to the published
formula. Arguments: as in exported.py."""

import contextlib
import functools
import unittest.mock

import exported
import numpy as np
import support
from mlx_lm_windows_test import SEED, TOKENS, YARN, Models
from support import INDEXER_HEADS, load_stock, random_tokens, relative_difference, stock_model


class Departures(Models):
    def check_departure(self, folder, patch):
        """Logits of stock mlx_lm, and of the published formula, from which it departs. patch: makes a
        stock model compute the latter; may return a context in which it does."""

        @contextlib.contextmanager
        def published_model():
            model = load_stock(folder)
            with patch(model) or contextlib.nullcontext():
                yield model

        models = dict(mlx=functools.partial(stock_model, folder), transformers=published_model)

        def check(ids):
            expected = {}
            for compat, model in models.items():
                with model() as opened:
                    expected[compat] = support.logits(opened, ids)
            self.assertGreater(relative_difference(expected["mlx"], expected["transformers"]),
                               20 * support.LOGITS_TOLERANCE)
            for compat, model in models.items():
                for chunk in (512, 7):
                    found = exported.logits(folder, ids, chunk, compat=compat)
                    support.assert_near(found, expected[compat], model, ids,
                                        f"{folder.name}, {compat}, chunks of {chunk}")

        support.with_tokens(check, *random_tokens(folder, SEED, TOKENS))

    def test_yarn_of_parts_of_dimensions(self):
        """truncate false, which stock mlx_lm does not read."""
        import mlx.core as mx

        yarn = dict(YARN, original_max_position_embeddings=512, truncate=False)
        folder = self.source("gpt_oss", "gpt_oss yarn", dtype="mxfp4", rope_scaling=yarn)
        dims, base = 64, 150000.0
        low, high = (dims * np.log(512 / (2 * np.pi * turns)) / (2 * np.log(base))
                     for turns in (32, 1))
        pairs = np.arange(dims // 2)
        ramp = np.clip((pairs - low) / (high - low), 0, 1)
        frequencies = base ** (-2 * pairs / dims) * (1 - ramp + ramp / 32)

        def published(model):
            for layer in model.layers:
                layer.self_attn.rope._freqs = mx.array(1 / frequencies, dtype=mx.float32)

        self.check_departure(folder, published)

    def test_epsilon_of_rotated_heads(self):
        """rms_norm_eps, for which stock mlx_lm has a number of its own in Llama 4."""
        import mlx.core as mx

        folder = self.converted(self.source("llama4", "llama4 epsilon", rms_norm_eps=0.3))
        rms_norm = mx.fast.rms_norm

        def published(x, weight, eps):
            return rms_norm(x, weight, 0.3 if weight is None else eps)

        self.check_departure(
            folder, lambda _: unittest.mock.patch.object(mx.fast, "rms_norm", published))

    def test_magnitude_of_yarn(self):
        """mscale counts only beside mscale_all_dim; in stock mlx_lm by itself as well."""
        scaling = dict(YARN, factor=8.0, original_max_position_embeddings=32, mscale=0.3)
        folder = self.source("qwen3", "qwen3 yarn", dtype="f32", rope_scaling=scaling)

        def published(model):
            for layer in model.layers:
                layer.self_attn.rope.mscale = 0.1 * np.log(8) + 1

        self.check_departure(folder, published)

    def test_epsilon_of_low_rank_norms(self):
        """1e-6 whatever rms_norm_eps is, which stock mlx_lm takes in GLM-4.7-Flash."""
        folder = self.source("glm4_moe_lite", "glm4_moe_lite epsilon", dtype="f32",
                             rms_norm_eps=0.3)

        def published(model):
            for layer in model.layers:
                layer.self_attn.q_a_layernorm.eps = layer.self_attn.kv_a_layernorm.eps = 1e-6

        self.check_departure(folder, published)

    def test_experts_of_dropped_groups(self):
        """They have no chance; in stock mlx_lm a score of 0, which beats negative ones."""
        import mlx.core as mx

        folder = self.source("deepseek_v3", "deepseek_v3 groups", dtype="f32", n_routed_experts=8,
                             n_group=4, topk_group=1, num_experts_per_tok=2)
        tensors = {name: (tensor.dtype, tensor.shape, tensor.data)
                   for name, tensor in support.read_folder(folder).items()}
        for name, (dtype, shape, data) in tensors.items():
            if name.endswith("e_score_correction_bias"):
                values = np.frombuffer(data, "<f4") - np.float32(1.5)
                tensors[name] = (dtype, shape, values.tobytes())
        support.write_safetensors(folder / "model.safetensors", tensors)
        put = mx.put_along_axis

        def without_chance(scores, indices, values, axis):
            return put(scores, indices, mx.array(-np.inf), axis)

        @contextlib.contextmanager
        def published(_):
            mx.disable_compile()  # which keeps what it traced
            with unittest.mock.patch.object(mx, "put_along_axis", without_chance):
                yield
            mx.enable_compile()

        self.check_departure(folder, published)

    def test_pairs_that_latent_attention_turns(self):
        """rope_interleave false, which stock mlx_lm does not read."""
        folder = self.source("deepseek_v3", "deepseek_v3 halves", dtype="f32",
                             rope_interleave=False)

        def published(model):
            for layer in model.layers:
                layer.self_attn.rope.traditional = False

        self.check_departure(folder, published)

    def test_pairs_that_the_indexer_turns(self):
        """By family; stock mlx_lm goes by a key that published files do not have."""
        folder = self.source("deepseek_v32", "deepseek_v32 pairs", dtype="f32", index_topk=6,
                             index_n_heads=INDEXER_HEADS, indexer_rope_interleave=True)

        def published(model):
            for layer in model.layers:
                layer.self_attn.indexer.rope.traditional = False
                layer.self_attn.indexer.k_norm.eps = 1e-6

        self.check_departure(folder, published)

    def test_epsilon_of_the_indexer(self):
        """1e-6, of layer norms of keys so small that it counts."""
        folder = self.source("deepseek_v32", "deepseek_v32 epsilon", dtype="f32", index_topk=6,
                             index_n_heads=INDEXER_HEADS)
        tensors = {name: (tensor.dtype, tensor.shape, tensor.data)
                   for name, tensor in support.read_folder(folder).items()}
        for name, (dtype, shape, data) in tensors.items():
            if name.endswith("indexer.wk.weight"):
                values = np.frombuffer(data, "<f4") * np.float32(1e-3)
                tensors[name] = (dtype, shape, values.tobytes())
        support.write_safetensors(folder / "model.safetensors", tensors)

        def published(model):
            for layer in model.layers:
                layer.self_attn.indexer.k_norm.eps = 1e-6

        self.check_departure(folder, published)


if __name__ == "__main__":
    exported.main()
