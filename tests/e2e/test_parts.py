"""One job on several machines: parts run by hand, by mpirun, as pods of an indexed job and by Slurm
end with the bytes of one process; a part that is killed is run again."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import support
from support import binary, make_checkpoint

PARTS = 4
LAUNCHERS = ("SLURM_", "OMPI_", "PMIX_", "JOB_COMPLETION_INDEX", "SLUICE_PARTS")
PLAIN = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHERS)}


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "run.json"}


def program(arguments, environment=PLAIN, check=True):
    done = subprocess.run([binary(), *map(str, arguments)], env=environment, capture_output=True,
                          text=True, timeout=300)
    if check and done.returncode != 0:
        raise AssertionError(f"{arguments}: exit {done.returncode}: {done.stderr}")
    return done


class Parts(support.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory(prefix="sluice-parts-")
        cls.folder = Path(cls.temporary.name)
        cls.model = cls.folder / "model"
        make_checkpoint(cls.model, family="qwen3_moe", seed=11)
        program(["analyze", cls.model, "-o", cls.folder / "one.analysis"])
        program(["plan", cls.folder / "one.analysis", "--bpw", "5", "-o", cls.folder / "plan.json"])
        program(cls.quantize(cls.folder / "one"))
        cls.expected = files_of(cls.folder / "one")

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    @classmethod
    def quantize(cls, out):
        return ["quantize", cls.model, "--plan", cls.folder / "plan.json", "-o", out]

    def check_merged(self, out):
        program(["merge", out])
        self.assertEqual(files_of(out), self.expected)
        left = [path.name for path in self.folder.iterdir() if path.name.startswith(out.name + ".")]
        self.assertEqual(left, [])

    def test_by_hand_all_commands(self):
        analysis = self.folder / "by-hand.analysis"
        for index in (3, 1, 4, 2):
            program(["analyze", self.model, "-o", analysis, "--part", f"{index}/{PARTS}"])
        program(["merge", analysis])
        self.assertEqual(analysis.read_bytes(), (self.folder / "one.analysis").read_bytes())
        out = self.folder / "hand"
        for index in (2, 4, 3, 1, 3):
            program([*self.quantize(out), "--part", f"{index}/{PARTS}"])
        self.check_merged(out)
        for index in range(PARTS):
            program(["verify", self.model, out, "--part", f"{index + 1}/{PARTS}"])
        merged = program(["merge", out])
        self.assertEqual(merged.stdout, program(["verify", self.model, out]).stdout)

    def test_verification_in_parts_finds_damage(self):
        out = self.folder / "damaged"
        shutil.copytree(self.folder / "one", out)
        shard = next(out.glob("model*.safetensors"))
        with open(shard, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)[0]
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last ^ 1]))
        codes = [program(["verify", self.model, out, "--part", f"{i + 1}/{PARTS}"],
                         check=False).returncode for i in range(PARTS)]
        self.assertEqual(sum(codes), 1, "one part finds it")
        merged = program(["merge", out], check=False)
        self.assertEqual(merged.returncode, 1)
        self.assertEqual(merged.stdout,
                         program(["verify", self.model, out], check=False).stdout)

    def test_parts_at_once_one_of_them_killed(self):
        out = self.folder / "killed"
        command = [binary(), *map(str, self.quantize(out)), "--threads", "1", "--simd", "scalar"]
        started = [subprocess.Popen([*command, "--part", f"{index + 1}/{PARTS}"], env=PLAIN,
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                   for index in range(PARTS)]
        time.sleep(0.05)
        started[2].send_signal(signal.SIGKILL)
        codes = [process.wait(timeout=300) for process in started]
        self.assertEqual([codes[i] for i in (0, 1, 3)], [0, 0, 0])
        if codes[2] != 0:
            refused = program(["merge", out], check=False)
            self.assertEqual(refused.returncode, 3)
            self.assertIn(f"--part 3/{PARTS}", refused.stderr)
        program([*self.quantize(out), "--part", f"3/{PARTS}"])
        self.check_merged(out)

    def test_mpirun(self):
        if shutil.which("mpirun") is None:
            self.skipTest("mpirun is not installed")
        out = self.folder / "mpi"
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        subprocess.run(["mpirun", *root, "--oversubscribe", "-n", str(PARTS), binary(),
                        *map(str, self.quantize(out)), "--threads", "1"],
                       env=PLAIN, check=True, capture_output=True, timeout=300)
        self.check_merged(out)

    def test_indexed_job(self):
        out = self.folder / "pods"
        for index in range(PARTS):
            program(self.quantize(out), {**PLAIN, "JOB_COMPLETION_INDEX": str(index),
                                         "SLUICE_PARTS": str(PARTS)})
        self.check_merged(out)
        lone = program(self.quantize(self.folder / "lone"), {**PLAIN, "JOB_COMPLETION_INDEX": "0"},
                       check=False)
        self.assertEqual(lone.returncode, 3)
        self.assertIn("SLUICE_PARTS", lone.stderr)

    def test_merge_without_parts(self):
        for path in (self.folder / "one", self.folder / "nothing"):
            self.assertNotEqual(program(["merge", path], check=False).returncode, 0)


if __name__ == "__main__":
    support.main()
