"""Peak resident memory of `sluice run` and `sluice chat`, of the whole process as the operating system
counts it, against what the program computes before it loads a weight: at most weights + keys and
values + 64 MB, whatever the model and its tokenizer; and within 2 % of the computed need once a long
context is full. There, too, a conversation that was saved goes on bit for bit.

With SLUICE_SLOW=1 the long context has 65,536 tokens instead of 4,096; that takes half an hour."""

import json
import os
import re

import support
from support import demo_model, make_checkpoint, measured, real_inputs

BESIDES_BYTES_MAX = 64_000_000
NEED_ERROR_MAX = 0.02
SLOW = os.environ.get("SLUICE_SLOW") == "1"
TEXT = "The quick brown fox jumps over the lazy dog, and then it sleeps. "


class RunMemory(support.TestCase):
    """Prompts longer than a chunk, so that scratch is filled, and a context just as long."""

    def measure(self, name, model, characters, context):
        prompt = self.folder / "prompt"
        prompt.write_text((TEXT * (characters // len(TEXT) + 1))[:characters])
        result = measured(["run", model, "--raw", "-f", prompt, "-n", 8, "--context", context,
                           "--temp", 0, "--json", "--quiet"])
        self.assertEqual(result.code, 0, result.stderr)
        found = json.loads(result.stdout)
        memory = found["memory"]
        print(f"\n{name}: peak {result.peak_bytes / 1e6:.1f} MB; " + " + ".join(
            f"{part} {memory[part] / 1e6:.1f}" for part in ("weights", "kv", "scratch", "program"))
            + f" = {memory['total'] / 1e6:.1f}; {found['prompt_tokens']} tokens of {context}")
        self.assertGreater(found["prompt_tokens"], 0.7 * context)
        allowed = memory["weights"] + memory["kv"] + BESIDES_BYTES_MAX
        self.assertLessEqual(result.peak_bytes, allowed)
        self.assertLessEqual(result.peak_bytes, memory["total"] * (1 + NEED_ERROR_MAX) + 1e6)

    def test_demo_model_and_its_conversion(self):
        if demo_model() is None:
            self.skipTest("the demo model is not there; run scripts/demo_model")
        self.measure("SmolLM2 .gguf", demo_model(), 3000, 800)
        out = self.folder / "demo"
        support.sluice("quantize", demo_model(), "--bits", 4, "-o", out, "--quiet")
        self.measure("SmolLM2 MLX 4/64", out, 3000, 800)

    def test_floats(self):
        for dtype in ("bf16", "f32"):
            model = self.folder / dtype
            make_checkpoint(model, "llama", dtype, hidden_size=1024, intermediate_size=4096,
                            num_hidden_layers=8, num_attention_heads=16, num_key_value_heads=4,
                            vocab_size=32000, max_position_embeddings=4096)
            self.measure(f"llama of 190 million in {dtype}", model, 700, 720)

    def test_small_models(self):
        if real_inputs() is None:
            self.skipTest("SLUICE_REAL_INPUTS is not set")
        self.measure("stories260K", real_inputs() / "models/stories260K/hf", 720, 512)

    def test_large_tokenizers(self):
        """The largest tokenizers in use take more than the weights of small models."""
        if real_inputs() is None:
            self.skipTest("SLUICE_REAL_INPUTS is not set")
        for name, vocabulary in dict(qwen3=151936, mistral_nemo=131072).items():
            source = real_inputs() / "tokenizers" / name
            model = self.folder / name
            make_checkpoint(model, "llama", tied=True, vocab_size=vocabulary, hidden_size=512,
                            intermediate_size=2048, num_attention_heads=8, num_key_value_heads=2,
                            max_position_embeddings=4096)
            for file in ("tokenizer.json", "tokenizer_config.json"):
                (model / file).write_bytes((source / file).read_bytes())
            self.measure(f"llama with the tokenizer of {name}", model, 5000, 1300)


class LongContext(support.TestCase):
    """Random models with wide keys and values. All layers but the first see a window, so that time
    grows with one layer's square; every layer keeps every token."""

    context = 65_536 if SLOW else 4096
    layers, heads = (16, 2) if SLOW else (32, 8)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = cls.folder / "model"
        kinds = ["full_attention"] + ["sliding_attention"] * (cls.layers - 1)
        make_checkpoint(cls.model, "llama", seed=7, num_hidden_layers=cls.layers, head_dim=128,
                        num_attention_heads=cls.heads, num_key_value_heads=cls.heads,
                        intermediate_size=128, max_position_embeddings=cls.context,
                        layer_types=kinds, sliding_window=256)
        (cls.model / "chat_template.jinja").write_text(
            "{% for m in messages %}{{ m['content'] }}\n{% endfor %}")

    def converse(self, kv, *lines):
        result = measured(["chat", self.model, "--context", self.context, "--kv", kv, "--temp", 0,
                           "-n", 24, "--ignore-eos", "--quiet"], text="\n".join(lines) + "\n")
        self.assertEqual(result.code, 0, result.stderr)
        self.assertNotIn("error", result.stderr)
        needed = re.search(r"with a full context ([0-9.]+) ([MG])B", result.stdout)
        return result, float(needed[1]) * dict(M=1e6, G=1e9)[needed[2]]

    def check(self, kv):
        first = (TEXT * (self.context // len(TEXT) + 1))[:self.context - 130]
        middle, end, again = (self.folder / name for name in ("middle", "end", "again"))
        whole, needed = self.converse(kv, first, f"/save {middle}", "And then?", f"/save {end}",
                                      "/stats")
        tokens = int(re.search(r"context: ([0-9]+) of", whole.stdout)[1])
        self.assertGreater(tokens, self.context - 96)
        print(f"\n{kv}, {tokens} tokens: peak {whole.peak_bytes / 1e6:.1f} MB, "
              f"computed {needed / 1e6:.1f} MB, {100 * (whole.peak_bytes / needed - 1):+.2f} %")
        self.assertLess(abs(whole.peak_bytes / needed - 1), NEED_ERROR_MAX)

        resumed, needed = self.converse(kv, f"/load {middle}", "And then?", f"/save {again}",
                                        "/stats")
        self.assertLess(resumed.peak_bytes / needed - 1, NEED_ERROR_MAX)
        self.assertIn("kept", resumed.stdout)  # what was loaded is not run again
        self.assertEqual(again.read_bytes(), end.read_bytes())
        self.assertEqual((self.folder / "again.json").read_text(),
                         (self.folder / "end.json").read_text())

    def test_f16(self):
        self.check("f16")

    def test_q8(self):
        self.check("q8")

    def test_q4(self):
        self.check("q4")


if __name__ == "__main__":
    support.main()
