"""Models of full size as they are published, whose weights are holes of sparse files: inspect, plan from a
fabricated analysis of the whole, conversion and verification of layers, each command's memory measured
whole-process.

    test_sparse_models.py SLUICE FABRICATE PEAK [whole]

One layer of the smaller ones is converted; as `whole`, which needs SLUICE_SLOW=1, two layers of all,
which reads some 90 GB of holes and takes 15 GB in TMPDIR. Needs configs/hf of the real inputs."""

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import support
from sparse_files import write_sparse

FABRICATE = sys.argv.pop(2) if len(sys.argv) > 3 else ""
PEAK_BYTES_MAX = int(sys.argv.pop(2).removesuffix("MB")) * 10**6 if len(sys.argv) > 2 else 0
WHOLE = len(sys.argv) > 2 and sys.argv.pop(2) == "whole"
WHOLE_DISK_BYTES = 15_000_000_000
# The type they are published in, a budget, and two layers, one of each kind where there are two.
MODELS = {
    "Qwen--Qwen3-30B-A3B": ("bf16", "12GB", "0-1"),
    "Qwen--Qwen3.5-397B-A17B": ("bf16", "200GB", "2-3"),
    "deepseek-ai--DeepSeek-V3": ("fp8", "300GB", "2-3"),
    "moonshotai--Kimi-K2-Instruct": ("fp8", "400GB", "0-1"),
    "openai--gpt-oss-120b": ("mxfp4", "60GB", "0-1"),
}
# gpt-oss is in test_sparse_layers.py: groups of nothing but zeros are checked row by row there.
QUICK = {"Qwen--Qwen3-30B-A3B": "0", "deepseek-ai--DeepSeek-V3": "0"}



class SparseModels(support.TestCase):
    def measured(self, what, *command, program=None, bytes_read=0):
        start = time.monotonic()
        result = support.measured([*command], **(dict(program=program) if program else {}))
        seconds = time.monotonic() - start
        rate = f", {bytes_read / seconds / 1e9:.2f} GB/s" if bytes_read else ""
        print(f"  {what}: {seconds:.1f} s{rate}, peak {result.peak_bytes / 1e6:.1f} MB", flush=True)
        self.assertEqual(result.code, 0, result.stderr)
        self.assertLessEqual(result.peak_bytes, PEAK_BYTES_MAX)
        return result

    def check_plan(self, model, budget):
        whole, plan = self.folder / "whole", self.folder / "plan.json"
        self.measured("inspect", "inspect", model, "--quiet")
        self.measured("fabricate", model, whole, program=FABRICATE)
        self.measured(f"plan for {budget}", "plan", whole, "--budget", budget, "-o", plan, "--quiet")
        exact = json.loads(plan.read_text())["exact_bytes"]
        self.assertLessEqual(exact, int(budget.removesuffix("GB")) * 10**9)
        whole.unlink()
        plan.unlink()

    def check_layers(self, model, layers, bits):
        out = self.folder / "out"
        chosen = support.sluice_json("inspect", model, "--layers", layers)
        weights = chosen["parameters"]
        # What a weight takes in the source, on the average of the whole.
        read = weights * chosen["source_bytes"] / support.sluice_json("inspect", model)["parameters"]
        self.measured(f"quantize layers {layers}, {weights / 1e9:.1f} billion weights", "quantize",
                      model, "--layers", layers, "--bits", bits, "--group-size", 128, "-o", out,
                      "--quiet", bytes_read=read)
        record = json.loads((out / "sluice.json").read_text())["plan"]
        ends = [int(layer) for layer in layers.split("-")]
        self.assertEqual(record["only_layers"], f"{ends[0]}-{ends[-1]}")
        self.assertTrue(all(ends[0] <= t["layer"] <= ends[-1] for t in record["tensors"]))
        self.measured(f"verify layers {layers}", "verify", model, out, "--quiet", bytes_read=read)
        shutil.rmtree(out)

    def test_published_models(self):
        inputs = support.real_inputs()
        if inputs is None:
            self.skipTest("SLUICE_REAL_INPUTS is not set")
        for name, (dtype, budget, layers) in MODELS.items():
            with self.subTest(name):
                config = support.read_json(inputs / f"configs/hf/{name}_config.json")
                model = self.folder / name
                count, total = write_sparse(model, config, dtype)
                print(f"{name}: {count} tensors, {total / 1e9:.0f} GB", flush=True)
                self.check_plan(model, budget)
                if WHOLE or name in QUICK:
                    self.check_layers(model, layers if WHOLE else QUICK[name], 2)
                shutil.rmtree(model)


if __name__ == "__main__":
    if WHOLE and not os.environ.get("SLUICE_SLOW"):
        support.skip("this takes long; set SLUICE_SLOW=1 to run it")
    if WHOLE and shutil.disk_usage(tempfile.gettempdir()).free < WHOLE_DISK_BYTES:
        support.skip(f"{WHOLE_DISK_BYTES / 1e9:.0f} GB of disk are needed in {tempfile.gettempdir()}")
    support.main()
