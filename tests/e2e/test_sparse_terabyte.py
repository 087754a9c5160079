"""Preparation of a model of a terabyte, Kimi K2 as published in 8-bit floats, whose weights are holes
of sparse files: inspect, analyze of one layer, plan from a fabricated analysis of the whole, and
conversion and verification of two layers. Each command's peak memory is measured whole-process, and
once more under a limit that the kernel enforces.

    test_sparse_terabyte.py SLUICE FABRICATE

Needs SLUICE_SLOW=1, configs/hf of the real inputs, 12 GB in TMPDIR, and root for the enforced limit."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import support
from sparse_files import write_sparse

PEAK_BYTES_MAX = 256_000_000
LIMIT_BYTES = 300_000_000
DISK_BYTES = 12_000_000_000
CONFIG = "configs/hf/moonshotai--Kimi-K2-Instruct_config.json"
CGROUP = Path("/sys/fs/cgroup/memory")


# A process starts its peak at its parent's resident memory, so the parent must be a small one. It
# joins the group itself, so that everything the program does counts.
LAUNCHER = """
import os, sys
group = sys.argv[1]
if group:
    with open(group + "/cgroup.procs", "w") as procs:
        procs.write(str(os.getpid()))
null = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
process = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ, file_actions=null)
_, status, usage = os.wait4(process, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss)
"""


def make_group():
    """A memory group of its own with a hard limit, or None where that takes rights we lack."""
    group = CGROUP / f"sluice-terabyte-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(LIMIT_BYTES))
    except OSError as error:
        print(f"no enforced limit: {error}", flush=True)
        return None
    return group


class Bench:
    def __init__(self, group):
        self.group, self.good = group, True

    def run(self, program, name, arguments, limited):
        group = str(self.group) if limited else ""
        start = time.monotonic()
        result = subprocess.run([sys.executable, "-S", "-E", "-c", LAUNCHER, group, program,
                                 *map(str, arguments)], check=True, stdout=subprocess.PIPE,
                                text=True)
        code, peak = map(int, result.stdout.split())
        peak *= 1 if sys.platform == "darwin" else 1024
        self.good &= code == 0 and peak <= PEAK_BYTES_MAX
        where = f"limit {LIMIT_BYTES // 10**6} MB" if limited else "no limit"
        print(f"{name:22} {where:13} exit {code}  peak {peak / 1e6:6.1f} MB  "
              f"{time.monotonic() - start:7.1f} s", flush=True)


def measure(folder, config, fabricate, group):
    bench = Bench(group)
    model, analysis, whole = folder / "model", folder / "analysis", folder / "whole"
    _, total = write_sparse(model, config, "fp8")
    print(f"source: {total / 1e9:.1f} GB in {len(list(model.glob('*.safetensors')))} shards")
    for limited in (False, True) if group else (False,):
        for path in (analysis, whole):
            path.unlink(missing_ok=True)
        shutil.rmtree(folder / "out", ignore_errors=True)
        commands = [
            ("inspect", ["inspect", model]),
            ("analyze layer 0", ["analyze", model, "--layers", "0", "-o", analysis]),
            ("quantize layers 0-1", ["quantize", model, "--layers", "0-1", "--bits", 2,
                                     "--group-size", 128, "-o", folder / "out"]),
            ("verify layers 0-1", ["verify", model, folder / "out"]),
        ]
        if not limited:
            bench.run(fabricate, "fabricate an analysis", [model, whole], limited)
            commands[2:2] = [("analyze layer 1", ["analyze", model, "--layers", "1", "--best", "none",
                                                  "-o", folder / "analysis-1"])]
        else:
            subprocess.run([fabricate, model, whole], check=True)
        commands.append(("plan the whole", ["plan", whole, "--budget", "400GB",
                                            "-o", folder / "plan.json"]))
        for name, arguments in commands:
            bench.run(support.binary(), name, [*arguments, "--quiet"], limited)
        plan = json.loads((folder / "plan.json").read_text())
        assert plan["exact_bytes"] <= 400e9 and "only_layers" not in plan, plan["exact_bytes"]
        record = json.loads((folder / "out" / "sluice.json").read_text())
        assert record["plan"]["only_layers"] == "0-1"
        bench.good &= all(t["layer"] in (0, 1) for t in record["plan"]["tensors"])
    return bench.good


def main():
    if not support.binary() or not Path(support.binary()).exists() or len(sys.argv) < 3:
        support.skip("the sluice program is not built")
    if not os.environ.get("SLUICE_SLOW"):
        support.skip("this takes long; set SLUICE_SLOW=1 to run it")
    inputs = support.real_inputs()
    if inputs is None or not (inputs / CONFIG).is_file():
        support.skip("SLUICE_REAL_INPUTS is not set")
    if shutil.disk_usage(tempfile.gettempdir()).free < DISK_BYTES:
        support.skip(f"{DISK_BYTES / 1e9:.0f} GB of disk are needed in {tempfile.gettempdir()}")
    config = support.read_json(inputs / CONFIG)
    group = make_group()
    try:
        with tempfile.TemporaryDirectory(prefix="sluice-terabyte-") as folder:
            good = measure(Path(folder), config, sys.argv[2], group)
    finally:
        if group is not None:
            group.rmdir()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
