"""`sluice run` in less memory than the weights take: the same text at every limit, from MLX folders,
floats, mixtures of experts and .gguf files; the peak of the whole process, as the operating system
counts it, within the limit together with the pages of the files that it made the system keep; the same
under a control group that enforces it."""

import contextlib
import json

import page_cache
import support
from support import demo_model, make_checkpoint, measured, sluice

OVER_MAX = 0.02
PROMPT = "The quick brown fox jumps over the lazy dog, and then"


class RunStreaming(support.TestCase):
    def run_in(self, model, memory=None, group=None, more=()):
        limit = ["--memory", f"{memory / 1e6:.6f}MB", *more] if memory else []
        result = measured(["run", model, "--raw", "-p", PROMPT, "-n", 12, "--temp", 0,
                           "--context", 128, "--json", "--quiet", *limit], group)
        self.assertEqual(result.code, 0, result.stderr)
        return json.loads(result.stdout), result.peak_bytes

    def check(self, name, model):
        whole, _ = self.run_in(model)
        self.assertEqual(whole["disk_bytes_read"], 0)
        weights, total = whole["memory"]["weights"], whole["memory"]["total"]
        for share in (0.15, 0.4, 0.8):
            limit = int(total - weights * (1 - share)) + 8_000_000
            watch = page_cache.Watch(model) if page_cache.THERE else contextlib.nullcontext()
            with watch:
                found, peak = self.run_in(model, limit)
            cached = watch.most if page_cache.THERE else 0
            print(f"\n{name}, {share:.0%} of {weights / 1e6:.0f} MB: limit {limit / 1e6:.0f} MB, "
                  f"peak {peak / 1e6:.1f} MB and {cached / 1e6:.1f} MB of page cache, "
                  f"{found['disk_bytes_read'] / 1e6:.0f} MB read")
            self.assertEqual(found["text"], whole["text"])
            self.assertGreater(found["disk_bytes_read"], 0)
            self.assertLessEqual(found["memory"]["total"], limit)
            self.assertLessEqual(peak + cached, limit * (1 + OVER_MAX))
        return whole, limit

    def test_dense(self):
        model = self.folder / "dense"
        make_checkpoint(model, "llama", "bf16", hidden_size=512, intermediate_size=2048,
                        num_hidden_layers=16, num_attention_heads=8, num_key_value_heads=4,
                        vocab_size=8000)
        self.check("dense bf16", model)
        out = self.folder / "dense-4"
        sluice("quantize", model, "--bits", 8, "-o", out, "--quiet")
        whole, limit = self.check("dense 8/64", out)
        group = support.MemoryGroup.create(limit + 10_000_000)  # and what the kernel holds for it
        if group is not None:
            with group:
                found, _ = self.run_in(out, limit, group)
            self.assertEqual(found["text"], whole["text"])

    def test_experts(self):
        model = self.folder / "experts"
        make_checkpoint(model, "qwen3_moe", "bf16", hidden_size=512, num_hidden_layers=8,
                        num_experts=32, num_experts_per_tok=2, moe_intermediate_size=256,
                        num_attention_heads=8, num_key_value_heads=2, vocab_size=4000)
        self.check("experts bf16", model)
        out = self.folder / "experts-4"
        sluice("quantize", model, "--bits", 4, "-o", out, "--quiet")
        self.check("experts 4/64", out)

    def test_traces_and_profiles(self):
        """What a run chose is written down, played again under every rule, and begun with."""
        model, trace = self.folder / "routed", self.folder / "routed.trace"
        profile = model / "sluice_experts.json"
        make_checkpoint(model, "qwen3_moe", "bf16", hidden_size=512, num_hidden_layers=6,
                        num_experts=16, num_experts_per_tok=2, moe_intermediate_size=256,
                        num_attention_heads=8, num_key_value_heads=2, vocab_size=4000)
        whole, _ = self.run_in(model)
        self.assertFalse(profile.exists(), "nothing takes turns")
        limit = int(whole["memory"]["total"] - whole["memory"]["weights"] * 0.5)
        found, _ = self.run_in(model, limit, more=["--no-expert-profile", "--reads", "threads"])
        self.assertEqual(found["text"], whole["text"])
        self.assertFalse(profile.exists())
        first, _ = self.run_in(model, limit, more=["--expert-trace", trace])
        self.assertEqual(json.loads(profile.read_text())["version"], 1)
        second, _ = self.run_in(model, limit)
        self.assertEqual([first["text"], second["text"]], [whole["text"]] * 2)
        self.assertGreater(second["experts_in_memory"], first["experts_in_memory"])
        replay = json.loads(sluice("doctor", "--replay", trace, "--json").stdout)
        for row in replay["hit_rates"]:
            for rule in ("lru", "lfu", "next-use"):
                self.assertLessEqual(row[rule], row["belady"])
        profile.write_text("{}")
        damaged, _ = self.run_in(model, limit)
        self.assertEqual(damaged["text"], whole["text"])
        [outlook] = json.loads(sluice("doctor", model, "--json").stdout)["models"]
        self.assertEqual(outlook["memory"][0]["disk_bytes_token"], 0)
        least = [row["disk_bytes_token"] for row in outlook["memory"] if "refusal" not in row]
        self.assertEqual(least, sorted(least), "less memory, more from disk")
        refused = sluice("run", model, "--raw", "-p", "x", "--expert-trace", trace,
                         "--reads", "steam", expect=2)
        self.assertIn("--reads", refused.stderr)

    def test_gguf(self):
        if demo_model() is None:
            self.skipTest("the demo model is not there; run scripts/demo_model")
        self.check("SmolLM2 .gguf", demo_model())


if __name__ == "__main__":
    support.main()
