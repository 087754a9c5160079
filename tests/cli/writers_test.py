"""Two processes on one output: the second is refused with a sentence while the first lives, and
goes on where it stopped once it was killed. Also what a refused command leaves behind: nothing."""

import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

import tiny_model
from tiny_model import sluice


class Writers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory(prefix="sluice-writers-")
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.model = tiny_model.make_model(cls.folder / "model", layers=2, vocab=256)
        cls.analysis, cls.plan = cls.folder / "analysis", cls.folder / "plan"
        sluice("analyze", cls.model, "-o", cls.analysis)
        sluice("plan", cls.analysis, "--bpw", 5, "-o", cls.plan)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def stopped(self, command, sign):
        """The command, stopped by a signal once the file `sign` holds something."""
        process = subprocess.Popen(
            [tiny_model.BINARY, *map(str, command), "--simd", "scalar", "--threads", "1"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if sign.exists() and sign.stat().st_size > 0:
                process.send_signal(signal.SIGSTOP)
                return process
            time.sleep(0.0005)
        self.fail(f"{command} was never at work: {process.communicate()[1]}")

    def go_on(self, process):
        process.send_signal(signal.SIGCONT)
        _, message = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, message)

    def check(self, name, command, out, sign):
        """command: without its output."""
        reference = self.folder / f"{name}-reference"
        sluice(*command, "-o", reference)
        same = (lambda a, b: a.read_bytes() == b.read_bytes()) if reference.is_file() else (
            lambda a, b: tiny_model.files_of(a) == tiny_model.files_of(b))
        first = self.stopped([*command, "-o", out], sign)
        second = sluice(*command, "-o", out, expect=4)
        self.assertIn("locked by another process", second.stderr)
        self.go_on(first)
        self.assertTrue(same(out, reference))

        other = out.with_name(out.name + "-killed")
        sign = pathlib.Path(str(sign).replace(str(out), str(other)))
        first = self.stopped([*command, "-o", other], sign)
        first.kill()
        first.communicate(timeout=60)
        sluice(*command, "-o", other)
        self.assertTrue(same(other, reference))

    def test_analyze(self):
        out = self.folder / "a.analysis"
        self.check("analyze", ["analyze", self.model], out, out)

    def test_quantize(self):
        out = self.folder / "q"
        self.check("quantize", ["quantize", self.model, "--plan", self.plan], out,
                   self.folder / "q.journal")

    def test_fit(self):
        """Already while it analyzes."""
        out = self.folder / "f"
        self.check("fit", ["fit", self.model, "--bpw", "5"], out,
                   self.folder / "f.partial" / "analysis.jsonl")

    def test_fit_and_quantize_exclude_each_other(self):
        out = self.folder / "fq"
        first = self.stopped(["fit", self.model, "--bpw", "5", "-o", out],
                             self.folder / "fq.partial" / "analysis.jsonl")
        second = sluice("quantize", self.model, "--plan", self.plan, "-o", out, expect=4)
        self.assertIn("locked by another process", second.stderr)
        self.go_on(first)

    def assert_nothing_left(self, out):
        self.assertEqual([path.name for path in self.folder.iterdir()
                          if path.name.startswith(out.name)], [])

    def test_a_refused_fit_leaves_nothing(self):
        other = tiny_model.make_model(self.folder / "other", seed=2)
        out = self.folder / "refused"
        missing = self.folder / "missing.json"
        for options, word in ((["--analysis", self.analysis, "--bpw", "5"], "another source"),
                              (["--device", "Abacus"], "Abacus"),
                              (["--bpw", "5", "--sensitivity", missing], "missing.json"),
                              (["--bpw", "5", "--best", "9/9"], "9/9")):
            with self.subTest(options=options):
                result = sluice("fit", other, *options, "-o", out, expect=3)
                self.assertIn(word, result.stderr)
                self.assert_nothing_left(out)

    def test_a_refused_quantize_leaves_nothing(self):
        other = tiny_model.make_model(self.folder / "another", seed=3, layers=1)
        out = self.folder / "refused-too"
        sluice("quantize", other, "--plan", self.plan, "-o", out, expect=3)
        self.assert_nothing_left(out)

    def test_a_taken_name(self):
        out = self.folder / "taken"
        out.mkdir()
        for command in (["fit", self.model, "--bpw", "5"],
                        ["quantize", self.model, "--plan", self.plan]):
            result = sluice(*command, "-o", out, expect=3)
            self.assertIn("exists already", result.stderr)
            self.assertEqual([path.name for path in self.folder.glob("taken*")], ["taken"])

    def test_somebody_elses_file_in_the_partial_folder(self):
        """Told before the analysis, which is not begun."""
        out = self.folder / "foreign"
        partial = self.folder / "foreign.partial"
        partial.mkdir()
        (partial / "precious.txt").write_text("mine")
        result = sluice("fit", self.model, "--bpw", "5", "-o", out, expect=3)
        self.assertIn("precious.txt", result.stderr)
        self.assertEqual(os.listdir(partial), ["precious.txt"])
        self.assertFalse(pathlib.Path(f"{out}.journal").exists())


if __name__ == "__main__":
    tiny_model.skip_without_binary()
    unittest.main()
