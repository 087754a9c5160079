"""A source on a read-only mount of another file system, as an external drive may be: every command
works, writes nothing there, and leaves no scratch anywhere else. Needs root to mount.

    test_readonly_source.py SLUICE"""

import hashlib
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import support
from disk_watch import DiskWatch

SCRATCH_BYTES_MAX = 1_000_000


def mount(*arguments):
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)


def digests(folder):
    return {path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
            for path in sorted(folder.iterdir())}


class ReadOnlySource(unittest.TestCase):
    def test_every_command(self):
        with tempfile.TemporaryDirectory(prefix="sluice-readonly-") as name:
            root = Path(name)
            source, work, scratch, home = (root / n for n in ("drive", "work", "tmp", "home"))
            for folder in (source, work, scratch, home):
                folder.mkdir()
            mounted = mount("-t", "tmpfs", "-o", "size=200m", "none", source)
            if mounted.returncode != 0:
                self.skipTest(f"cannot mount: {mounted.stderr.strip()}")
            try:
                model = source / "model"
                # Large enough that reads are direct where that is possible.
                support.make_checkpoint(model, "llama", hidden_size=512, intermediate_size=1536,
                                        num_hidden_layers=6, vocab_size=16000, shards=2)
                self.assertEqual(mount("-o", "remount,ro", source).returncode, 0)
                before = digests(model)
                self.run_all(model, work, scratch, home)
                self.assertEqual(digests(model), before)
            finally:
                subprocess.run(["umount", str(source)], check=True)

    def run_all(self, model, work, scratch, home):
        environment = os.environ | {"TMPDIR": str(scratch), "HOME": str(home)}
        total = sum(f.stat().st_size for f in model.glob("*.safetensors"))
        commands = [
            ["inspect", model],
            ["analyze", model, "--best", "none", "-o", work / "analysis"],
            ["quantize", model, "--bits", 4, "-o", work / "uniform"],
            ["verify", model, work / "uniform"],
            ["fit", model, "--analysis", work / "analysis", "--best", "none", "--budget", f"{total // 3}B", "-o",
             work / "fitted"],
        ]
        for command in commands:
            with self.subTest(command=command[0]), DiskWatch(scratch, home) as watch:
                result = subprocess.run([support.binary(), *map(str, command), "--quiet"],
                                        env=environment, cwd=scratch, capture_output=True,
                                        text=True)
                self.assertEqual(result.returncode, 0, result.stderr)
            self.assertLessEqual(watch.most, SCRATCH_BYTES_MAX)
        left = sorted(path.name for path in work.iterdir())
        self.assertEqual(left, ["analysis", "fitted", "uniform"])


if __name__ == "__main__":
    if not support.binary() or not Path(support.binary()).exists():
        support.skip("the sluice program is not built")
    if os.geteuid() != 0:
        support.skip("mounting needs root")
    unittest.main(argv=[sys.argv[0]])
