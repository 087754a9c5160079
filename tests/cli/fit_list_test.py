"""`sluice fit` over several budgets: one analysis, one output each, resumable as one job."""

import json
import pathlib
import random
import signal
import subprocess
import tempfile
import time
import unittest

import tiny_model
from tiny_model import sluice

BUDGETS = ("200kB", "300 kB", "0.4MB")
NAMES = ("200kB", "300kB", "0.4MB")


class FitList(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory(prefix="sluice-list-")
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        cls.model = tiny_model.make_model(cls.folder / "model", layers=2, vocab=256)

    def command(self, out, budgets=",".join(BUDGETS)):
        return ["fit", self.model, "--budget", budgets, "-o", out]

    def test_outputs_are_those_of_single_fits(self):
        out = self.folder / "several"
        result = sluice(*self.command(out))
        analysis = pathlib.Path(f"{out}-analysis.jsonl")
        self.assertTrue(analysis.exists())
        for budget, name in zip(BUDGETS, NAMES):
            single = self.folder / f"single-{name}"
            sluice("fit", self.model, "--budget", budget, "-o", single)
            expected, found = tiny_model.files_of(single), tiny_model.files_of(f"{out}-{name}")
            self.assertEqual(expected.pop("analysis.jsonl"), analysis.read_bytes())
            self.assertEqual(found, expected, name)
            self.assertIn(f"{out}-{name}", result.stdout)
            sluice("verify", self.model, f"{out}-{name}")
        left = {path.name for path in self.folder.iterdir() if path.name.startswith("several")}
        self.assertEqual(left, {"several-analysis.jsonl"} | {f"several-{name}" for name in NAMES})

    def test_the_placeholder(self):
        sluice(*self.command(self.folder / "at-{budget}-place", "200kB,300kB"))
        for name in ("at-200kB-place", "at-300kB-place"):
            self.assertTrue((self.folder / name / "model.safetensors").exists())
        self.assertTrue((self.folder / "at-analysis-place.jsonl").exists())
        sluice(*self.command(self.folder / "one-{budget}", "200kB"))
        self.assertTrue((self.folder / "one-200kB" / "model.safetensors").exists())

    def test_json_and_running_again(self):
        out = self.folder / "json"
        first = json.loads(sluice(*self.command(out), "--json").stdout)
        self.assertEqual([o["output"] for o in first["outputs"]], [f"{out}-{n}" for n in NAMES])
        self.assertTrue(all(o["verify"]["passed"] for o in first["outputs"]))
        self.assertFalse(any(o["done_before"] for o in first["outputs"]))
        before = {name: tiny_model.files_of(f"{out}-{name}") for name in NAMES}
        again = json.loads(sluice(*self.command(out), "--json").stdout)
        self.assertTrue(all(o["done_before"] for o in again["outputs"]))
        more = json.loads(sluice(*self.command(out, ",".join(BUDGETS) + ",500kB"), "--json").stdout)
        self.assertEqual([o["done_before"] for o in more["outputs"]], [True, True, True, False])
        self.assertEqual({n: tiny_model.files_of(f"{out}-{n}") for n in NAMES}, before)

    def test_an_impossible_budget_is_known_before_work(self):
        out = self.folder / "impossible"
        result = sluice(*self.command(out, "300kB,1kB"), expect=3)
        self.assertIn("budget of 1.0000 kB is too small", result.stderr)
        self.assertFalse(pathlib.Path(f"{out}-300kB").exists())

    def test_a_foreign_folder_is_left_alone(self):
        out = self.folder / "foreign"
        taken = pathlib.Path(f"{out}-300kB")
        taken.mkdir()
        (taken / "precious").write_text("mine")
        result = sluice(*self.command(out, "200kB,300kB"), expect=3)
        self.assertIn("exists already", result.stderr)
        self.assertFalse(pathlib.Path(f"{out}-200kB").exists())
        self.assertEqual([path.name for path in taken.iterdir()], ["precious"])

    def test_bad_lists(self):
        for budgets in ("8GB,", ",8GB", "8GB,many", "8GB,8GB", "8GB,8 GB", "8"):
            result = sluice(*self.command(self.folder / "bad", budgets), expect=2)
            self.assertIn("--budget", result.stderr)
        sluice("plan", "x", "--budget", "8GB,9GB", expect=2)

    def test_interrupted_and_run_again(self):
        slow = ["--simd", "scalar", "--threads", "1"]
        reference = self.folder / "reference"
        started = time.monotonic()
        sluice(*self.command(reference), *slow)
        seconds = time.monotonic() - started
        rng = random.Random(tiny_model.test_seed())
        out = self.folder / "stopped"
        stops = 0
        for number in (signal.SIGINT, signal.SIGKILL, signal.SIGINT):
            process = subprocess.Popen([tiny_model.BINARY, *map(str, self.command(out)), *slow],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            try:
                process.wait(rng.uniform(0.1, 0.9) * seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(number)
            message = process.communicate(timeout=60)[1]
            stops += process.returncode != 0
            self.assertIn(process.returncode, (0, 5, -number), message)
        sluice(*self.command(out), *slow)
        self.assertGreater(stops, 0)
        for name in NAMES:
            self.assertEqual(tiny_model.files_of(f"{out}-{name}"),
                             tiny_model.files_of(f"{reference}-{name}"), name)
            self.assertFalse(pathlib.Path(f"{out}-{name}.partial").exists())
            self.assertFalse(pathlib.Path(f"{out}-{name}.journal").exists())


class Resumed(unittest.TestCase):
    def test_what_was_done_is_said(self):
        with tempfile.TemporaryDirectory(prefix="sluice-resumed-") as folder:
            folder = pathlib.Path(folder)
            model = tiny_model.make_model(folder / "model", layers=2)
            whole = folder / "whole"
            sluice("analyze", model, "-o", whole)
            lines = whole.read_text().splitlines(keepends=True)
            (folder / "part").write_text("".join(lines[:8]))
            result = sluice("analyze", model, "-o", folder / "part")
            self.assertRegex(result.stderr, r"part: 7 of \d+ modules were analyzed before")
            total = int(result.stderr.split(" of ")[1].split()[0])
            self.assertEqual(total, len(lines) - 2)
            self.assertEqual((folder / "part").read_bytes(), whole.read_bytes())


if __name__ == "__main__":
    tiny_model.skip_without_binary()
    unittest.main()
