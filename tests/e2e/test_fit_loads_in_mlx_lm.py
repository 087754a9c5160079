"""`sluice fit` at three budgets per model: stock mlx_lm loads the output unmodified, and its f32
logits equal those of a plain model with the weights that our numpy reference decodes from it."""


import numpy as np
import support
from support import (FAMILIES, decoded_folder, demo_model, greedy, load_stock, logits, make_checkpoint,
                     model_from_arrays, read_json, real_inputs, real_models, relative_difference,
                     sluice, sluice_json, weight_bytes)

SEED = support.test_seed()
TOLERANCE = 1e-4
PROMPT_TOKENS = 24


def budgets(model, analysis):
    """Near the smallest plan, in between, and near the lossless end; bytes."""
    sluice("analyze", model, "-o", analysis, "--quiet")
    smallest = sluice_json("plan", analysis, "--min-safe")["summary"]["weight_file_bytes"]
    curve = sluice_json("plan", analysis, "--sweep")["curve"]
    largest = max(point["tensor_bytes"] for point in curve) + 64 * 1024
    return [smallest + share * (largest - smallest) // 10 for share in (0, 3, 8)]


class FitLoadsInMlxLm(support.TestCase):
    def check_output(self, out, budget):
        self.assertLessEqual(weight_bytes(out), budget)
        config = read_json(out / "config.json")
        vocabulary = config.get("text_config", config)["vocab_size"]
        ids = np.random.default_rng(SEED).integers(3, min(vocabulary, 500), PROMPT_TOKENS)
        stock = logits(load_stock(out), ids.tolist())
        reference = logits(model_from_arrays(config, decoded_folder(out)), ids.tolist())
        self.assertTrue(np.isfinite(stock).all())
        self.assertLessEqual(relative_difference(stock, reference), TOLERANCE)

    def fit_at_three_budgets(self, name, model):
        for number, budget in enumerate(budgets(model, self.folder / f"{name}.analysis")):
            with self.subTest(model=name, budget=budget):
                out = self.folder / f"{name}-{number}"
                sluice("fit", model, "--budget", f"{budget}B", "-o", out, "--quiet")
                self.check_output(out, budget)

    def test_trained_models(self):
        models = real_models()
        if not models:
            self.skipTest("SLUICE_REAL_INPUTS is not set")
        for name, model in models.items():
            self.fit_at_three_budgets(name, model)

    def test_demo_model(self):
        model = demo_model()
        if model is None:
            self.skipTest("the demo model is not there; scripts/demo_model fetches it")
        self.fit_at_three_budgets("demo", model)

    def test_generated_models(self):
        for number, family in enumerate(FAMILIES):
            source = self.folder / family
            make_checkpoint(source, family, seed=SEED + number, shards=1 + number % 3,
                            tied=number % 2 == 0, dtype=("bf16", "f16", "f32")[number % 3])
            self.fit_at_three_budgets(family, source)


class FitWithFpModes(support.TestCase):
    """Affine and fp modules in one model, each with its mode in config.json."""

    def test_mixed_modes_load(self):
        for family in ("llama", "qwen3_moe"):
            source = self.folder / family
            make_checkpoint(source, family, seed=SEED)
            analysis = self.folder / f"{family}.analysis"
            sluice("analyze", source, "-o", analysis, "--quiet")
            for configs in ("mxfp4,mxfp8,nvfp4", "mxfp4,nvfp4,8/64", "3/64,mxfp4,mxfp8"):
                with self.subTest(family=family, configs=configs):
                    out = self.folder / f"{family}-{configs.replace('/', '-')}"
                    made = sluice_json("plan", analysis, "--min-safe", "--configs", configs)
                    smallest = made["summary"]["weight_file_bytes"]
                    sluice("fit", source, "--budget", f"{smallest * 13 // 10}B", "--configs",
                           configs, "--analysis", analysis, "-o", out, "--quiet")
                    self.check_output(out)

    def check_output(self, out):
        config = read_json(out / "config.json")
        formats = {record["format"]["mode"]
                   for record in read_json(out / "sluice.json")["plan"]["tensors"]}
        self.assertTrue(formats & set(support.FP_MODES), formats)
        ids = np.random.default_rng(SEED).integers(3, config["vocab_size"], PROMPT_TOKENS).tolist()
        stock = logits(load_stock(out), ids)
        reference = logits(model_from_arrays(config, decoded_folder(out)), ids)
        self.assertTrue(np.isfinite(stock).all())
        self.assertLessEqual(relative_difference(stock, reference), TOLERANCE)


class QualitySurvives(support.TestCase):
    """A recipe that is wrong in convert and verify alike shows here: the text turns to noise."""

    def setUp(self):
        folder = real_inputs()
        self.models = folder / "models" if folder else None
        if self.models is None or not (self.models / "stories260K/golden").exists():
            self.skipTest("SLUICE_REAL_INPUTS is not set")

    def test_stories_at_eight_bits_tell_the_same_story(self):
        golden = self.models / "stories260K/golden"
        ids = read_json(golden / "golden.json")["ids"][:64]
        expected = np.fromfile(golden / "logits.f32", "<f4")
        expected = expected.reshape(-1, 512)[:64]
        text = (golden / "greedy_from_bos.txt").read_text()
        for name in ("hf", "gguf/stories260K-f32.gguf", "gguf/stories260K-q8_0.gguf"):
            with self.subTest(source=name):
                out = self.folder / name.replace("/", "-")
                sluice("quantize", self.models / "stories260K" / name, "--bits", 8,
                       "--group-size", 32, "-o", out, "--quiet")
                model = load_stock(out)
                found = logits(model, ids)
                if len(expected) == len(ids):
                    self.assertLessEqual(relative_difference(found, expected), 0.05)
                self.assert_same_beginning(out, model, text)

    def assert_same_beginning(self, out, model, text):
        """Greedy text from the first token, as far as a quantized model may be held to it."""
        from mlx_lm.utils import load_tokenizer

        tokenizer = load_tokenizer(out)
        found = tokenizer.decode(greedy(model, [tokenizer.bos_token_id], 40)).strip()
        beginning = text.strip()[:40]
        self.assertEqual(found[:40], beginning)

    def test_experts_at_eight_bits_predict_alike(self):
        source = self.models / "tiny-qwen3-moe"
        if not source.exists():
            self.skipTest("no tiny-qwen3-moe")
        golden = read_json(source / "golden/golden.json")
        expected = np.fromfile(source / "golden/logits.f32", "<f4").reshape(8, -1)
        out = self.folder / "moe-8"
        sluice("quantize", source, "--bits", 8, "--group-size", 64, "-o", out, "--quiet")
        found = logits(load_stock(out), golden["ids"])[-8:]
        self.assertLessEqual(relative_difference(found, expected), 0.1)
        self.assertGreaterEqual(int((found.argmax(-1) == expected.argmax(-1)).sum()), 7)


if __name__ == "__main__":
    support.main(needs_mlx=True)
