"""Device profiles of the user's own, and the message polish around sizes and names."""

import json
import os
import pathlib
import tempfile
import unittest

import tiny_model
from tiny_model import sluice

GIB = 1 << 30


class Devices(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="sluice-devices-")
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.config = self.folder / "sluice"
        self.config.mkdir()

    def run_with(self, *arguments, expect=0):
        return sluice(*arguments, expect=expect,
                      env={**os.environ, "XDG_CONFIG_HOME": str(self.folder)})

    def write(self, text, name="devices.toml"):
        (self.config / name).write_text(text)

    def devices(self):
        listed = json.loads(self.run_with("devices", "--json").stdout)["devices"]
        return {device["name"]: device for device in listed}

    def test_a_new_device(self):
        before = self.devices()
        self.write('[devices."Lab box"]\nmemory = "64GiB"\nmemory-rate = "80GB/s"\n'
                   'disk-internal = "3GB/s"\n')
        after = self.devices()
        self.assertEqual(set(after) - set(before), {"Lab box"})
        device = after["Lab box"]
        self.assertEqual(device["memory_bytes"], 64 * GIB)
        self.assertEqual(device["usable_bytes"], 56 * GIB)
        self.assertEqual(device["memory_bytes_per_s"], 80_000_000_000)
        self.assertEqual(device["origin"], f"{self.config / 'devices.toml'}:1")
        self.assertEqual({other["origin"] for other in before.values()}, {"built-in"})
        table = self.run_with("devices").stdout
        self.assertRegex(table, r"Lab box .* devices\.toml:1\n")
        self.assertLessEqual(max(map(len, table.splitlines())), 100)

    def test_a_built_in_one_changed(self):
        before = self.devices()["M2 16GB"]
        self.write('[devices."m2-16gb"]\nusable = "14GiB"\n')
        after = self.devices()["m2-16gb"]
        self.assertEqual(after["usable_bytes"], 14 * GIB)
        for key in ("memory_bytes", "kind", "memory_bytes_per_s", "disk_internal_bytes_per_s"):
            self.assertEqual(after[key], before[key])

    def test_both_files(self):
        self.write('threads = 1\n[devices.Box]\nmemory = "8GiB"\n', "config.toml")
        self.write('[devices.Box]\nusable = "7GiB"\n')
        device = self.devices()["Box"]
        self.assertEqual((device["memory_bytes"], device["usable_bytes"]), (8 * GIB, 7 * GIB))
        self.assertTrue(device["origin"].endswith("devices.toml:1"))

    def test_a_device_is_planned_for(self):
        model = tiny_model.make_model(self.folder / "model")
        sluice("analyze", model, "-o", self.folder / "a")
        self.write('[devices."Tiny"]\nmemory = "2GiB"\nusable = "1GiB"\n')
        result = self.run_with("plan", self.folder / "a", "--device", "tiny")
        self.assertIn("as set in", result.stderr)
        lines = result.stderr.splitlines()
        self.assertLessEqual(max(map(len, lines)), 100, result.stderr)
        fits = json.loads(self.run_with("inspect", model, "--json").stdout)["devices"]
        self.assertEqual(fits["Tiny"], "16-bit")

    def test_the_arithmetic_of_every_device_fits_a_window(self):
        model = tiny_model.make_model(self.folder / "model")
        sluice("analyze", model, "-o", self.folder / "a")
        for name in ("M2 16GB", "iPhone 15 Pro", "RTX 3090 24GB"):
            result = self.run_with("plan", self.folder / "a", "--device", name, expect=None)
            if result.returncode == 0:
                self.assertLessEqual(max(map(len, result.stderr.splitlines())), 100, result.stderr)

    def refused(self, text, *parts, name="devices.toml"):
        self.write(text, name)
        result = self.run_with("devices", expect=3)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        for part in (str(self.config / name), *parts):
            self.assertIn(part, result.stderr)

    def test_mistakes_are_named(self):
        self.refused('[devices.A]\nmemroy = "8GiB"\n', "devices.toml:2:", 'did you mean "memory"?')
        self.refused('[devices.A]\nmemory = 8\n', "devices.toml:2:", "no unit")
        self.refused('[devices.A]\nusable = "8GiB"\n', "devices.toml:1:", "no memory")
        self.refused('[devices.A]\nmemory = "8GiB"\nusable = "9GiB"\n', "devices.toml:1:", "usable")
        self.refused('[devices.A]\nmemory = "8GiB"\n[devices.a]\nmemory = "8GiB"\n',
                     "devices.toml:3:", "twice")
        self.refused('[devices."--"]\nmemory = "8GiB"\n', "devices.toml:1:", "letters")
        self.refused('[A]\nmemory = "8GiB"\n', "devices.toml:1:", "devices")
        self.refused('devices = 1\n', "devices.toml:1:")
        self.refused('[devices]\nA = 1\n', "devices.toml:2:")
        self.refused('[devices.A.B]\nmemory = "8GiB"\n', "devices.toml:1:")
        self.refused('[devices.A\n', "devices.toml:1:")


class Messages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory(prefix="sluice-messages-")
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        cls.model = tiny_model.make_model(cls.folder / "model")
        cls.analysis = cls.folder / "a"
        sluice("analyze", cls.model, "-o", cls.analysis)

    def test_sizes_in_the_users_unit(self):
        for budget, unit in (("1KiB", "KiB"), ("0.001MB", "MB"), ("0.000001GiB", "GiB"),
                             ("1000B", "B")):
            result = sluice("plan", self.analysis, "--budget", budget, expect=3)
            self.assertRegex(result.stderr, rf"budget of [0-9.]+ {unit} is too small")
            least = result.stderr.split("Give at least ")[1].split(",")[0]
            self.assertTrue(least.endswith(unit), result.stderr)
            sluice("plan", self.analysis, "--budget", least)

    def test_unknown_commands(self):
        result = sluice("frobnicate", expect=2)
        self.assertIn('unknown command "frobnicate"', result.stderr)
        self.assertIn("quantize", result.stderr)
        for words in (["quantise"], ["--threads", "2", "quantise", "x"], ["--json", "quantise"]):
            self.assertIn('unknown command "quantise"; did you mean "quantize"?',
                          sluice(*words, expect=2).stderr)

    def test_unknown_options(self):
        result = sluice("fit", self.model, "--bugdet", "8GB", "-o", "x", "--min-safe", expect=2)
        self.assertIn('`sluice fit` has no option --bugdet; did you mean "--budget"?', result.stderr)

    def test_instruction_sets(self):
        result = sluice("inspect", self.model, "--simd", "sse9", expect=2)
        self.assertRegex(result.stderr, r'unknown instruction set "sse9"; this processor offers '
                                        r"scalar(, \w+)*\n")

    def test_smaller_groups_are_said(self):
        text = sluice("inspect", self.model).stdout  # rows of 96 in down_proj
        self.assertRegex(text, r"\d kB \*")
        self.assertIn("* 64 does not divide the rows of 1 module:", text)
        self.assertIn("* 128 does not divide the rows of 1 module:", text)
        report = json.loads(sluice("inspect", self.model, "--json").stdout)
        self.assertEqual(report["uniform_smaller_group_modules"]["4/128"], 1)
        self.assertNotIn("4/32", report["uniform_smaller_group_modules"])
        plain = tiny_model.make_model(self.folder / "plain", intermediate=128)
        self.assertNotIn("*", sluice("inspect", plain).stdout)

    def test_norms_are_shown(self):
        self.assertRegex(sluice("plan", self.analysis, "--min-safe").stdout, r"\n  norm .*exact")


if __name__ == "__main__":
    tiny_model.skip_without_binary()
    unittest.main()
