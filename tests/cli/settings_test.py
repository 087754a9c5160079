"""Settings from config.toml and the environment, as a user would write them: which wins, and what
is said about mistakes."""

import json
import os
import pathlib
import tempfile
import unittest

import tiny_model
from tiny_model import sluice


class Settings(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="sluice-settings-")
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.config = self.folder / "config" / "sluice"
        self.config.mkdir(parents=True)
        self.model = tiny_model.make_model(self.folder / "model")

    def run_with(self, *arguments, expect=0, **variables):
        clean = {name: value for name, value in os.environ.items()
                 if not name.startswith("SLUICE_")}
        return sluice(*arguments, expect=expect, env={
            **clean, "XDG_CONFIG_HOME": str(self.folder / "config"), **variables})

    def write(self, text, name="config.toml"):
        (self.config / name).write_text(text)

    def default_dtype(self, **variables):
        """What `inspect` takes --dtype to be."""
        result = self.run_with("inspect", self.model, "--json", **variables)
        return json.loads(result.stdout)["output_dtype"]

    def test_the_order(self):
        self.assertEqual(self.default_dtype(), "bfloat16")
        self.write('[inspect]\ndtype = "float16"\n')
        self.assertEqual(self.default_dtype(), "float16")
        self.assertEqual(self.default_dtype(SLUICE_INSPECT_DTYPE="float32"), "float32")
        result = self.run_with("inspect", self.model, "--json", "--dtype", "bfloat16",
                               SLUICE_INSPECT_DTYPE="float32")
        self.assertEqual(json.loads(result.stdout)["output_dtype"], "bfloat16")

    def test_an_empty_variable_is_none(self):
        self.write('[inspect]\ndtype = "float16"\n')
        self.assertEqual(self.default_dtype(SLUICE_INSPECT_DTYPE=""), "float16")

    def test_the_home_folder(self):
        home = self.folder / "home"
        (home / ".config" / "sluice").mkdir(parents=True)
        (home / ".config" / "sluice" / "config.toml").write_text('[inspect]\ndtype = "float32"\n')
        for config in ("", "relative"):
            self.assertEqual(self.default_dtype(HOME=str(home), XDG_CONFIG_HOME=config), "float32")

    def test_flags_and_global_options(self):
        self.write("json = true\nquiet = true\nthreads = 1\n")
        result = self.run_with("analyze", self.model, "-o", self.folder / "a")
        self.assertEqual(json.loads(result.stdout)["file"], str(self.folder / "a"))
        self.assertEqual(result.stderr, "")

    def test_lists_and_what_analyze_does_with_them(self):
        self.write('[analyze]\nbest = ["3/64", "4/64"]\n')
        self.run_with("analyze", self.model, "-o", self.folder / "a")
        header = json.loads((self.folder / "a").read_text().splitlines()[0])
        self.assertEqual(header["record"]["best_formats"], ["3/64", "4/64"])

    def test_help_shows_what_is_set(self):
        self.write('[fit]\nbest = "none"\n')
        self.assertRegex(self.run_with("fit", "--help").stdout, r"--best TEXT(=none| \[none\])")

    def refused(self, text, *parts):
        self.write(text)
        result = self.run_with("devices", expect=2)
        self.assertEqual(result.stdout, "")
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        for part in (str(self.config / "config.toml"), *parts):
            self.assertIn(part, result.stderr)

    def test_mistakes_are_named_with_their_line(self):
        self.refused("\nthread = 4\n", "config.toml:2:", '"thread"', 'did you mean "threads"?')
        self.refused("[fit]\nbset = 1\n", "config.toml:2:", 'did you mean "fit.best"?')
        self.refused("threads = 1\n[fitt]\n", "config.toml:2:", 'did you mean "fit"?')
        self.refused("[fit]\n\nbudget = '8GB'\n", "config.toml:3:", "fit.budget")
        self.refused("[fit]\noutput = 'x'\n", "config.toml:2:", "fit.output")
        self.refused("threads = 5000\n", "config.toml:1:", "5000")
        self.refused('[inspect]\ndtype = "int8"\n', "config.toml:2:", "int8")
        self.refused("threads = \n", "config.toml:1:")
        self.refused("a = 1\nthreads = 4 4\n", "config.toml:2:")
        self.refused("threads = 1\nthreads = 2\n", "config.toml:2:")
        self.refused("threads = 2021-01-01\n", "config.toml:1:", "threads")
        self.refused("[fit.plan]\n", "config.toml:1:", "fit.plan")

    def test_a_bad_variable_is_named(self):
        result = self.run_with("devices", expect=2, SLUICE_THREADS="many")
        self.assertIn("SLUICE_THREADS", result.stderr)
        self.assertIn("many", result.stderr)

    def test_help_works_whatever_the_file_says(self):
        self.write("threads = \n")
        self.run_with("--help")
        self.run_with("fit", "--help")
        self.run_with("--version")

    def test_a_json_error(self):
        self.write("thread = 4\n")
        result = self.run_with("devices", "--json", expect=2)
        self.assertIn("config.toml:1", json.loads(result.stdout)["error"]["message"])


if __name__ == "__main__":
    tiny_model.skip_without_binary()
    unittest.main()
