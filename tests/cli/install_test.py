"""`cmake --install` puts the program, its completions and its man page where systems look."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import tiny_model
from tiny_model import sluice

BUILD = sys.argv.pop(1) if len(sys.argv) > 1 else ""


class Install(unittest.TestCase):
    def test_install(self):
        with tempfile.TemporaryDirectory(prefix="sluice-install-") as prefix:
            subprocess.run(["cmake", "--install", BUILD, "--prefix", prefix], check=True,
                           capture_output=True, timeout=120)
            root = pathlib.Path(prefix)
            installed = root / "bin" / "sluice"
            version = subprocess.run([installed, "--version"], capture_output=True, text=True,
                                     check=True).stdout
            self.assertEqual(version, sluice("--version").stdout)
            for path, arguments in (("man/man1/sluice.1", ["man"]),
                                    ("bash-completion/completions/sluice", ["completions", "bash"]),
                                    ("zsh/site-functions/_sluice", ["completions", "zsh"]),
                                    ("fish/vendor_completions.d/sluice.fish",
                                     ["completions", "fish"])):
                self.assertEqual((root / "share" / path).read_text(), sluice(*arguments).stdout)
            if shutil.which("man"):
                shown = subprocess.run(["man", "--warnings", "-l", root / "share/man/man1/sluice.1"],
                                       capture_output=True, text=True, timeout=60)
                self.assertEqual((shown.returncode, shown.stderr), (0, ""))
                self.assertIn("sluice fit", shown.stdout)


if __name__ == "__main__":
    tiny_model.skip_without_binary()
    if not BUILD or not shutil.which("cmake"):
        print("no build folder or no cmake")
        sys.exit(77)
    unittest.main()
