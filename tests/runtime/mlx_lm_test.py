#!/usr/bin/env python3
"""Logits against stock mlx_lm in float32, on fresh random models of every family: prefill at once and
token by token. Arguments: as in exported.py."""

import functools

import exported
import numpy as np
import support
from exported import DEVICE
from support import INDEXER_HEADS, convert_stock, load_stock, make_checkpoint, random_tokens, stock_model

TOKENS = 65
SEED = support.test_seed()
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", type="yarn", factor=4.0, original_max_position_embeddings=32)


def longrope(pairs):
    return dict(short_factor=[1.0 + 0.01 * j for j in range(pairs)],
                long_factor=[1.0 + 0.4 * j for j in range(pairs)])


# name → family and keys of config.json.
MODELS = {
    "llama": ("llama", {}),
    "llama, tied, llama3 scaling": ("llama", dict(tied=True, rope_scaling=LLAMA3,
                                                  rope_theta=500000.0)),
    "llama, linear scaling": ("llama", dict(rope_scaling=dict(type="linear", factor=2.0))),
    "llama, biases everywhere": ("llama", dict(attention_bias=True, mlp_bias=True)),
    "llama, own head_dim": ("llama", dict(head_dim=16)),
    "llama, windows": ("llama", dict(layer_types=["sliding_attention", "full_attention"],
                                     sliding_window=16)),
    "mistral": ("mistral", {}),
    "qwen2": ("qwen2", dict(rope_theta=1000000.0)),
    "qwen2, tied, yarn": ("qwen2", dict(tied=True, rope_scaling=YARN)),
    "qwen3": ("qwen3", {}),
    "qwen3, tied": ("qwen3", dict(tied=True, rope_theta=1000000.0)),
    "qwen3_moe": ("qwen3_moe", {}),
    "qwen3_moe, dense layers, not renormalised": (
        "qwen3_moe", dict(num_hidden_layers=4, mlp_only_layers=[2], decoder_sparse_step=2,
                          norm_topk_prob=False)),
    "mixtral": ("mixtral", dict(rope_theta=1000000.0)),
    "deepseek_v2": ("deepseek_v2", {}),
    "deepseek_v2, full q, groups": (
        "deepseek_v2", dict(q_lora_rank=None, n_routed_experts=8, n_group=4, topk_group=2,
                            topk_method="group_limited_greedy", n_shared_experts=2,
                            routed_scaling_factor=16.0, attention_bias=True)),
    "deepseek_v3": ("deepseek_v3", {}),
    "deepseek_v3, groups, yarn, uneven heads": (
        "deepseek_v3", dict(n_routed_experts=12, n_group=4, topk_group=2, num_experts_per_tok=3,
                            n_shared_experts=2, num_hidden_layers=4, moe_layer_freq=2,
                            first_k_dense_replace=0, qk_nope_head_dim=64, kv_lora_rank=192,
                            v_head_dim=96, attention_bias=True,
                            rope_scaling=dict(YARN, mscale=1.0, mscale_all_dim=0.7, beta_fast=32,
                                              beta_slow=1))),
    "deepseek_v3, full q, not renormalised": (
        "deepseek_v3", dict(q_lora_rank=None, norm_topk_prob=False, n_shared_experts=None)),
    "kimi_k2": ("kimi_k2", dict(rope_scaling=dict(YARN, mscale=1.0, mscale_all_dim=1.0, beta_fast=1,
                                                  beta_slow=1))),
    "deepseek_v32": ("deepseek_v32", dict(index_n_heads=INDEXER_HEADS, index_topk=12, rope_scaling=dict(
        YARN, mscale=1.0, mscale_all_dim=1.0))),
    "glm_moe_dsa": ("glm_moe_dsa", dict(index_n_heads=INDEXER_HEADS, index_topk=10, index_head_dim=32)),
    "glm_moe_dsa, few tokens": ("glm_moe_dsa", dict(index_topk=100)),
    "kimi_k25": ("kimi_k25", {}),
    "glm4_moe_lite": ("glm4_moe_lite", dict(qk_nope_head_dim=96, v_head_dim=160,
                                            rope_theta=1000000.0)),
    "olmoe": ("olmoe", {}),
    "olmoe, biases, renormalised": ("olmoe", dict(attention_bias=True, norm_topk_prob=True)),
    "qwen2_moe": ("qwen2_moe", dict(rope_theta=1000000.0)),
    "glm4_moe": ("glm4_moe", {}),
    "glm4_moe, groups, neither biases nor norms": (
        "glm4_moe", dict(attention_bias=False, use_qk_norm=False, n_group=4, topk_group=2,
                         n_shared_experts=2, norm_topk_prob=False)),
    "minimax_m2": ("minimax_m2", {}),
    "minimax_m2, tied, without norms": ("minimax_m2", dict(tied=True, use_qk_norm=False)),
    "granite": ("granite", dict(attention_bias=True, mlp_bias=True)),
    "granitemoe, tied": ("granitemoe", dict(tied=True)),
    "phi3": ("phi3", dict(tied=True)),
    "phi3, a share of the head, longrope": (
        "phi3", dict(partial_rotary_factor=0.75, original_max_position_embeddings=64,
                     rope_scaling=dict(type="longrope", **longrope(12)))),
    "phimoe": ("phimoe", dict(router_jitter_noise=0.3)),
    "phimoe, longrope": (
        "phimoe", dict(rope_scaling=dict(type="longrope", short_mscale=1.1, long_mscale=1.3,
                                         original_max_position_embeddings=64, **longrope(16)))),
    "qwen3_next": ("qwen3_next", {}),
    "qwen3_next, dense layers, biases": (
        "qwen3_next", dict(num_hidden_layers=5, mlp_only_layers=[1], attention_bias=True,
                           full_attention_interval=2, norm_topk_prob=False)),
    "qwen3_5": ("qwen3_5", {}),
    "qwen3_5, one value head a key, short convolution": (
        "qwen3_5", dict(linear_num_key_heads=4, linear_key_head_dim=32, linear_conv_kernel_dim=2,
                        full_attention_interval=3)),
    "qwen3_5_moe": ("qwen3_5_moe", {}),
    "nemotron_h": ("nemotron_h", {}),
    "nemotron_h, latent experts, biases, groups": (
        "nemotron_h", dict(hybrid_override_pattern="M-ME*EM", num_hidden_layers=7,
                           moe_latent_size=64, mamba_proj_bias=True, use_bias=True,
                           attention_bias=True, mlp_bias=True, n_routed_experts=8, n_group=4,
                           topk_group=2, num_experts_per_tok=3, mamba_num_heads=6, n_groups=3,
                           mamba_head_dim=40)),
    "nemotron_h, limited steps, short convolution": (
        "nemotron_h", dict(time_step_limit=[0.4, 0.9], use_conv_bias=False, norm_topk_prob=False,
                           conv_kernel=3)),
    "qwen3_vl, tied": ("qwen3_vl", dict(tied=True, rope_theta=5000000.0)),
    "mimo": ("mimo", dict(rope_theta=640000.0)),
    "smollm3": ("smollm3", dict(tied=True, num_hidden_layers=5)),
    "smollm3, a list of layers": ("smollm3", dict(no_rope_layers=[1, 0, 0, 1], attention_bias=True)),
    "seed_oss": ("seed_oss", dict(mlp_bias=True)),
    "gemma2": ("gemma2", dict(tied=True)),
    "ernie4_5": ("ernie4_5", dict(rope_theta=500000.0)),
    "mistral3": ("mistral3", dict(rope_theta=1000000000.0)),
}
# Whose experts have to be turned first, so that they are run as converted.
TURNED = {
    "qwen3_vl_moe, a dense layer": ("qwen3_vl_moe", dict(mlp_only_layers=[1], num_hidden_layers=3)),
}
# A device's own chunks are tested elsewhere.
CHUNKS = (512, 1, 7, 64) if DEVICE == "cpu" else (512, 1)


class MlxLm(support.TestCase):
    def check(self, folder):
        support.with_tokens(functools.partial(self.check_tokens, folder),
                            *random_tokens(folder, SEED, TOKENS))

    def check_tokens(self, folder, ids):
        self.check_chunks(folder, load_stock(folder), ids, CHUNKS)

    def check_chunks(self, folder, model, ids, chunks):
        expected = support.logits(model, ids)
        for chunk in chunks:
            found = exported.logits(folder, ids, chunk)
            self.assertEqual(found.shape, expected.shape)
            support.assert_near(found, expected, functools.partial(stock_model, folder), ids,
                                f"{folder.name}, {len(ids)} tokens in chunks of {chunk}")

    def check_streamed(self, folder):
        """Weights that are read as they are used give the same bits. Returns how many limits allowed it."""
        ids, _ = random_tokens(folder, SEED, 24)
        whole = exported.logits(folder, ids, 7, "auto")
        total = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        streamed = 0
        for share in (30, 45, 60, 75, 90, 97):
            try:
                found = exported.logits(folder, ids, 7, "auto", weights=total * share // 100)
            except AssertionError as error:
                self.assertIn("weights may take only", str(error))
                continue
            np.testing.assert_array_equal(found, whole, f"{folder.name}, {share} %")
            streamed += 1
        return streamed

    def source(self, name, number, dtype="f32"):
        family, settings = (MODELS | TURNED)[name]
        folder = self.folder / f"{number} {name}"
        make_checkpoint(folder, family, dtype=dtype, seed=SEED + number, **settings)
        return folder

    def test_unquantized(self):
        for number, name in enumerate(MODELS):
            with self.subTest(name):
                folder = self.source(name, number)
                self.check(folder)

    def test_no_family_is_missing(self):
        tested = {family for family, _ in (MODELS | TURNED).values()}
        in_windows = {"gemma3", "gemma3_text", "gemma4", "gpt_oss", "llama4"}
        self.assertEqual(support.documented_families() - tested - in_windows, set())

    def test_chunks_of_recurrences(self):
        """Prompts and steps that end before, at and behind 64 tokens, which is stock mlx_lm's chunk."""
        for number, name in enumerate(("qwen3_next", "qwen3_5", "qwen3_5_moe", "nemotron_h")):
            folder = self.source(name, 200 + number)
            ids, vocabulary = random_tokens(folder, SEED, 2 * TOKENS)

            def check(ids, folder=folder, model=load_stock(folder)):
                for count in (63, 64, 65, 129):
                    self.check_chunks(folder, model, ids[:count], (512, 63, 64, 65))

            support.with_tokens(check, ids, vocabulary)

    def test_quantized(self):
        formats = [("llama", 4, 64, {}), ("qwen2", 8, 128, {}), ("qwen3", 3, 32, {}),
                   ("qwen3_moe", 5, 64, {}), ("mixtral", 2, 32, {}), ("qwen3", 6, 64, {}),
                   ("llama", 4, 32, dict(q_mode="mxfp4")),
                   ("deepseek_v2", 4, 32, {}), ("deepseek_v3", 4, 64, {}), ("glm4_moe_lite", 8, 32, {}),
                   ("deepseek_v3, groups, yarn, uneven heads", 6, 32, {}),
                   ("qwen2_moe", 4, 64, {}),
                   ("glm4_moe", 5, 32, {}), ("granitemoe, tied", 3, 64, {}), ("phi3", 4, 64, {}),
                   ("phimoe", 6, 32, {}), ("qwen3_next", 4, 64, {}),
                   ("qwen3_5", 4, 32, {}), ("qwen3_5_moe", 8, 64, {}),
                   ("nemotron_h", 4, 64, {}),
                   ("nemotron_h, latent experts, biases, groups", 5, 32, {}),
                   ("qwen3_vl, tied", 4, 64, {}), ("qwen3_vl_moe, a dense layer", 4, 64, {}),
                   ("mimo", 5, 32, {}), ("ernie4_5", 6, 64, {}),
                   ("qwen3_moe", 8, 32, dict(q_mode="mxfp8")),
                   ("qwen3_moe", 4, 16, dict(q_mode="nvfp4"))]
        streamed = 0
        for number, (name, bits, group, options) in enumerate(formats):
            with self.subTest(name, bits=bits, group=group):
                source = self.source(name, 100 + number, dtype="bf16")
                folder = source.with_name(f"{source.name} {bits} bits")
                convert_stock(source, folder, bits, group, **options)
                self.check(folder)
                if DEVICE != "cpu":
                    streamed += self.check_streamed(folder)
        if DEVICE != "cpu":
            self.assertGreater(streamed, len(formats))


if __name__ == "__main__":
    exported.main()
