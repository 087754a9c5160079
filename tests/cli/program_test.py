"""The program as its users meet it: exit codes, which stream says what, and JSON that parses."""

import json
import pathlib
import subprocess
import tempfile
import unittest

import tiny_model
from tiny_model import sluice


class Program(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory(prefix="sluice-cli-")
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.model = tiny_model.make_model(cls.folder / "model")

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def out(self):
        return self.folder / self.id().split(".")[-1]

    def json_of(self, *arguments, expect=0):
        """stdout must be one JSON document, stderr none."""
        result = sluice(*arguments, "--json", expect=expect)
        return json.loads(result.stdout), result.stderr

    def test_usage_errors(self):
        for arguments in (["frobnicate"], [], ["fit"], ["fit", self.model],
                          ["fit", self.model, "-o", "x", "--no-such-flag"],
                          ["quantize", self.model, "-o", "x", "--bits", "7"],
                          ["quantize", self.model, "-o", "x"],
                          ["quantize", self.model, "-o", "x", "--bits", "4", "--plan", "p"],
                          ["quantize", self.model, "-o", "x", "--bits", "4", "--dtype", "int8"],
                          ["quantize", self.model, "-o", "", "--bits", "4"],
                          ["fit", self.model, "-o", "", "--min-safe"],
                          ["analyze", self.model, "-o", ""],
                          ["plan", "x", "--sweep", "-o", "y"], ["plan", "x", "--device", ""],
                          ["plan", "x", "--bpw", "nan"], ["plan", "x", "--bpw", "inf"],
                          ["plan", "x", "--max-error", "nan"], ["plan", "x", "--max-error", "0"],
                          ["quantize", self.model, "-o", "x", "--bits", "4", "--group-size", "48"]):
            result = sluice(*arguments, expect=2)
            self.assertEqual(result.stdout, "")
            self.assertNotEqual(result.stderr, "")

    def test_bad_arguments(self):
        for arguments in (["--budget", "24"], ["--budget", "many"], ["--budget", "1GB", "--min-safe"],
                          []):
            out = self.out()
            result = sluice("fit", self.model, "-o", out, *arguments, expect=2)
            self.assertEqual(result.stdout, "")
            self.assertFalse(out.exists())

    def test_devices_that_are_not_there(self):
        """Neither a build without MLX nor one on a machine without a GPU computes something else."""
        for device in ("gpu", "mlx"):
            result = sluice("run", self.model, "-p", "x", "-n", "1", "--raw", "--device", device,
                            expect=None)
            if device == "gpu" and result.returncode == 0:
                self.skipTest("this machine has a GPU")
            if device == "mlx" and "without MLX" not in result.stderr:
                continue
            self.assertNotEqual(result.returncode, 0)
            self.assertEqual(result.stdout, "")
            self.assertRegex(result.stderr, r"^error: .*MLX.*\n$")

    def test_help_and_version(self):
        self.assertIn("fit", sluice("--help").stdout)
        self.assertRegex(sluice("--version").stdout, r"\d+\.\d+\.\d+")
        for command in ("fit", "inspect", "analyze", "plan", "quantize", "verify", "devices",
                        "completions", "man"):
            result = sluice(command, "--help")
            self.assertIn("--json", result.stdout)
            self.assertIn("xample", result.stdout, f"{command} shows no example")

    def test_bad_input(self):
        for arguments in (["inspect", self.folder / "absent"],
                          ["fit", self.folder / "absent", "--min-safe", "-o", self.out()],
                          ["plan", self.folder / "absent", "--budget", "1GB"],
                          ["plan", self.model / "config.json", "--budget", "1GB"],
                          ["quantize", self.model, "--plan", self.model / "config.json", "-o",
                           self.out()],
                          ["verify", self.model, self.folder]):
            result = sluice(*arguments, expect=3)
            self.assertEqual(result.stdout, "")
            self.assertTrue(result.stderr.startswith("error: "), result.stderr)
            self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)

    def test_no_place_to_write(self):
        for command in (["quantize", self.model, "--bits", "4"], ["fit", self.model, "--min-safe"]):
            for out in (self.folder / "no" / "such" / "folder", "/proc/sluice-test"):
                result = sluice(*command, "-o", out, expect=3)
                self.assertIn(str(out), result.stderr)

    def test_foreign_file_is_not_published(self):
        out = self.out()
        partial = out.parent / (out.name + ".partial")
        partial.mkdir()
        (partial / "model-zz.safetensors").write_bytes(b"not ours")
        result = sluice("quantize", self.model, "--bits", "4", "-o", out, expect=3)
        self.assertIn("model-zz.safetensors", result.stderr)
        self.assertFalse(out.exists())
        (partial / "model-zz.safetensors").unlink()
        sluice("quantize", self.model, "--bits", "4", "-o", out)
        self.assertFalse(partial.exists())

    def test_json_errors(self):
        error, stderr = self.json_of("inspect", self.folder / "absent", expect=3)
        self.assertEqual(error["error"]["code"], "not_found")
        self.assertIn("absent", error["error"]["message"])
        self.assertIn("absent", stderr)

    def test_every_command_prints_json(self):
        out = self.out()
        analysis, plan = f"{out}.analysis", f"{out}.plan"
        self.assertIsInstance(self.json_of("inspect", self.model)[0], dict)
        self.assertGreater(len(self.json_of("devices")[0]["devices"]), 5)
        self.assertEqual(self.json_of("analyze", self.model, "-o", analysis)[0]["file"], analysis)
        self.assertEqual(len(self.json_of("plan", analysis, "--sweep")[0]["curve"]), 50)
        planned, _ = self.json_of("plan", analysis, "--bpw", "6", "-o", plan)
        made, _ = self.json_of("quantize", self.model, "--plan", plan, "-o", out)
        self.assertEqual(made["weight_file_bytes"], planned["summary"]["weight_file_bytes"])
        self.assertEqual(made["weight_file_bytes"], (out / "model.safetensors").stat().st_size)
        report, _ = self.json_of("verify", self.model, out)
        self.assertTrue(report["passed"])
        fitted, _ = self.json_of("fit", self.model, "--min-safe", "-o", f"{out}-fit")
        self.assertTrue(fitted["verify"]["passed"])

    def test_the_card_keeps_the_licence(self):
        model = tiny_model.make_model(self.folder / "carded")
        (model / "README.md").write_text("---\nlicense: apache-2.0\ntags:\n- chat\n---\n# Body\n")
        out = self.out()
        sluice("quantize", model, "--bits", "4", "-o", out)
        card = (out / "README.md").read_text()
        self.assertTrue(card.startswith(
            "---\nlicense: apache-2.0\nlibrary_name: mlx\npipeline_tag: text-generation\n"
            'tags:\n- chat\n- mlx\n- sluice\nbase_model: "carded"\n---\n'), card)
        self.assertNotIn("# Body", card)

    def test_recipes(self):
        out = self.out()
        made, _ = self.json_of("quantize", self.model, "--recipe", "mixed_3_6", "-o", out)
        sluice("verify", self.model, out)
        widths = json.loads((out / "config.json").read_text())["quantization"]
        self.assertEqual(widths["lm_head"]["bits"], 6)
        self.assertEqual(widths["bits"], 3)
        plan = json.loads((out / "sluice.json").read_text())["plan"]
        self.assertEqual(plan["configs"], "mixed_3_6")
        self.assertGreater(made["weight_file_bytes"], 0)

    def test_quiet_says_nothing(self):
        out = self.out()
        result = sluice("fit", self.model, "--min-safe", "-o", out, "--quiet")
        self.assertEqual(result.stderr, "")
        self.assertIn(str(out), result.stdout)

    def test_failed_verification(self):
        out = self.out()
        sluice("quantize", self.model, "--bits", "4", "-o", out)
        shard = out / "model.safetensors"
        raw = bytearray(shard.read_bytes())
        raw[-1] ^= 1
        shard.write_bytes(raw)
        result = sluice("verify", self.model, out, expect=1)
        self.assertIn("FAILED", result.stdout)
        report, _ = self.json_of("verify", self.model, out, expect=1)
        self.assertFalse(report["passed"])
        self.assertGreaterEqual(len(report["findings"]), 1)

    def test_existing_output_is_left_alone(self):
        out = self.out()
        out.mkdir()
        (out / "precious").write_text("mine")
        for command in (["fit", self.model, "--min-safe"], ["quantize", self.model, "--bits", "4"]):
            result = sluice(*command, "-o", out, expect=3)
            self.assertIn("exists already", result.stderr)
        self.assertEqual([path.name for path in out.iterdir()], ["precious"])

    def test_an_output_name_with_a_slash(self):
        out = self.out()
        sluice("fit", self.model, "--min-safe", "-o", f"{out}/")
        self.assertTrue((out / "model.safetensors").exists())
        self.assertEqual([path.name for path in self.folder.iterdir()
                          if path.name.startswith(out.name)], [out.name])

    def test_the_source_is_never_overwritten(self):
        shard = self.model / "model.safetensors"
        before = shard.read_bytes()
        sluice("analyze", self.model, "-o", shard, expect=3)
        sluice("analyze", self.model, "-o", self.model / "config.json", expect=3)
        sluice("quantize", self.model, "--bits", "4", "-o", self.model, expect=3)
        self.assertEqual(shard.read_bytes(), before)

    def test_an_analysis_is_never_overwritten_by_its_plan(self):
        analysis = pathlib.Path(f"{self.out()}.analysis")
        sluice("analyze", self.model, "-o", analysis)
        before = analysis.read_bytes()
        sluice("plan", analysis, "--bpw", "6", "-o", analysis, expect=3)
        self.assertEqual(analysis.read_bytes(), before)

    def test_sweeps_take_sensitivities(self):
        analysis = f"{self.out()}.analysis"
        sluice("analyze", self.model, "-o", analysis)
        sluice("plan", analysis, "--sweep", "--sensitivity", self.folder / "absent", expect=3)

    @unittest.skipUnless(pathlib.Path("/dev/full").exists(), "no /dev/full")
    def test_a_result_that_cannot_be_printed(self):
        with open("/dev/full", "w") as full:
            result = subprocess.run([tiny_model.BINARY, "inspect", self.model], stdout=full,
                                    stderr=subprocess.PIPE, text=True, timeout=60)
        self.assertEqual(result.returncode, 4)
        self.assertIn("standard output", result.stderr)

    def test_threads_and_instruction_sets_do_not_show(self):
        out = self.out()
        sluice("fit", self.model, "--min-safe", "-o", out)
        sluice("fit", self.model, "--min-safe", "-o", f"{out}-1", "--threads", "1", "--simd",
               "scalar")
        self.assertEqual(tiny_model.files_of(out), tiny_model.files_of(f"{out}-1"))
        sluice("fit", self.model, "--min-safe", "-o", f"{out}-2", "--simd", "sse9", expect=2)


if __name__ == "__main__":
    tiny_model.skip_without_binary()
    unittest.main()
