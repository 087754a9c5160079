"""kill -9 at random moments of real conversions: every one resumes to the bytes of an undisturbed
run, and no kill costs more work than one checkpoint.

    kill_random.py SLUICE --kills 1000 --size 2GB [--folder DIR]

Conversions are killed one to four times each (or up to --each) before they may finish; every fourth
is a whole `fit`, killed in analysis and verification too. SLUICE_TEST_SEED chooses the places. CI runs a short
version.
"""

import argparse
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import support
from support import test_seed, read_json, sluice

# What conversion makes durable and journals at once, and the blocks in flight beside it.
CHECKPOINT_BYTES = 256 << 20
IN_FLIGHT_BYTES = 64 << 20


def parse_size(text):
    units = {"MB": 10**6, "GB": 10**9}
    return int(float(text[:-2]) * units[text[-2:]])


def digests(folder):
    found = {}
    for path in sorted(Path(folder).iterdir()):
        if path.name != "run.json":
            with open(path, "rb") as file:
                found[path.name] = hashlib.file_digest(file, "blake2b").hexdigest()
    return found


def journal_modules(path):
    """Indices of the modules that the journal's whole lines record."""
    modules = set()
    if path.exists():
        for line in path.read_bytes().split(b"\n")[:-1]:
            try:
                modules.add(json.loads(line)["record"]["module"])
            except (ValueError, KeyError):
                pass
    return modules


class Campaign:
    def __init__(self, folder, size, each, rng):
        self.rng, self.each = rng, each
        self.folder = folder
        self.model = folder / "model"
        tool = support.load_tool("make_checkpoint")
        dims = tool.dims_for_bytes("llama", "bf16", size) if size else dict(vocab_size=2048)
        tool.make_checkpoint(self.model, "llama", seed=7, **dims)
        self.analysis, self.plan = folder / "analysis", folder / "plan"
        sluice("analyze", self.model, "-o", self.analysis, "-q")
        sluice("plan", self.analysis, "--bpw", 4.5, "-o", self.plan, "-q")
        self.module_bytes = [tensor["bytes"] for tensor in read_json(self.plan)["tensors"]]
        self.kinds = {
            "quantize": ["quantize", self.model, "--plan", self.plan],
            "fit": ["fit", self.model, "--bpw", 4.5, "--best", "none"],
        }
        self.seconds, self.reference = {}, {}
        for kind in self.kinds:
            out = folder / f"reference-{kind}"
            started = time.monotonic()
            sluice(*self.command(kind, out))
            self.seconds[kind] = time.monotonic() - started
            self.reference[kind] = digests(out)
            shutil.rmtree(out)
        self.kills = self.conversions = self.resumed = self.repeated_max = 0

    def command(self, kind, out):
        return [*self.kinds[kind], "-o", out, "--quiet"]

    def kill_once(self, kind, out):
        """Whether there was something to kill."""
        journal = Path(f"{out}.journal")
        before = journal_modules(journal)
        process = subprocess.Popen([support.binary(), *map(str, self.command(kind, out))],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            # Resumed runs are shorter; half of the kills come early.
            process.wait(self.rng.uniform(0, self.seconds[kind]) * self.rng.choice((0.3, 1)))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGSTOP)
            written = self.bytes_written(process.pid)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            self.kills += 1
            if not out.exists():
                fresh = journal_modules(journal) - before
                repeated = written - sum(self.module_bytes[module] for module in fresh)
                self.repeated_max = max(self.repeated_max, repeated)
                assert repeated <= CHECKPOINT_BYTES + IN_FLIGHT_BYTES, f"{repeated} bytes lost"
            return True
        assert process.returncode == 0, process.communicate()[1]
        return False

    @staticmethod
    def bytes_written(pid):
        try:
            for line in Path(f"/proc/{pid}/io").read_text().splitlines():
                if line.startswith("wchar:"):
                    return int(line.split()[1])
        except (OSError, PermissionError):
            pass
        return 0

    def convert_once(self, number, kills_left):
        kind = "fit" if number % 4 == 3 else "quantize"
        out = self.folder / f"out-{number}"
        partial, journal = Path(f"{out}.partial"), Path(f"{out}.journal")
        for _ in range(min(self.rng.randint(1, self.each), kills_left)):
            if not self.kill_once(kind, out):
                break
        if out.exists() and not journal.exists():
            recorded = None  # complete already
        else:
            recorded = journal_modules(journal) if partial.exists() else None
            result = sluice(*self.command(kind, out), "--json")
            found = json.loads(result.stdout)["modules_resumed"]
            if recorded is not None:
                assert found == len(recorded), f"{found} modules resumed of {len(recorded)}"
                self.resumed += found
        assert digests(out) == self.reference[kind], f"{out}: other bytes than undisturbed"
        assert not partial.exists() and not journal.exists(), "leftovers"
        shutil.rmtree(out)
        self.conversions += 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--size", type=parse_size, default=0, help="of the source; default: tiny")
    parser.add_argument("--each", type=int, default=4, help="kills of one conversion, at most")
    parser.add_argument("--folder", help="where to work; default: the system's temporary folder")
    options = parser.parse_args()
    rng = random.Random(test_seed())
    with tempfile.TemporaryDirectory(prefix="sluice-kill-", dir=options.folder) as folder:
        campaign = Campaign(Path(folder), options.size, options.each, rng)
        print("undisturbed: " + ", ".join(f"{kind} {seconds:.2f} s"
                                           for kind, seconds in campaign.seconds.items()), flush=True)
        number = 0
        while campaign.kills < options.kills:
            campaign.convert_once(number, options.kills - campaign.kills)
            number += 1
            if number % 20 == 0:
                print(f"{campaign.kills} kills in {number} conversions", flush=True)
            assert number < 20 * options.kills + 20, "conversions are too fast to be killed"
        print(f"{campaign.kills} kills in {campaign.conversions} conversions: all resumed to the "
              f"same bytes, {campaign.resumed} modules taken over, at most "
              f"{max(campaign.repeated_max, 0) / 1e6:.1f} MB of work lost to one kill")
    return 0


if __name__ == "__main__":
    sys.exit(main())
