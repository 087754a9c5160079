"""File systems of their own, where the tests may mount them (root): a disk that is too small, known
before the start or only found when it happens; and a source on a read-only mount, which is left as
it was while nothing but the output and a little journal is written."""

import errno
import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import tiny_model
from tiny_model import sluice

SCRATCH_BYTES_MAX = 1_000_000


def mount(*arguments):
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode == 0


def state(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size,
                   hashlib.sha256(path.read_bytes()).hexdigest())
            for path in sorted(pathlib.Path(folder).rglob("*")) if path.is_file()}


class Mounts(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="sluice-mounts-")
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.model = tiny_model.make_model(self.folder / "model", hidden=256, intermediate=512,
                                           layers=4, vocab=4096)
        self.reference = self.folder / "reference"
        self.command = ["quantize", self.model, "--bits", 8, "-o"]
        sluice(*self.command, self.reference)
        self.bytes = sum(path.stat().st_size for path in self.reference.iterdir())

    def mounted(self, name, *options):
        folder = self.folder / name
        folder.mkdir()
        self.assertTrue(mount(*options, folder))
        self.addCleanup(subprocess.run, ["umount", str(folder)], check=False)
        return folder

    def tmpfs(self, name, size):
        return self.mounted(name, "-t", "tmpfs", "-o", f"size={size}", "tmpfs")

    def grow(self, disk):
        self.assertTrue(mount("-o", "remount,size=256m", disk))

    def test_disk_known_to_be_too_small(self):
        disk = self.tmpfs("small", self.bytes // 2)
        result = sluice(*self.command, disk / "out", expect=4)
        self.assertIn("are needed but only", result.stderr)
        self.assertEqual(os.listdir(disk), [], "refused before anything is written")
        self.grow(disk)
        sluice(*self.command, disk / "out")
        self.assertEqual(tiny_model.files_of(disk / "out"), tiny_model.files_of(self.reference))

    def test_disk_that_fills_up_all_the_same(self):
        """Somebody else takes the space after the job has begun."""
        commands = {"quantize": (self.command[:-1], "out.journal"),
                    "fit": (["fit", self.model, "--bpw", 8], "out.partial/analysis.jsonl")}
        for name, (command, sign) in commands.items():
            with self.subTest(command=name):
                reference = self.folder / f"reference-{name}"
                sluice(*command, "-o", reference)
                disk = self.tmpfs(f"filling-{name}", self.bytes + (16 << 20))
                process = subprocess.Popen(
                    [tiny_model.BINARY, *map(str, command), "-o", str(disk / "out"), "--threads",
                     "1", "--simd", "scalar"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    text=True)
                self.addCleanup(process.kill)
                while process.poll() is None and not (disk / sign).exists():
                    time.sleep(0.0005)
                process.send_signal(signal.SIGSTOP)
                filler = disk / "filler"
                with open(filler, "wb", buffering=0) as file:
                    try:
                        while file.write(bytes(1 << 16)):
                            pass
                    except OSError as error:
                        self.assertEqual(error.errno, errno.ENOSPC)
                process.send_signal(signal.SIGCONT)
                _, message = process.communicate(timeout=120)
                self.assertEqual(process.returncode, 4, message)
                self.assertEqual(message.count("error: "), 1, message)
                self.assertFalse((disk / "out").exists())
                # Still full: refused again, and nothing is lost by it.
                sluice(*command, "-o", disk / "out", expect=4)
                filler.unlink()
                sluice(*command, "-o", disk / "out")
                self.assertEqual(tiny_model.files_of(disk / "out"), tiny_model.files_of(reference))
                self.assertEqual(os.listdir(disk), ["out"])

    def test_source_on_a_read_only_mount(self):
        disk = self.tmpfs("source", 1 << 26)
        shutil.copytree(self.model, disk / "model")
        before = state(disk)
        self.assertTrue(mount("-o", "remount,ro", disk))
        work, empty = self.folder / "work", self.folder / "empty"
        work.mkdir()
        empty.mkdir()
        environment = dict(os.environ, HOME=str(empty), TMPDIR=str(empty))
        fit = ["fit", disk / "model", "--bpw", 5, "-o", work / "out"]
        # Stopped just before its journal would go, so that everything can be weighed.
        if PRELOAD:
            stopped = dict(environment, LD_PRELOAD=PRELOAD, SLUICE_FAULT_ROOT=str(work),
                           SLUICE_FAULT_OPS="remove", SLUICE_FAULT_AT="1",
                           SLUICE_FAULT_KIND="kill-before")
            sluice(*fit, expect=-signal.SIGKILL, env=stopped, cwd=empty)
            self.assertEqual(sorted(os.listdir(work)), ["out", "out.journal"])
            self.assertLess((work / "out.journal").stat().st_size, SCRATCH_BYTES_MAX)
        sluice(*fit, env=environment, cwd=empty)
        self.assertEqual(os.listdir(work), ["out"])
        self.assertEqual(os.listdir(empty), [])
        self.assertEqual(state(disk), before)
        sluice("verify", disk / "model", work / "out", env=environment, cwd=empty)
        self.assertEqual(state(disk), before)


def may_mount():
    """Whether this process may mount, tried on a folder of its own."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory(prefix="sluice-mounts-") as folder:
        if not mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", folder):
            return False
        return subprocess.run(["umount", folder], capture_output=True).returncode == 0


if __name__ == "__main__":
    PRELOAD = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    tiny_model.skip_without_binary()
    if not may_mount():
        print("skipped: this process may not mount file systems")
        sys.exit(77)
    unittest.main()
