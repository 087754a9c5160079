"""Ctrl-C and kill -9 at random moments of `sluice fit`: exit code 5 for the first, nothing under
the final name for both, and the same command goes on to the bytes of an undisturbed run."""

import pathlib
import random
import signal
import subprocess
import tempfile
import time
import unittest

import tiny_model
from tiny_model import sluice

SEED = tiny_model.test_seed()
STOPS = 3


class Interrupt(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory(prefix="sluice-interrupt-")
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.model = tiny_model.make_model(cls.folder / "model", layers=2, vocab=256)
        started = time.monotonic()
        sluice(*cls.command(cls.folder / "reference"))
        cls.seconds = time.monotonic() - started
        cls.reference = tiny_model.files_of(cls.folder / "reference")

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    @classmethod
    def command(cls, out):
        # Slow enough to be stopped in every stage.
        return ["fit", cls.model, "--bpw", "5", "-o", out, "--simd", "scalar", "--threads", "1"]

    def stop_at_random(self, out, number, rng):
        """Returns the exit code."""
        process = subprocess.Popen([tiny_model.BINARY, *map(str, self.command(out))],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            process.wait(rng.uniform(0.02, self.seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        self.message = process.communicate(timeout=60)[1]
        return process.returncode

    def check_stops(self, number, stopped_code):
        rng = random.Random(SEED)
        stops = 0
        for attempt in range(STOPS):
            out = self.folder / f"{signal.Signals(number).name}-{attempt}"
            for _ in range(2):
                code = self.stop_at_random(out, number, rng)
                if code == 0 or out.exists():
                    break
                stops += 1
                # Before the program has begun, the system ends it.
                self.assertIn(code, (stopped_code, -number), self.message)
                if code == 5:
                    self.assertIn("run the same command again", self.message)
            if code != 0:
                sluice(*self.command(out))
            self.assertEqual(tiny_model.files_of(out), self.reference)
            self.assertFalse(pathlib.Path(f"{out}.partial").exists())
            self.assertFalse(pathlib.Path(f"{out}.journal").exists())
        self.assertGreater(stops, 0, "no run was stopped")

    def test_interrupt(self):
        self.check_stops(signal.SIGINT, 5)

    def test_kill(self):
        self.check_stops(signal.SIGKILL, -signal.SIGKILL)


if __name__ == "__main__":
    tiny_model.skip_without_binary()
    unittest.main()
