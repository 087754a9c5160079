"""`sluice inspect` before anything is downloaded: config.json alone, or with an index, promises what the
weights would; families that are not supported are sized and refused by name; and, with the folder of
real inputs, every published configuration in it."""

import json
import shutil
import subprocess

import support
from support import BAD_INPUT, binary, make_checkpoint, read_json, sluice, sluice_json

SEED = support.test_seed()
FAMILIES = support.load_tool("make_checkpoint").FAMILIES
# The types in which families are published, where that is not bfloat16 alone.
DTYPES = {"deepseek_v3": "fp8", "kimi_k2": "fp8", "minimax_m2": "fp8", "gpt_oss": "mxfp4"}
TIED = ("llama", "qwen3", "gemma2", "gemma3", "gemma3_text", "granite", "smollm3", "qwen3_vl")
STRANGE = dict(model_type="deepseek_v4", hidden_size=4096, num_hidden_layers=43, head_dim=512,
               num_attention_heads=64, num_key_value_heads=1, vocab_size=129280, q_lora_rank=1024,
               o_lora_rank=1024, o_groups=8, n_routed_experts=256, n_shared_experts=1,
               num_experts_per_tok=6, moe_intermediate_size=2048, tie_word_embeddings=False)

# Parameters in billions, all and those that a token uses, of published configurations; None where
# nothing as precise was published. Embeddings count with both, as most publishers have it.
PUBLISHED = {
    # Model cards of the Qwen organisation on huggingface.co, "Number of Parameters".
    "Qwen--Qwen3-8B": (8.2, None),
    "Qwen--Qwen3-32B": (32.8, None),
    "Qwen--Qwen3-30B-A3B": (30.5, 3.3),
    "Qwen--Qwen3-235B-A22B": (235, 22),
    "Qwen--Qwen3-Coder-480B-A35B-Instruct": (480, 35),
    "Qwen--Qwen3.5-27B": (27, None),
    "Qwen--Qwen3.5-35B-A3B": (35, None),
    "Qwen--Qwen3.5-122B-A10B": (122, 10),
    "Qwen--Qwen3.5-397B-A17B": (397, 17),
    # DeepSeek-V3's card: "671B total parameters with 37B activated"; its indexer adds 0.9.
    "deepseek-ai--DeepSeek-V3": (671, 37),
    "deepseek-ai--DeepSeek-R1": (671, 37),
    "deepseek-ai--DeepSeek-V3.2": (671, 37),
    # The paper says 1,040, which is 61 layers with experts; the first of its 61 has none.
    "moonshotai--Kimi-K2-Instruct": (1040 - 384 * 3 * 7168 * 2048 / 1e9, 32.6),
    # Cards of zai-org: "355B-A32B", "30B-A3B", "744B parameters (40B active)".
    "zai-org--GLM-4.7": (355, None),
    "zai-org--GLM-4.7-Flash": (30, None),
    "zai-org--GLM-5": (744, 40),
    # The model card's table: 116.83B and 20.91B; 5.13B and 3.61B active, without the embedding.
    "openai--gpt-oss-120b": (116.83, 5.13 + 201088 * 2880 / 1e9),
    "openai--gpt-oss-20b": (20.91, 3.61 + 201088 * 2880 / 1e9),
    # Llama 4's card, less about 0.87B that see.
    "meta-llama--Llama-4-Scout-17B-16E-Instruct": (109 - 0.87, 17),
    "meta-llama--Llama-4-Maverick-17B-128E-Instruct": (400, 17),
    # "The Llama 3 Herd of Models", and the hub's counts.
    "meta-llama--Meta-Llama-3.1-8B": (8.03, None),
    "meta-llama--Meta-Llama-3.1-70B": (70.6, None),
    "meta-llama--Meta-Llama-3.1-405B": (405, None),
    # "Mixtral of Experts"; the announcement of 8x22B.
    "mistralai--Mixtral-8x7B-v0.1": (46.7, 12.9),
    "mistralai--Mixtral-8x22B-v0.1": (141, 39),
    "MiniMaxAI--MiniMax-M2.5": (230, None),
    # Reports of Nemotron 3: 31.6B with 3.6B active; the names of the others.
    "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": (31.6, 3.6),
    "nvidia--NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16": (550, 55),
    "google--gemma-4-26B-A4B": (25.2, 3.8),
    "ibm-granite--granite-3.1-1b-a400m-instruct": (1.33, None),
}
# Of families without a table: estimates.
PUBLISHED_ABOUT = {
    "deepseek-ai--DeepSeek-V4-Flash": (284, 13),
    "deepseek-ai--DeepSeek-V4-Pro": (1600, 49),
    "XiaomiMiMo--MiMo-V2-Flash": (309, 15),
    "nvidia--Llama-3_3-Nemotron-Super-49B-v1": (49.9, None),
}
ACTIVE_SHARE = 0.06  # publishers round, and count embeddings differently


def inspect(path, *arguments):
    """Exit code, the report, and what was said on stderr."""
    result = subprocess.run([binary(), "inspect", str(path), "--json", "--quiet", *arguments],
                            capture_output=True, text=True, timeout=120)
    return result.returncode, json.loads(result.stdout), result.stderr


class Inspect(support.TestCase):
    def bare(self, source, *names):
        """A folder with these files of the source and nothing else."""
        folder = source.with_name(f"{source.name}-bare-{len(list(self.folder.iterdir()))}")
        folder.mkdir()
        for name in ("config.json", *names):
            shutil.copy(source / name, folder / name)
        return folder

    def source(self, family, **options):
        folder = self.folder / f"{family}-{len(list(self.folder.iterdir()))}"
        make_checkpoint(folder, family, seed=SEED, **options)
        return folder

    def write_config(self, config, name="config.json"):
        folder = self.folder / f"config-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        text = config if isinstance(config, str) else json.dumps(config)
        (folder / name).write_text(text)
        return folder / name

    def test_a_configuration_promises_what_quantize_writes(self):
        for family in FAMILIES:
            with self.subTest(family):
                source = self.source(family, tied=family in TIED, shards=2,
                                     dtype=DTYPES.get(family, "bf16"))
                out = source.with_name(f"{source.name}-out")
                made = sluice_json("quantize", source, "--bits", 4, "-o", out)
                full = sluice_json("inspect", source)
                index = "model.safetensors.index.json"
                for bare in (self.bare(source), self.bare(source, index)):
                    found = sluice_json("inspect", bare)
                    self.assertEqual(found["sizes_from"], "config")
                    self.assertEqual(found["uniform_bytes"], full["uniform_bytes"])
                    self.assertEqual(found["uniform_bytes"]["4/64"], made["weight_file_bytes"])
                    for key in ("parameters", "active_parameters", "layers", "experts", "roles",
                                "prepares", "kv_bytes", "devices", "tied"):
                        self.assertEqual(found[key], full[key], key)
                self.assertEqual(found["source_bytes"],
                                 read_json(source / index)["metadata"]["total_size"])
                shutil.rmtree(out)
                shutil.rmtree(source)

    def test_what_has_to_be_prepared_before_it_runs(self):
        """Experts that have to be turned, and 8-bit floats: their configurations say no such thing."""
        for family, dtype in (("qwen3_vl_moe", "bf16"), ("deepseek_v3", "fp8")):
            source = self.source(family, dtype=dtype)
            report = sluice_json("inspect", source)
            self.assertFalse(report["runs"])
            self.assertIn("`sluice fit` makes a model of it", report["runs_not"])
            self.assertTrue(report["prepares"])
            self.assertTrue(sluice_json("inspect", self.bare(source))["runs"])

    def test_the_file_itself_under_any_name(self):
        bare = self.bare(self.source("qwen3_moe"))
        named = bare / "Some--Model_config.json"
        (bare / "config.json").rename(named)
        report = sluice_json("inspect", named)
        self.assertEqual(report["family"], "qwen3_moe")
        self.assertLess(report["active_parameters"], report["parameters"])
        text = sluice("inspect", named).stdout
        self.assertIn("no weights were looked at", text)
        self.assertIn("Memory from which it fits", text)

    def test_an_index_that_does_not_fit_is_named(self):
        source = self.source("llama", shards=2)
        bare = self.bare(source, "model.safetensors.index.json")
        path = bare / "model.safetensors.index.json"
        index = read_json(path)
        name = "model.layers.1.mlp.up_proj.weight"
        index["weight_map"]["model.layers.1.mlp.other.weight"] = index["weight_map"].pop(name)
        path.write_text(json.dumps(index))
        self.assert_refused(("inspect", bare), (name, "missing", "mlp.other", "does not belong"))

    def test_a_family_that_mlx_lm_does_not_know(self):
        path = self.write_config(STRANGE)
        code, report, stderr = inspect(path)
        self.assertEqual(code, BAD_INPUT)
        self.assertFalse(report["prepares"] or report["runs"])
        self.assertEqual(report["sizes_from"], "estimate")
        self.assertAlmostEqual(report["parameters"] / 284e9, 1, delta=0.03)
        self.assertAlmostEqual(report["active_parameters"] / 13e9, 1, delta=0.05)
        self.assertAlmostEqual(report["uniform_bytes"]["4/64"] / report["parameters"], 4.5 / 8, 3)
        self.assertIn("stock mlx_lm cannot load model_type deepseek_v4", stderr)
        result = sluice("inspect", path, expect=BAD_INPUT)
        self.assertIn("about 284 billion, of which a token uses about 13.4 billion", result.stdout)
        self.assertIn("not supported (deepseek_v4)", result.stdout)
        self.assertIn("no: stock mlx_lm cannot load model_type deepseek_v4", result.stdout)
        self.assert_refused(("quantize", path.parent, "--bits", 4, "-o", self.folder / "x"), (),
                            out=self.folder / "x")

    def test_weights_that_are_refused_are_sized_all_the_same(self):
        source = self.source("qwen3")
        config = read_json(source / "config.json")
        config["quantization_config"] = dict(quant_method="bitsandbytes", load_in_4bit=True)
        (source / "config.json").write_text(json.dumps(config))
        code, report, stderr = inspect(source)
        self.assertEqual(code, BAD_INPUT)
        self.assertIn("bitsandbytes", stderr)
        self.assertIn("bitsandbytes", report["prepares_not"])
        self.assertEqual(report["sizes_from"], "config")
        self.assertGreater(report["parameters"], 0)

    def test_settings_that_are_not_known(self):
        config = dict(STRANGE, model_type="glm_moe_dsa", num_hidden_layers=2, kv_lora_rank=64,
                      qk_nope_head_dim=64, v_head_dim=64, qk_rope_head_dim=32, index_n_heads=2,
                      index_head_dim=32, first_k_dense_replace=1, intermediate_size=128,
                      indexer_types=["full", "shared"])
        code, report, stderr = inspect(self.write_config(config))
        self.assertEqual(code, BAD_INPUT)
        self.assertIn("indexer_types", stderr)
        self.assertEqual(report["sizes_from"], "estimate")

    def test_numbers_as_python_writes_them(self):
        config = read_json(self.source("llama") / "config.json")
        text = json.dumps(dict(config, limits=[0.0, float("inf"), float("nan")], note="Infinity"))
        self.assertIn("Infinity,", text)
        self.assertEqual(inspect(self.write_config(text))[0], 0)
        self.assert_refused(("inspect", self.write_config(text.replace("NaN", "NoN"))),
                            ("malformed JSON",))

    def test_json_that_is_no_model(self):
        for content, words in (('{"weights": 3}', ("model_type",)), ("[]", ("model_type",)),
                               ("{", ("malformed JSON",))):
            self.assert_refused(("inspect", self.write_config(content, "x.json")), words)
        empty = self.folder / "empty"
        empty.mkdir()
        self.assert_refused(("inspect", empty), ("empty",))

    def test_what_one_device_would_do_with_it(self):
        config = dict(model_type="qwen3_moe", hidden_size=2048, intermediate_size=6144,
                      num_hidden_layers=48, num_attention_heads=32, num_key_value_heads=4,
                      head_dim=128, num_experts=128, num_experts_per_tok=8,
                      moe_intermediate_size=768, vocab_size=151936, tie_word_embeddings=False,
                      torch_dtype="bfloat16", rms_norm_eps=1e-6, norm_topk_prob=True)
        path = self.write_config(config)
        report = sluice_json("inspect", path)
        self.assertEqual(report["kv_bytes"], 2 * 48 * 4 * 128 * 2 * 8192)
        self.assertEqual(report["devices"]["M2 16GB"], "2/64")
        text = sluice("inspect", path, "--device", "M2 16GB").stdout
        for words in ("uniform 4/64 (17.18 GB) does not fit, uniform 2/64 (9.551 GB) does.",
                      "2/64: a token reads 1.049 GB from memory of 100.0 GB/s: at most 95 tokens/s",
                      "4/64: a token reads", "sluice fit MODEL --device"):
            self.assertIn(words, " ".join(text.split()))
        self.assertLessEqual(max(map(len, text.splitlines())), 100)
        long = sluice("inspect", path, "--device", "M2 16GB", "--context", "131072").stdout
        self.assertIn("use up", " ".join(long.split()))
        self.assertIn("fits", sluice("inspect", path, "--device", "M4 Max 64GB").stdout)
        self.assert_refused(("inspect", path, "--device", "Abacus"), ("Abacus",))

    def test_every_published_configuration(self):
        inputs = support.real_inputs()
        if inputs is None:
            self.skipTest("SLUICE_REAL_INPUTS is not set")
        names = [path for path in sorted((inputs / "configs/hf").glob("*_config.json"))
                 if not path.name.endswith("hf_quant_config.json")]
        self.assertGreaterEqual(len(names), 88)
        for path in names:
            name = path.name.removesuffix("_config.json")
            with self.subTest(name):
                code, report, stderr = inspect(path)
                self.assertIn(code, (0, BAD_INPUT), stderr)
                self.assertEqual(report["model_type"], json.loads(
                    path.read_text().replace("Infinity", "0"))["model_type"])
                self.assertGreater(report["parameters"], 1e8)
                self.assertGreater(report["uniform_bytes"]["4/64"], report["parameters"] / 2)
                self.assertGreater(len(report["devices"]), 50)
                self.assertEqual(report["prepares"], code == 0)
                self.assertEqual(len(stderr.splitlines()), int(code != 0))
                exact = report["sizes_from"] == "config"
                self.assertTrue(exact or name not in PUBLISHED, "no table")
                total, active = PUBLISHED.get(name) or PUBLISHED_ABOUT.get(name) or (None, None)
                if total is not None:
                    self.assertAlmostEqual(report["parameters"] / 1e9 / total, 1,
                                           delta=0.01 if exact else 0.03)
                if active is not None:
                    self.assertAlmostEqual(report["active_parameters"] / 1e9 / active, 1,
                                           delta=ACTIVE_SHARE)

    def test_every_published_index(self):
        inputs = support.real_inputs()
        if inputs is None:
            self.skipTest("SLUICE_REAL_INPUTS is not set")
        folders = sorted((inputs / "configs/index").iterdir())
        self.assertGreaterEqual(len(folders), 7)
        known = 0
        for folder in folders:
            with self.subTest(folder.name):
                if not (folder / "config.json").exists():
                    self.assert_refused(("inspect", folder), (folder.name,))
                    continue
                code, report, stderr = inspect(folder)
                self.assertIn(code, (0, BAD_INPUT), stderr)
                known += report["sizes_from"] == "config"
                index = read_json(folder / "model.safetensors.index.json")
                self.assertEqual(report["files"], len(set(index["weight_map"].values())))
                self.assertEqual(report["source_bytes"],
                                 index["metadata"].get("total_size", 0))
        self.assertGreaterEqual(known, 5)


if __name__ == "__main__":
    support.main(needs_mlx=False)
