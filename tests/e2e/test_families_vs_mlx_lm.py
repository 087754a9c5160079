#!/usr/bin/env python3
"""Every family's layout against stock mlx_lm.convert, byte for byte, at two settings and in one of
the fp modes; mlx_lm loads what comes out. All formats are test_uniform_vs_mlx_lm.py's."""

import support
from support import FP_MODES, load_stock, make_checkpoint, read_json, sluice, sluice_json

SEED = support.test_seed()
LISTS = dict(short_factor=[1.0 + 0.01 * j for j in range(12)],
             long_factor=[1.0 + 0.4 * j for j in range(12)])

# name → family and keys of config.json.
CASES = {
    "olmoe": ("olmoe", {}),
    "olmoe, biases, tied": ("olmoe", dict(attention_bias=True, tied=True)),
    "qwen2_moe": ("qwen2_moe", {}),
    "glm4_moe": ("glm4_moe", {}),
    "glm4_moe, neither biases nor norms": (
        "glm4_moe", dict(attention_bias=False, use_qk_norm=False, n_shared_experts=2,
                         num_hidden_layers=3)),
    "minimax_m2": ("minimax_m2", {}),
    "minimax_m2, tied, without norms": ("minimax_m2", dict(tied=True, use_qk_norm=False)),
    "granite": ("granite", dict(attention_bias=True, mlp_bias=True)),
    "granite, tied": ("granite", dict(tied=True)),
    "granitemoe": ("granitemoe", {}),
    "granitemoe, tied, biases": ("granitemoe", dict(tied=True, attention_bias=True)),
    "phi3": ("phi3", {}),
    "phi3, tied, longrope": (
        "phi3", dict(tied=True, partial_rotary_factor=0.75, original_max_position_embeddings=64,
                     rope_scaling=dict(type="longrope", **LISTS))),
    "phimoe": ("phimoe", {}),
    "mimo": ("mimo", {}),
    "smollm3, tied": ("smollm3", dict(tied=True)),
    "smollm3, biases": ("smollm3", dict(attention_bias=True, mlp_bias=True)),
    "seed_oss": ("seed_oss", {}),
    "seed_oss, tied, biases": ("seed_oss", dict(tied=True, mlp_bias=True)),
    "ernie4_5": ("ernie4_5", {}),
    "gemma2": ("gemma2", dict(tied=True)),
    "ernie4_5, tied": ("ernie4_5", dict(tied=True)),
    **{family: (family, {}) for family in (
        "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "deepseek_v2", "deepseek_v3",
        "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa", "kimi_k2", "kimi_k25", "qwen3_next",
        "qwen3_5", "qwen3_5_moe", "nemotron_h")},
}
# Those of test_seeing_models.py and test_gpt_oss.py, which have ways of their own.
ELSEWHERE = ("gemma3", "gemma3_text", "gemma4", "llama4", "gpt_oss", "mistral3", "qwen3_vl",
             "qwen3_vl_moe")


class FamiliesAgainstMlxLm(support.ConversionTestCase):
    def source(self, number, family, settings, **options):
        folder = self.folder / f"{number}-{family}"
        make_checkpoint(folder, family, seed=SEED + number, edge_rows=True, **options, **settings)
        return folder

    def test_every_layout(self):
        for number, (name, (family, settings)) in enumerate(CASES.items()):
            source = self.source(number, family, settings, shards=1 + number % 2)
            for bits, group in ((4, 64), (3, 32)):
                with self.subTest(name, bits=bits, group=group):
                    ours = self.compare(source, bits, group)
                    load_stock(ours)
            with self.subTest(name, verified=True):
                report = sluice_json("verify", source, ours)
                self.assertTrue(report["passed"], report["findings"])
            mode = list(FP_MODES)[number % len(FP_MODES)]
            with self.subTest(name, mode=mode):
                self.compare_mode(source, mode)

    def test_no_family_is_missing(self):
        tested = {family for family, _ in CASES.values()} | set(ELSEWHERE)
        self.assertEqual(support.documented_families() - tested, set())

    def test_minimax_in_8_bit_floats(self):
        """As it is published: blocks of 128 by 128, routers and biases not among them."""
        source = self.source(99, "minimax_m2", {}, dtype="fp8")
        self.compare(source, 4, 64)

    def test_inspect_promises_what_quantize_writes(self):
        """Also where mlx_lm gives modules a width of their own, and that the family can be run."""
        source = self.source(100, "granitemoe", {})
        inspected = sluice_json("inspect", source)
        self.assertTrue(inspected["runs"])
        for bits, group in ((4, 64), (8, 64)):
            out = self.folder / f"inspected-{bits}-{group}"
            made = sluice_json("quantize", source, "--bits", bits, "--group-size", group, "-o", out)
            self.assertEqual(made["weight_file_bytes"],
                             inspected["uniform_bytes"][f"{bits}/{group}"])
            quantization = read_json(out / "config.json")["quantization"]
            self.assertEqual(quantization["model.layers.1.self_attn.o_proj"],
                             dict(bits=8, group_size=64))

    def test_inspect_says_what_cannot_be_run(self):
        strange = self.source(102, "olmoe", dict(clip_qkv=8.0))
        inspected = sluice_json("inspect", strange)
        self.assertFalse(inspected["runs"])
        self.assertIn("clip_qkv", inspected["runs_not"])
        self.assertIn("clip_qkv", sluice("inspect", strange).stdout)

    def test_layers_that_mlx_lm_does_not_know_are_refused(self):
        dense = self.source(103, "qwen2_moe", dict(mlp_only_layers=[1]))
        self.assert_refused(["inspect", dense], ["mlp_only_layers"])


if __name__ == "__main__":
    support.main(needs_mlx=True)
