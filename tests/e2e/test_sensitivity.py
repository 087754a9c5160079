"""Measured sensitivities: made, interrupted, planned with, and held against what whole plans really
do to what a model predicts."""

import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import support
from support import binary, sluice, sluice_json


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


class Measuring(support.TestCase):
    """On a model with random weights, whose text is noise, but which has all the parts."""

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(dir=self.folder))
        self.model = self.folder / "model"
        support.make_checkpoint(self.model, "qwen3_moe", seed=3)
        self.analysis = self.folder / "model.analysis"
        self.table = self.folder / "model.analysis.sensitivity.json"
        self.arguments = ["analyze", self.model, "-o", self.analysis, "--best", "none",
                          "--sensitivity", "data-free", "--sensitivity-tokens", 192]

    def measure(self, *more, **options):
        return sluice(*self.arguments, *more, **options)

    def test_a_table_of_every_module(self):
        said = self.measure().stderr
        self.assertIn("of memory", said)
        self.assertIn("passes over 192 tokens", said)
        table = json.loads(self.table.read_text())
        found = sluice_json("plan", self.analysis, "--bpw", 5, "--sensitivity", self.table)
        modules = [t for t in found["plan"]["tensors"] if t["quantizable"]]
        names = {f"{t['path']}.{t['parameter']}" for t in modules}
        self.assertEqual(set(table["modules"]), names)
        self.assertEqual(table["unit"], "nats")
        self.assertEqual(table["measurement"]["scored_tokens"], 192)
        self.assertEqual(table["measurement"]["passes"], len(names))
        self.assertFalse((self.folder / "model.analysis.sensitivity.json.journal").exists())
        predicted = found["plan"]["predicted_kl"]
        self.assertEqual(predicted, found["summary"]["predicted_kl"])
        self.assertAlmostEqual(predicted, found["plan"]["cost"], delta=1e-9 * predicted)
        text = sluice("plan", self.analysis, "--bpw", 5, "--sensitivity", self.table).stdout
        self.assertIn("predicted KL divergence from the original", text)
        prior = sluice_json("plan", self.analysis, "--bpw", 5)
        self.assertNotIn("predicted_kl", prior["plan"])

        # The smallest plan within a divergence: within it, and no larger than one that is.
        bound = predicted * 1.5
        smallest = sluice_json("plan", self.analysis, "--max-kl", bound, "--sensitivity", self.table)
        self.assertLessEqual(smallest["plan"]["predicted_kl"], bound)
        self.assertLess(smallest["plan"]["exact_bytes"], found["plan"]["exact_bytes"])
        refused = sluice("plan", self.analysis, "--max-kl", bound, expect=support.BAD_INPUT)
        self.assertIn("--max-kl takes measured sensitivities", refused.stderr)
        linear = sluice("plan", self.analysis, "--max-kl", bound, "--sensitivity", self.table,
                        "--objective", "nrmse-linear", expect=support.BAD_INPUT)
        self.assertIn("nrmse-squared", linear.stderr)

    def test_killed_and_run_again_it_is_the_same(self):
        journal = self.folder / "model.analysis.sensitivity.json.journal"
        command = [binary(), *map(str, self.arguments), "--threads", "1"]
        for wanted in (1, 3, 9):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while process.poll() is None and lines(journal) < wanted:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.wait()
        self.measure()
        interrupted = self.table.read_bytes()
        self.table.unlink()
        self.measure()
        self.assertEqual(self.table.read_bytes(), interrupted)
        # A second time there is nothing to do; another measurement is not mixed with this one.
        before = os.stat(self.table).st_mtime_ns
        self.measure()
        self.assertEqual(os.stat(self.table).st_mtime_ns, before)
        other = self.measure("--sensitivity-tokens", 256, expect=None)
        self.assertEqual(other.returncode, support.BAD_USAGE)  # given twice
        self.arguments[-1] = 256
        self.assertIn("was measured on another model or otherwise",
                      self.measure(expect=support.BAD_INPUT).stderr)

    def test_streamed_weights_give_the_same(self):
        self.measure()
        whole = self.table.read_bytes()
        self.table.unlink()
        need = int(os.stat(self.model / "model.safetensors").st_size)
        result = self.measure("--memory", "40MB", expect=None)
        if result.returncode == 0:
            self.assertEqual(self.table.read_bytes(), whole)
        else:  # a model this small leaves nothing to stream
            self.assertIn("memory", result.stderr)
            self.assertLess(need, 40_000_000)

    def test_on_a_text_of_the_users(self):
        text = self.folder / "text"
        text.write_text("One two three four five six seven. " * 200)
        self.arguments[self.arguments.index("data-free")] = text
        self.measure()
        measurement = json.loads(self.table.read_text())["measurement"]
        self.assertNotEqual(measurement["text"], "self-generated")
        self.assertGreaterEqual(measurement["scored_tokens"], 192)

    def test_whole_models_alone(self):
        for more in (["--layers", "0"], ["--part", "1/2"], ["--features"]):
            self.assertIn("--sensitivity measures whole models",
                          self.measure(*more, expect=support.BAD_INPUT).stderr)

    def test_fit_at_every_effort(self):
        found = {}
        for effort in ("fast", "normal", "best"):
            out = self.folder / effort
            arguments = ["fit", self.model, "--bpw", 4.5, "--effort", effort, "-o", out]
            result = sluice_json(*arguments)
            plan = json.loads((out / "sluice.json").read_text())["plan"]
            encoders = {t["encoder"] for t in plan["tensors"] if t["quantizable"]}
            if effort != "best":
                self.assertEqual("best" in encoders, effort == "normal")
            self.assertEqual((out / "gate.json").exists(), effort == "best")
            self.assertEqual(list(self.folder.glob(f"{effort}.trial*")), [])
            if effort == "best":
                # Whatever the trials of a random model say, the plan is the one that they chose.
                gate = json.loads((out / "gate.json").read_text())
                self.assertEqual(len(gate["scores"]), len(gate["variants"]))
                names = {variant["plan"]: variant["name"] for variant in gate["variants"]}
                levers = names[plan["digest"]]
                self.assertEqual("feedback" in encoders, levers != "without error feedback")
                measured = levers != "without measured sensitivities"
                self.assertEqual(plan["sensitivity"].startswith("measured-1@"), measured)
            else:
                self.assertNotIn("feedback", encoders)
            # What products were recorded with is as large as the model, and not kept.
            self.assertFalse(Path(f"{out}.activations").exists())
            self.assertEqual("predicted_kl" in plan, effort == "best" and measured)
            self.assertEqual((out / "sensitivity.json").exists(), effort == "best")
            self.assertEqual(result["run"]["measure_s"] > 0, effort == "best")
            found[effort] = plan
        sluice("verify", self.model, self.folder / "best")
        if not found["best"]["sensitivity"].startswith("measured-1@"):
            return
        table = self.folder / "best/sensitivity.json"
        table.write_text(table.read_text().replace('"passes"', '"passages"'))
        failed = sluice("verify", self.model, self.folder / "best", expect=1)
        self.assertIn("is not the table that the plan was made from", failed.stdout)


class Prediction(support.TestCase):
    """Predicted against measured divergence of whole plans of trained models."""

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(dir=self.folder))

    def check(self, model, text, budgets):
        analysis = self.folder / "analysis"
        sluice("analyze", model, "-o", analysis, "--sensitivity", text, "--sensitivity-tokens", 2048)
        table = self.folder / "analysis.sensitivity.json"
        for budget in budgets:
            out, plan = self.folder / f"out-{budget}", self.folder / f"plan-{budget}.json"
            sluice("plan", analysis, "--bpw", budget, "--sensitivity", table, "-o", plan)
            sluice("quantize", model, "--plan", plan, "-o", out, "--quiet")
            predicted = json.loads(plan.read_text())["predicted_kl"]
            measured = sluice_json("eval", out, "--text", text, "--against", model, "--context", 256,
                                   "--windows", 24)["kl"]["mean"]
            print(f"{model}: {budget} bits per weight: predicted {predicted:.5f}, "
                  f"measured {measured:.5f}")
            # To first order, and largest errors are beyond that: at 4 bits 1.6 was seen.
            self.assertTrue(0.5 < predicted / measured < 2, budget)

    def test_stories(self):
        if support.real_inputs() is None:
            self.skipTest("SLUICE_REAL_INPUTS is not set")
        text = self.folder / "story"
        source = support.real_inputs() / "corpora/tinystories_sample_944k.txt"
        text.write_text(source.read_text()[:60_000])
        self.check(support.real_inputs() / "models/stories260K/hf", text, (11, 12))  # a third of it fits no group

    def test_tiny_moe(self):
        if support.real_inputs() is None:
            self.skipTest("SLUICE_REAL_INPUTS is not set")
        model = support.real_inputs() / "models/tiny-qwen3-moe"
        self.check(model, model / "val.txt", (4, 5, 6))


if __name__ == "__main__":
    support.main()
