"""The same weights as a Hugging Face folder and as a GGUF file, written here with the gguf package
and llama.cpp's own permutation of q and k: both must give the same output, byte for byte."""

import importlib.util

import numpy as np
import support
from gguf_models import ARCHITECTURES, write_gguf
from support import make_checkpoint, read_folder, sluice

SEED = support.test_seed()


class GgufAgainstHuggingFace(support.TestCase):
    def check(self, name, family, **options):
        source, path = self.folder / name, self.folder / f"{name}.gguf"
        make_checkpoint(source, family, seed=SEED, dtype="f32", **options)
        write_gguf(path, source)
        outputs = []
        for model in (source, path):
            out = self.folder / f"{name}-{model.suffix or 'hf'}-out"
            sluice("quantize", model, "--bits", 4, "--group-size", 32, "--dtype", "float16",
                   "-o", out, "--quiet")
            sluice("verify", model, out, "--quiet")
            outputs.append(read_folder(out))
        ours, expected = outputs[1], outputs[0]
        self.assertEqual(sorted(ours), sorted(expected))
        wrong = [n for n in expected if ours[n] != expected[n]]
        if family == "gemma3_text":  # the one that was added takes a few bits of its norms: to the next half
            for norm in [n for n in wrong if n.endswith("norm.weight")]:
                np.testing.assert_allclose(ours[norm].floats(), expected[norm].floats(),
                                           rtol=2**-10, atol=2**-22)
                wrong.remove(norm)
        self.assertEqual(wrong, [])

    def test_every_architecture(self):
        for number, family in enumerate(ARCHITECTURES):
            with self.subTest(family=family):
                tied = number % 2 == 1 and family not in ("qwen2_moe", "glm4_moe", "gpt_oss",
                                                            "deepseek_v3")
                self.check(family, family, tied=tied)

    def test_biases_of_llama_are_permuted_too(self):
        self.check("biased", "llama", attention_bias=True, mlp_bias=True)

    def test_logits_survive(self):
        """The whole model, from GGUF to stock mlx_lm, against the Hugging Face original."""
        source, path, out = (self.folder / n for n in ("whole", "whole.gguf", "whole-out"))
        make_checkpoint(source, "llama", seed=SEED, dtype="f32")
        write_gguf(path, source)
        sluice("quantize", path, "--bits", 8, "--group-size", 32, "-o", out, "--quiet")
        ids = [1, 5, 9, 200, 31, 7]
        found = support.logits(support.load_stock(out), ids)
        expected = support.logits(support.load_stock(source), ids)
        self.assertLessEqual(support.relative_difference(found, expected), 0.05)


if __name__ == "__main__":
    if importlib.util.find_spec("gguf") is None:
        support.skip("the gguf package is not installed; run scripts/setup test")
    support.main(needs_mlx=True)
