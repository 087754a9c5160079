"""The language models of Gemma 3 and Llama 4, alone and as parts of models that also see, against stock
mlx_lm.convert, byte for byte."""

import json

import numpy as np
import support
from support import (convert_stock, decoded_folder, make_checkpoint, read_folder, read_json, sluice,
                     sluice_json)

SEED = support.test_seed()
FAMILIES = ("gemma3_text", "gemma3", "gemma4", "llama4", "mistral3", "qwen3_vl", "qwen3_vl_moe")


class SeeingModels(support.TestCase):
    def source(self, family, **options):
        folder = self.folder / f"{family}-{len(list(self.folder.iterdir()))}"
        make_checkpoint(folder, family, seed=SEED, edge_rows=True, **options)
        return folder

    def check(self, source, bits, group, mode=None):
        ours, theirs = (source.with_name(f"{source.name}-{mode or bits}-{group}-{who}")
                        for who in ("ours", "mlx"))
        convert_stock(source, theirs, bits, group, **(dict(q_mode=mode) if mode else {}))
        format = ("--mode", mode) if mode else ("--bits", bits, "--group-size", group)
        result = sluice("quantize", source, *format, "-o", ours)
        expected, found = read_folder(theirs), read_folder(ours)
        self.assertEqual(sorted(found), sorted(expected), "tensor names")
        self.assertEqual([n for n in expected if found[n] != expected[n]], [])
        config, stock = (read_json(f / "config.json") for f in (ours, theirs))
        self.assertEqual(config["quantization"], stock["quantization"])
        self.assertNotIn("vision_config", config)
        self.assertTrue(sluice_json("verify", source, ours)["passed"])
        support.load_stock(ours)
        return ours, result

    def test_every_family(self):
        for number, family in enumerate(FAMILIES):
            source = self.source(family, shards=1 + number, tied=family == "gemma3")
            for bits, group in ((4, 64), (3, 32), (8, 128), (5, 64)):
                with self.subTest(family=family, bits=bits, group=group):
                    self.check(source, bits, group)
            for mode, (bits, group) in support.FP_MODES.items():
                with self.subTest(family=family, mode=mode):
                    self.check(source, bits, group, mode)

    def test_other_types(self):
        for dtype in ("f16", "f32"):
            for family in FAMILIES:
                with self.subTest(family=family, dtype=dtype):
                    self.check(self.source(family, dtype=dtype), 4, 32)

    def test_dense_layers_and_biases(self):
        self.check(self.source("qwen3_vl_moe", mlp_only_layers=[1], num_hidden_layers=3), 4, 64)
        self.check(self.source("llama4", interleave_moe_layer_step=2, attention_bias=True,
                               num_local_experts=3), 6, 64)

    def test_gemma4_of_few_parameters(self):
        """Keys and values that are borrowed, and inputs of their own for every layer."""
        types = ["sliding_attention", "full_attention"]
        self.check(self.source("gemma4", num_hidden_layers=6, layer_types=types * 3,
                               num_kv_shared_layers=2, use_double_wide_mlp=True,
                               hidden_size_per_layer_input=128, attention_k_eq_v=False,
                               num_global_key_value_heads=None, enable_moe_block=False,
                               num_experts=None, top_k_experts=None, moe_intermediate_size=None),
                   4, 64)

    def test_other_parts_are_left_out_with_a_note(self):
        for family in ("gemma3", "llama4", "mistral3", "qwen3_vl_moe"):
            result = sluice("inspect", self.source(family))
            self.assertIn("vision part is left out", result.stdout + result.stderr)

    def test_a_text_model_that_was_taken_out(self):
        """Its type is one that mlx_lm does not know, and the output's is the whole model's."""
        for family in ("qwen3_5", "qwen3_5_moe"):
            with self.subTest(family):
                whole = self.source(family)
                config = read_json(whole / "config.json")
                prefix = "model.language_model."
                tensors = {n.replace(prefix, "model."): (t.dtype, t.shape, t.data)
                           for n, t in read_folder(whole).items()
                           if n.startswith((prefix, "lm_head."))}
                folders = {}
                for model_type in (f"{family}_text", family):
                    folder = folders[model_type] = whole.with_name(f"{whole.name}-{model_type}")
                    folder.mkdir()
                    for name in whole.glob("*tok*.json"):
                        (folder / name.name).write_bytes(name.read_bytes())
                    (folder / "config.json").write_text(json.dumps(dict(
                        config["text_config"], model_type=model_type, torch_dtype="bfloat16",
                        architectures=config["architectures"])))
                    support.write_safetensors(folder / "model.safetensors", tensors)
                ours, theirs = (whole.with_name(f"{whole.name}-{who}") for who in ("ours", "mlx"))
                convert_stock(folders[family], theirs, 4, 64)
                sluice("quantize", folders[f"{family}_text"], "--bits", 4, "-o", ours)
                expected, found = read_folder(theirs), read_folder(ours)
                self.assertEqual(sorted(found), sorted(expected))
                self.assertEqual([n for n in expected if found[n] != expected[n]], [])
                self.assertEqual(read_json(ours / "config.json")["model_type"], family)
                support.load_stock(ours)

    def test_columns_become_rows(self):
        """Against the published meaning of fused experts, by neither program."""
        source = self.source("llama4", dtype="f32")
        ours = source.with_name(f"{source.name}-meaning")
        sluice("quantize", source, "--bits", 8, "--group-size", 32, "-o", ours, "--quiet")
        stored, decoded = read_folder(source), decoded_folder(ours)
        experts = "language_model.model.layers.1.feed_forward.experts."
        both = stored[f"{experts}gate_up_proj"].floats().swapaxes(1, 2)
        width = both.shape[1] // 2
        wanted = dict(gate_proj=both[:, :width], up_proj=both[:, width:],
                      down_proj=stored[f"{experts}down_proj"].floats().swapaxes(1, 2))
        for name, values in wanted.items():
            found = decoded[f"{experts}{name}.weight"]
            self.assertEqual(found.shape, values.shape)
            self.assertLess(float(np.abs(found - values).max()),
                            float(np.abs(values).max()) / 100, name)

    def test_what_does_not_fit_is_named(self):
        source = self.source("llama4")
        path = source / "model.safetensors"
        tensors = {n: (t.dtype, t.shape, t.data) for n, t in read_folder(source).items()}
        name = "language_model.model.layers.0.feed_forward.experts.gate_up_proj"
        dtype, shape, data = tensors[name]
        tensors[name] = (dtype, (shape[0], shape[2], shape[1]), data)
        support.write_safetensors(path, tensors)
        self.assert_refused(("inspect", source),
                            (name.removeprefix("language_model."), "should have shape"))
        del tensors[name]
        support.write_safetensors(path, tensors)
        self.assert_refused(("inspect", source), (name.removeprefix("language_model."), "missing"))


if __name__ == "__main__":
    support.main(needs_mlx=True)
