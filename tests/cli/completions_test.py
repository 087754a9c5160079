"""Completion scripts and the man page: run by the shells they are for, where these are installed,
and the man page by the strictest checker there is."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import tiny_model
from tiny_model import sluice

BASH = r"""
set -u
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_sluice
[[ ${#COMPREPLY[@]} == 0 ]] && exit
 printf '%s\n' "${COMPREPLY[@]}"
"""


def words_of(text):
    return set(text.split("\n")) - {""}


class Completions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory(prefix="sluice-completions-")
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        for shell in ("bash", "zsh", "fish"):
            (cls.folder / shell).write_text(sluice("completions", shell).stdout)
        (cls.folder / "a model").mkdir()
        (cls.folder / "plan.json").write_text("{}")

    def run_in(self, command, **options):
        result = subprocess.run(command, capture_output=True, text=True, timeout=60,
                                cwd=self.folder, **options)
        self.assertEqual((result.returncode, result.stderr), (0, ""), command)
        return result.stdout

    def bash(self, *words):
        return words_of(self.run_in(["bash", "--norc", "-c", BASH, "-", self.folder / "bash",
                                     "sluice", *words]))

    def test_bash_commands(self):
        commands = self.bash("")
        self.assertLessEqual({"fit", "inspect", "analyze", "plan", "quantize", "verify", "devices",
                              "completions", "man"}, commands)
        self.assertEqual(self.bash("qu"), {"quantize"})
        self.assertEqual(self.bash("--threads", "3", "qu"), {"quantize"})
        self.assertEqual(self.bash("xyz"), set())

    def test_bash_options(self):
        options = self.bash("fit", "--")
        self.assertLessEqual({"--budget", "--output", "--min-safe", "--json", "--threads"}, options)
        self.assertNotIn("--bits", options)
        self.assertEqual(self.bash("fit", "model", "--bud"), {"--budget"})
        self.assertEqual(self.bash("--ver"), {"--version"})

    def test_bash_values(self):
        self.assertEqual(self.bash("quantize", "--bits", ""), {"2", "3", "4", "5", "6", "8"})
        self.assertEqual(self.bash("quantize", "--parity", "=", "g"), {"gpu"})
        self.assertEqual(self.bash("quantize", "--parity", "="), {"cpu", "gpu"})
        self.assertEqual(self.bash("fit", "--dtype", "b"), {"bfloat16"})
        self.assertEqual(self.bash("fit", "--budget", ""), set())
        self.assertEqual(self.bash("completions", ""), {"bash", "zsh", "fish"})

    def test_bash_paths(self):
        self.assertEqual(self.bash("fit", "a"), {"a model"})
        self.assertEqual(self.bash("quantize", "x", "--plan", "pl"), {"plan.json"})
        self.assertLessEqual({"a model", "plan.json"}, self.bash("inspect", ""))

    def test_bash_by_itself(self):
        """As a shell would after Tab: the function is registered for the program."""
        registered = self.run_in(["bash", "--norc", "-c", 'source "$1"; complete -p sluice', "-",
                                  self.folder / "bash"])
        self.assertIn("_sluice", registered)

    @unittest.skipUnless(shutil.which("zsh"), "no zsh")
    def test_zsh(self):
        self.run_in(["zsh", "-f", "-n", self.folder / "zsh"])
        # Autoloaded from fpath, as a user's shell does.
        functions = self.folder / "functions"
        functions.mkdir()
        shutil.copy(self.folder / "zsh", functions / "_sluice")
        found = self.run_in(["zsh", "-f", "-c", f"fpath=({functions} $fpath); autoload -Uz compinit;"
                             " compinit -u -D; print -r -- $_comps[sluice]"])
        self.assertEqual(found, "_sluice\n")

    @unittest.skipUnless(shutil.which("fish"), "no fish")
    def test_fish(self):
        def fish(line):
            home = {**os.environ, "HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)}
            text = self.run_in(["fish", "--no-config", "-c",
                                f"source {self.folder}/fish; complete -C '{line}'"], env=home)
            return {entry.split("\t")[0] for entry in words_of(text)}
        self.assertLessEqual({"fit", "quantize", "devices"}, fish("sluice "))
        self.assertIn("--budget", fish("sluice fit --bud"))
        self.assertEqual(fish("sluice quantize --bits "), {"2", "3", "4", "5", "6", "8"})
        self.assertEqual(fish("sluice completions "), {"bash", "zsh", "fish"})

    def man_page(self):
        path = self.folder / "sluice.1"
        path.write_text(sluice("man").stdout)
        return path

    def test_man_page_warnings(self):
        path = self.man_page()
        if shutil.which("mandoc"):
            result = subprocess.run(["mandoc", "-Tlint", "-Wwarning", path], capture_output=True,
                                    text=True, timeout=60)
            self.assertEqual(result.stdout, "")
        if shutil.which("groff"):
            result = subprocess.run(["groff", "-man", "-ww", "-z", path], capture_output=True,
                                    text=True, timeout=60)
            self.assertEqual(result.stderr, "")
        elif not shutil.which("mandoc"):
            self.skipTest("neither mandoc nor groff")

    def test_man_page_text(self):
        text = sluice("man").stdout
        for word in ("fit", "\\-\\-budget", "quantize", "SLUICE_THREADS", "config.toml",
                     "EXIT STATUS", "sluice plan qwen3"):
            self.assertIn(word, text)

    def test_generated_text_is_the_programs_own(self):
        """Not what some user's settings make of it."""
        (self.folder / "sluice").mkdir()
        (self.folder / "sluice" / "config.toml").write_text('[fit]\nbest = "none"\n')
        plain = sluice("man").stdout
        env = {**os.environ, "XDG_CONFIG_HOME": str(self.folder)}
        self.assertEqual(sluice("man", env=env).stdout, plain)

    def test_every_command_has_examples_and_help(self):
        for command in self.bash(""):
            text = sluice(command, "--help").stdout
            self.assertRegex(text, r"Examples?\b[^\n]*:\s", command)


if __name__ == "__main__":
    tiny_model.skip_without_binary()
    unittest.main()
