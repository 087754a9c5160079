"""A real Slurm, four nodes on this host, runs one job in parts over a shared folder: analysis,
conversion and verification, one task killed and run again; the bytes are those of one process.

Needs root and Debian's slurmctld, slurmd and munge; skipped without."""

import os
import shutil
import socket
import subprocess
import sys
import time

import support
from support import binary, make_checkpoint, skip

NODES = 4
PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sinfo", "scancel")
CONFIGURATION = """ClusterName=sluice
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
KillWait=1
NodeName=node[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=1
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "run.json"}


class Cluster:
    """Daemons of its own, in a folder of its own; stopped and forgotten at the end."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        for name in ("state", *(f"spool-node{i + 1}" for i in range(NODES))):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        port = 20000 + os.getpid() % 20000
        self.configuration = folder / "slurm.conf"
        self.configuration.write_text(CONFIGURATION.format(
            host=socket.gethostname(), folder=folder, port=port, nodes=NODES, first=port + 1,
            last=port + NODES))
        self.environment = {**os.environ, "SLURM_CONF": str(self.configuration)}

    def start(self):
        self.spawn("munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket",
                   f"--key-file={self.folder}/munge.key", f"--log-file={self.folder}/munge.log",
                   f"--pid-file={self.folder}/munge.pid", f"--seed-file={self.folder}/munge.seed")
        self.wait_for(lambda: (self.folder / "munge.socket").exists(), "munged")
        self.spawn("slurmctld", "-D", "-f", self.configuration)
        for node in range(NODES):
            self.spawn("slurmd", "-D", "-f", self.configuration, "-N", f"node{node + 1}")
        self.wait_for(self.all_idle, "slurm's nodes")

    def stop(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()

    def spawn(self, *command):
        self.processes.append(subprocess.Popen([str(part) for part in command],
                                               env=self.environment, stdout=subprocess.DEVNULL,
                                               stderr=subprocess.DEVNULL))

    def wait_for(self, condition, what):
        for _ in range(300):
            if condition():
                return
            time.sleep(0.2)
        for log in sorted(self.folder.glob("*.log")):
            print(f"--- {log.name}\n" + log.read_text(errors="replace")[-2000:])
        raise AssertionError(f"{what} did not start")

    def all_idle(self):
        done = subprocess.run(["sinfo", "-h", "-N", "-o", "%t"], env=self.environment,
                              capture_output=True, text=True)
        return done.stdout.split() == ["idle"] * NODES

    def srun(self, *command, tasks=NODES, check=True):
        return subprocess.run(["srun", f"-N{tasks}", f"-n{tasks}", "--kill-on-bad-exit=0",
                               *map(str, command)], env=self.environment, check=check,
                              capture_output=True, text=True, timeout=300)


class Slurm(support.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster_folder = cls.folder / "cluster"
        cls.cluster_folder.mkdir()
        cls.cluster = Cluster(cls.cluster_folder)
        cls.addClassCleanup(cls.cluster.stop)
        cls.cluster.start()

    def sluice(self, *arguments):
        return subprocess.run([binary(), *map(str, arguments)], check=True, capture_output=True,
                              text=True, timeout=300).stdout

    def test_one_job_on_four_nodes(self):
        model, folder, srun = self.folder / "model", self.folder, self.cluster.srun
        make_checkpoint(model, family="qwen3_moe", seed=12)
        self.sluice("analyze", model, "-o", folder / "one.analysis")
        self.sluice("plan", folder / "one.analysis", "--bpw", "5", "-o", folder / "plan.json")
        quantize = ["quantize", model, "--plan", folder / "plan.json", "-o"]
        self.sluice(*quantize, folder / "one")

        srun(binary(), "analyze", model, "-o", folder / "four.analysis")
        self.sluice("merge", folder / "four.analysis")
        self.assertEqual((folder / "four.analysis").read_bytes(),
                         (folder / "one.analysis").read_bytes())

        # The third task is killed before it has done anything; its part is run again elsewhere.
        out = folder / "four"
        srun("sh", "-c", 'if [ "$SLURM_PROCID" = 2 ]; then kill -9 $$; fi; exec "$@"', "task",
             binary(), *quantize, out, check=False)
        refused = subprocess.run([binary(), "merge", str(out)], capture_output=True, text=True)
        self.assertEqual(refused.returncode, 3, refused.stderr)
        self.assertIn("--part 3/4", refused.stderr)
        srun(binary(), *quantize, out, "--part", "3/4", tasks=1)
        self.sluice("merge", out)
        self.assertEqual(files_of(out), files_of(folder / "one"))

        srun(binary(), "verify", model, out)
        self.assertEqual(self.sluice("merge", out), self.sluice("verify", model, out))


if __name__ == "__main__":
    if sys.platform != "linux" or os.geteuid() != 0:
        skip("starting Slurm's daemons needs root on Linux")
    os.environ["PATH"] += ":/usr/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        skip(f"not installed: {', '.join(missing)}")
    support.main()
