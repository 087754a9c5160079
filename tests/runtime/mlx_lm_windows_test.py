#!/usr/bin/env python3
"""Logits against stock mlx_lm in float32 of families whose layers see windows or chunks of the context:
prefill at once, in pieces, and token by token, over several windows; and the same bits where experts
do not fit into memory. Arguments: as in exported.py."""

import functools

import exported
import numpy as np
import support
from support import convert_stock, load_stock, make_checkpoint, random_tokens, stock_model

SEED = support.test_seed()
TOKENS = 51  # of windows and chunks of 16: the tokens before, at and behind three boundaries
YARN = dict(beta_fast=32.0, beta_slow=1.0, factor=32.0, original_max_position_embeddings=4096,
            rope_type="yarn")


class Models(support.TestCase):
    def source(self, family, name, dtype="bf16", **settings):
        folder = self.folder / name
        make_checkpoint(folder, family, dtype=dtype, seed=SEED, **settings)
        return folder

    def converted(self, source, bits=None, group=None):
        folder = source.with_name(f"{source.name} {bits or 'unquantized'}")
        convert_stock(source, folder, bits, group)
        return folder


class Windows(Models):
    def check(self, folder):
        support.with_tokens(functools.partial(self.check_tokens, folder),
                            *random_tokens(folder, SEED, TOKENS))

    def check_tokens(self, folder, ids):
        expected = support.logits(load_stock(folder), ids)
        for chunk in (512, 1, 15, 16, 17):  # steps that end before, at and behind boundaries
            found = exported.logits(folder, ids, chunk)
            self.assertEqual(found.shape, expected.shape)
            support.assert_near(found, expected, functools.partial(stock_model, folder), ids,
                                f"{folder.name}, chunks of {chunk}")

    def check_streaming(self, folder):
        ids, _ = random_tokens(folder, SEED, TOKENS)
        whole, notes = exported.logits_and_notes(folder, ids, 7)
        self.assertNotIn("read from disk", notes)
        size = support.weight_bytes(folder)
        streamed = 0
        for share in (0.5, 0.65, 0.8, 0.95):
            try:
                part, notes = exported.logits_and_notes(folder, ids, 7,
                                                        weights=int(size * share))
            except AssertionError as refused:  # less than two tokens' experts
                self.assertIn("takes at least", str(refused))
                continue
            streamed += "read from disk" in notes
            np.testing.assert_array_equal(part, whole)
        self.assertGreater(streamed, 0)

    def test_gpt_oss(self):
        """Stock mlx_lm knows no other yarn than the one of whole dimensions."""
        source = self.source("gpt_oss", "gpt_oss", dtype="mxfp4", rope_scaling=YARN,
                             num_hidden_layers=3)
        self.check(source)
        self.check(self.converted(source, 4, 32))
        self.check_streaming(source)

    def test_gpt_oss_of_odd_shape(self):
        """As wide as it is tall no longer; every layer but one sees a window."""
        source = self.source("gpt_oss", "gpt_oss odd", dtype="mxfp4", rope_scaling=None,
                             intermediate_size=96, hidden_size=160, num_attention_heads=6,
                             num_key_value_heads=2, num_local_experts=7, num_experts_per_tok=3,
                             num_hidden_layers=3, sliding_window=17,
                             layer_types=["full_attention", *["sliding_attention"] * 2])
        self.check(source)

    def test_gemma3(self):
        for number, (family, settings) in enumerate((
                ("gemma3_text", {}), ("gemma3_text", dict(tied=True, sliding_window=17)),
                ("gemma3", dict(tied=True, num_hidden_layers=4, sliding_window_pattern=3,
                                rope_scaling=dict(rope_type="linear", factor=8.0))))):
            with self.subTest(family, **settings):
                source = self.source(family, f"{number} {family}", **settings)
                self.check(source)
                self.check(self.converted(source, 4, 64))

    def test_gemma4(self):
        """Widths whose roots are whole numbers: stock mlx_lm rounds them to the model's type, which
        is another one here."""
        kinds = dict(s="sliding_attention", g="full_attention")
        small = dict(attention_k_eq_v=False, num_global_key_value_heads=None,
                     enable_moe_block=False, num_experts=None, top_k_experts=None,
                     moe_intermediate_size=None, hidden_size_per_layer_input=64)
        for number, (layers, settings) in enumerate((
                ("sgs", {}),
                ("ssgsg", dict(sliding_window=17, num_attention_heads=6, num_key_value_heads=3,
                               final_logit_softcapping=2.0, num_experts=6, top_k_experts=3)),
                ("sgsgsg", dict(small, num_kv_shared_layers=3, use_double_wide_mlp=True)),
                ("sgg", dict(small, num_kv_shared_layers=1, hidden_size_per_layer_input=0)))):
            with self.subTest(layers, **settings):
                source = self.source("gemma4", f"{number} gemma4", hidden_size=256,
                                     num_hidden_layers=len(layers),
                                     layer_types=[kinds[kind] for kind in layers], **settings)
                self.check(source)
                folder = self.converted(source, 4, 32)
                self.check(folder)
                if number == 1:
                    self.check_streaming(folder)

    def test_llama4(self):
        """Experts come fused and turned, so that both run what stock mlx_lm makes of them."""
        for number, settings in enumerate((
                {}, dict(interleave_moe_layer_step=2, use_qk_norm=False, rope_scaling=None),
                dict(attention_bias=True, attention_chunk_size=17, floor_scale=5, num_hidden_layers=8,
                     num_attention_heads=6, attn_temperature_tuning=False))):
            with self.subTest(**settings):
                source = self.source("llama4", f"{number} llama4", **settings)
                self.check(self.converted(source))
                folder = self.converted(source, 4, 32)
                self.check(folder)
                self.check_streaming(folder)


if __name__ == "__main__":
    exported.main()
