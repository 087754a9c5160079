"""Uniform parity output against stock mlx_lm.convert, byte for byte, on checkpoints made afresh for
every family at every (bits, group): tensors, names, configuration and index."""

import json

import support
from support import (BITS, FAMILIES, FP_MODES, GROUPS, convert_stock, make_checkpoint, read_folder,
                     read_json, sluice, sluice_json)

SEED = support.test_seed()


class UniformAgainstMlxLm(support.ConversionTestCase):
    def source(self, family, **options):
        folder = self.folder / f"{family}-{len(list(self.folder.iterdir()))}"
        make_checkpoint(folder, family, seed=SEED, edge_rows=True, **options)
        return folder

    def test_every_family_and_format(self):
        for number, family in enumerate(FAMILIES):
            source = self.source(family, shards=1 + number % 2,
                                 tied=number % 2 == 1 and family != "deepseek_v3")
            for bits in BITS:
                for group in GROUPS:
                    with self.subTest(family=family, bits=bits, group=group):
                        self.compare(source, bits, group)

    def test_every_family_and_fp_mode(self):
        for number, family in enumerate(FAMILIES):
            source = self.source(family, shards=1 + number % 2,
                                 tied=number % 2 == 1 and family != "deepseek_v3")
            for mode in FP_MODES:
                with self.subTest(family=family, mode=mode):
                    ours = self.compare_mode(source, mode)
                    report = sluice_json("verify", source, ours)
                    self.assertTrue(report["passed"], report["findings"])
                    self.assertEqual(report["reencoded_modules"], report["modules"])

    def test_fp_modes_of_other_types(self):
        for source_dtype, dtype in [("f16", None), ("f32", None), ("f32", "bfloat16"),
                                    ("bf16", "float16")]:
            source = self.source("qwen3", dtype=source_dtype)
            for mode in FP_MODES:
                with self.subTest(source=source_dtype, output=dtype, mode=mode):
                    self.compare_mode(source, mode, dtype)

    def test_fp_groups_that_do_not_divide(self):
        """As mlx_lm leaves them: unquantized, for want of another group."""
        source = self.source("llama", intermediate_size=176)
        for mode in FP_MODES:
            with self.subTest(mode=mode):
                self.compare_mode(source, mode)

    def test_options_of_a_mode_must_agree(self):
        source = self.source("llama")
        for options, sentence in [(("--mode", "mxfp4", "--bits", 8), "mxfp4 has 4 bits"),
                                  (("--mode", "nvfp4", "--group-size", 32), "groups of 16"),
                                  (("--mode", "mxfp8", "--parity", "gpu"), "CPU rule"),
                                  (("--mode", "affine",), "needs --bits"),
                                  (("--bits", 4, "--group-size", 16), "nvfp4")]:
            with self.subTest(options=options):
                out = self.folder / "refused"
                result = sluice("quantize", source, *options, "-o", out, expect=2)
                self.assertIn(sentence, result.stderr)
                self.assertFalse(out.exists())
        sluice("quantize", source, "--mode", "nvfp4", "--bits", 4, "--group-size", 16, "-o",
               self.folder / "agreed", "--quiet")

    def test_other_types(self):
        for dtype in ("f16", "f32"):
            source = self.source("qwen3", dtype=dtype)
            for bits in BITS:
                with self.subTest(source=dtype, bits=bits):
                    self.compare(source, bits, 64)

    def test_chosen_type(self):
        for source_dtype, dtype in [("f32", "bfloat16"), ("bf16", "float16"), ("bf16", "float32"),
                                    ("f32", "float16")]:
            source = self.source("llama", dtype=source_dtype)
            for bits in (3, 4, 8):
                with self.subTest(source=source_dtype, output=dtype, bits=bits):
                    self.compare(source, bits, 32, dtype)

    def test_biases_everywhere(self):
        source = self.source("llama", attention_bias=True, mlp_bias=True)
        self.compare(source, 4, 64)

    def test_dense_layers_among_sparse_ones(self):
        source = self.source("qwen3_moe", mlp_only_layers=[0], num_hidden_layers=3)
        self.compare(source, 4, 64)
        source = self.source("qwen3_moe", decoder_sparse_step=2, num_hidden_layers=4)
        self.compare(source, 3, 32)

    def test_hybrids(self):
        """What a loader does to their norms and convolutions, in every type; other shapes; dense layers
        among sparse ones; biases; other parts of the model in other shards."""
        self.compare(self.source("qwen3_5", dtype="f32"), 5, 32, "bfloat16")
        self.compare(self.source("qwen3_next", dtype="f32"), 5, 32, "float16")
        self.compare(self.source("qwen3_5_moe", dtype="f16", shards=3, tied=True), 2, 64)
        self.compare(self.source("qwen3_next", dtype="f16", mlp_only_layers=[1], num_hidden_layers=5,
                                 attention_bias=True), 8, 64)
        self.compare(self.source("qwen3_5", linear_num_key_heads=4, linear_num_value_heads=4,
                                 linear_key_head_dim=32, linear_conv_kernel_dim=3,
                                 full_attention_interval=2), 4, 64)

    def test_layers_by_a_pattern(self):
        self.compare(self.source("nemotron_h"), 4, 64)
        self.compare(self.source("nemotron_h", mamba_proj_bias=True, attention_bias=True,
                                 mlp_bias=True, use_conv_bias=False, moe_latent_size=64,
                                 hybrid_override_pattern="MEM*E-", shards=2), 3, 32)
        self.compare(self.source("nemotron_h", dtype="f32"), 8, 64, "bfloat16")

    def test_converted_hybrids_stay(self):
        """A folder of mlx_lm's is a source like any other: nothing is shifted or turned again."""
        for family in ("qwen3_next", "qwen3_5", "qwen3_5_moe"):
            source = self.source(family)
            plain = source.with_name(f"{source.name}-plain")
            convert_stock(source, plain, None, None)
            self.compare(plain, 4, 64)

    def test_latent_attention(self):
        """What deepseek_v3 can look like: q at full rank, uneven head widths, biases, several shared
        experts, sparse layers now and then, a layer for multi-token prediction."""
        self.compare(self.source("deepseek_v3", q_lora_rank=None, qk_nope_head_dim=64,
                                 kv_lora_rank=192, v_head_dim=96, num_attention_heads=2), 4, 32)
        self.compare(self.source("deepseek_v3", attention_bias=True, n_shared_experts=2,
                                 moe_layer_freq=2, num_hidden_layers=4, first_k_dense_replace=0,
                                 shards=3), 5, 64)
        self.compare(self.source("deepseek_v3", dtype="f32"), 3, 64, "float16")
        self.compare(self.source("kimi_k2"), 6, 128)

    def test_families_of_latent_attention(self):
        for number, (family, options) in enumerate([
                ("deepseek_v2", {}),
                ("deepseek_v2", dict(q_lora_rank=None, n_shared_experts=2, attention_bias=True)),
                ("glm4_moe_lite", dict(num_nextn_predict_layers=2)),
                ("glm4_moe_lite", dict(qk_nope_head_dim=192, num_hidden_layers=3)),
                ("deepseek_v32", {}), ("deepseek_v32", dict(dtype="fp8", attention_bias=True)),
                ("glm_moe_dsa", {}), ("kimi_k25", {}), ("kimi_k25", dict(dtype="f32"))]):
            with self.subTest(family=family, **options):
                source = self.source(family, shards=1 + number % 2, **options)
                self.compare(source, (4, 3, 8, 6)[number % 4], 64)
                if "dtype" not in options:
                    self.compare_mode(source, "mxfp4")

    def test_layers_for_several_tokens_are_dropped(self):
        """The stock loader knows such a layer by the number that it has in DeepSeek V3."""
        source = self.source("deepseek_v3")
        extra = source.with_name(f"{source.name}-extra")
        make_checkpoint(extra, "deepseek_v3", seed=SEED, num_hidden_layers=1,
                        first_k_dense_replace=0, num_nextn_predict_layers=1)
        tensors = {name.replace("layers.0.", "layers.61."): (t.dtype, t.shape, t.data)
                   for name, t in read_folder(extra).items() if "layers.0." in name}
        tensors.update({name: (t.dtype, t.shape, t.data) for name, t in read_folder(source).items()})
        support.write_safetensors(source / "model.safetensors", tensors, {"format": "pt"})
        self.compare(source, 4, 64)

    def test_fp8_blocks(self):
        self.compare(self.source("deepseek_v3", dtype="fp8", shards=2), 4, 64)
        self.compare(self.source("deepseek_v3", dtype="fp8"), 8, 32)
        # Blocks that do not divide rows or columns, and heads that begin inside a block.
        self.compare(self.source("kimi_k2", dtype="fp8", intermediate_size=352, hidden_size=160,
                                 moe_intermediate_size=96, kv_lora_rank=192, qk_nope_head_dim=64,
                                 v_head_dim=96), 3, 32)

    def test_fp8_blocks_of_other_families(self):
        """Stock mlx_lm does not load these; the values are those of the published recipe."""
        source = self.source("qwen3_moe", dtype="fp8", num_experts=3)
        plain = source.with_name(f"{source.name}-plain")
        plain.mkdir()
        config = read_json(source / "config.json")
        del config["quantization_config"]
        (plain / "config.json").write_text(json.dumps(config))
        stored, decoded = read_folder(source), {}
        for name, tensor in stored.items():
            if name.endswith("scale_inv"):
                continue
            decoded[name] = (tensor.dtype, tensor.shape, tensor.data)
            if tensor.dtype == "F8_E4M3":
                values = support.decode_fp8_blocks(tensor, stored[f"{name}_scale_inv"], 128)
                decoded[name] = ("F32", tensor.shape, values.astype("<f4").tobytes())
        support.write_safetensors(plain / "model.safetensors", decoded)
        outs = []
        for model in (source, plain):
            outs.append(model.with_name(f"{model.name}-out"))
            sluice("quantize", model, "--bits", 4, "-o", outs[-1], "--quiet")
        found, expected = map(read_folder, outs)
        self.assertEqual([n for n in expected if found[n] != expected[n]], [])
        self.assertTrue(sluice_json("verify", source, outs[0])["passed"])

    def test_inspect_promises_what_quantize_writes(self):
        source = self.source("qwen3_moe")
        sizes = sluice_json("inspect", source)["uniform_bytes"]
        for mode in FP_MODES:
            made = sluice_json("quantize", source, "--mode", mode, "-o",
                               self.folder / f"inspected-{mode}")
            self.assertEqual(made["weight_file_bytes"], sizes[mode], mode)
        for bits, group in ((4, 32), (3, 64), (8, 128)):
            out = self.folder / f"inspected-{bits}-{group}"
            made = sluice_json("quantize", source, "--bits", bits, "--group-size", group, "-o", out)
            self.assertEqual(made["weight_file_bytes"], sizes[f"{bits}/{group}"], (bits, group))

    def test_several_shards_of_output_order(self):
        source = self.source("qwen3_moe", shards=5, num_experts=12)
        self.compare(source, 5, 64)

    def test_group_that_does_not_divide(self):
        """mlx_lm leaves such modules unquantized; Sluice gives them a smaller group and says so."""
        source = self.source("llama", intermediate_size=160)
        ours = self.folder / "uneven-ours"
        theirs = self.folder / "uneven-mlx"
        convert_stock(source, theirs, 4, 64)
        result = sluice("quantize", source, "--bits", 4, "--group-size", 64, "-o", ours)
        self.assertIn("smaller group", result.stderr)
        quantization = read_json(ours / "config.json")["quantization"]
        for layer in range(2):
            override = quantization[f"model.layers.{layer}.mlp.down_proj"]
            self.assertEqual((override["bits"], override["group_size"]), (4, 32))
        expected, found = read_folder(theirs), read_folder(ours)
        for name in expected:
            if "down_proj" not in name:
                self.assertEqual(found[name], expected[name], name)
        support.load_stock(ours)


if __name__ == "__main__":
    support.main(needs_mlx=True)
