"""The real program on a failing system: killed at every call that changes a file, and every call
failed in turn, once and from then on, or cut short. Afterwards there is a complete output or none,
one clear sentence if there was an error, and the same command goes on to the bytes of an
undisturbed run. The calls are intercepted by tests/support/fault_preload.cpp.

    faults_test.py PRELOAD_LIBRARY [--all] [--jobs N] [SCENARIO ...]

Without --all, every scenario and kind is tried at some places only, drawn from a printed seed
(SLUICE_TEST_SEED repeats them).
"""

import argparse
import collections
import concurrent.futures
import errno
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

import tiny_model

CHANGES = "create,write,fsync,ftruncate,fallocate,mkdir,rename,remove,sync_file_range"
TRANSFERS = "read,write"
SAMPLES = 5  # places per scenario and kind, without --all

Kind = collections.namedtuple("Kind", "name action mode operations survives")
# survives: the program must finish as if nothing had happened.
KINDS = [
    Kind("kill before", "kill-before", "once", CHANGES, False),
    Kind("kill after", "kill-after", "once", CHANGES, False),
    Kind("EIO once", str(errno.EIO), "once", "", False),
    Kind("EIO", str(errno.EIO), "always", "", False),
    Kind("ENOSPC once", str(errno.ENOSPC), "once", CHANGES, False),
    Kind("ENOSPC", str(errno.ENOSPC), "always", CHANGES, False),
    Kind("EAGAIN once", str(errno.EAGAIN), "once", TRANSFERS, False),
    Kind("EAGAIN", str(errno.EAGAIN), "always", TRANSFERS, False),
    Kind("EINTR once", str(errno.EINTR), "once",
         TRANSFERS + ",open,create,fsync,ftruncate,fallocate,flock,statvfs", True),
    Kind("EINTR", str(errno.EINTR), "half",
         TRANSFERS + ",open,create,fsync,ftruncate,fallocate,flock,statvfs", True),
    Kind("short once", "short", "once", TRANSFERS, True),
    Kind("short", "short", "always", TRANSFERS, True),
]


class Place:
    """A folder with a model and what the commands need, used by one case at a time."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        self.out = self.folder / "out"
        self.model = tiny_model.make_model(self.folder / "model", vocab=32)
        self.analysis, self.plan = self.folder / "analysis", self.folder / "plan"
        tiny_model.sluice("analyze", self.model, "-o", self.analysis, "-q")
        tiny_model.sluice("plan", self.analysis, "--bpw", 5, "-o", self.plan, "-q")
        self.saved = self.folder / "saved"

    def leftovers(self):
        return [pathlib.Path(f"{self.out}{suffix}") for suffix in (".partial", ".journal")]

    def clean(self):
        for path in (self.out, *self.leftovers()):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.exists():
                path.unlink()


class Scenario:
    """One command; result() is what must come out the same, or None while there is none."""

    def __init__(self, place):
        self.place = place

    def prepare(self):
        self.place.clean()

    def result(self):
        out = self.place.out
        return tiny_model.files_of(out) if out.exists() else None

    def whole_or_absent(self, reference):
        return self.result() in (None, reference)


class Analyze(Scenario):
    def command(self):
        return ["analyze", self.place.model, "-o", self.place.out]

    def result(self):
        return self.place.out.read_bytes() if self.place.out.exists() else None

    def whole_or_absent(self, reference):
        # The file itself is the journal: what is there must be a beginning, but for a torn line.
        found = self.result()
        return found is None or reference.startswith(found[:found.rfind(b"\n") + 1])


class Quantize(Scenario):
    def command(self):
        return ["quantize", self.place.model, "--plan", self.place.plan, "-o", self.place.out]


class Fit(Scenario):
    def command(self):
        return ["fit", self.place.model, "--bpw", 5, "-o", self.place.out]


class Resume(Fit):
    """fit, where an earlier run was killed just before it would have published."""

    def __init__(self, place):
        super().__init__(place)
        place.clean()
        count = calls_of(self, CHANGES)
        place.clean()
        # The last two renames are those of run.json and of the folder.
        result = run(self, "kill-before", "once", "rename", count["rename"])
        assert result.returncode == -9, result
        for path in place.leftovers():
            target = pathlib.Path(f"{place.saved}{path.suffix}")
            shutil.copytree(path, target) if path.is_dir() else shutil.copy2(path, target)

    def prepare(self):
        super().prepare()
        for path in self.place.leftovers():
            source = pathlib.Path(f"{self.place.saved}{path.suffix}")
            shutil.copytree(source, path) if source.is_dir() else shutil.copy2(source, path)


class Verify(Scenario):
    def __init__(self, place):
        super().__init__(place)
        place.clean()
        self.folder = place.folder / "verified"
        if not self.folder.exists():
            tiny_model.sluice("quantize", place.model, "--plan", place.plan, "-o", self.folder)

    def command(self):
        return ["verify", self.place.model, self.folder]

    def result(self):
        return tiny_model.files_of(self.folder)


SCENARIOS = dict(analyze=Analyze, quantize=Quantize, fit=Fit, resume=Resume, verify=Verify)


def run(scenario, action="", mode="once", operations="", at=0):
    log = scenario.place.folder.parent / f"{scenario.place.folder.name}.log"
    log.unlink(missing_ok=True)
    environment = dict(os.environ, LD_PRELOAD=PRELOAD, SLUICE_FAULT_ROOT=str(scenario.place.folder),
                       SLUICE_FAULT_OPS=operations, SLUICE_FAULT_AT=str(at),
                       SLUICE_FAULT_KIND=action, SLUICE_FAULT_MODE=mode, SLUICE_FAULT_LOG=str(log))
    result = subprocess.run(
        [tiny_model.BINARY, *map(str, scenario.command()), "-q", "--threads", "2"],
        env=environment, capture_output=True, text=True, timeout=120)
    result.log = [line.split(" ", 3) for line in log.read_text().splitlines()] \
        if log.exists() else []
    result.hits = [entry[1] for entry in result.log if entry[2] == "hit"]
    return result


def calls_of(scenario, operations):
    """How often each operation occurs in an undisturbed run."""
    result = run(scenario, operations=operations)
    assert result.returncode == 0, result.stderr
    return collections.Counter(entry[1] for entry in result.log)


def synced_again(log):
    """Files that were synced after a sync of theirs had failed, in one run."""
    failed = set()
    for _, operation, verdict, path in log:
        if operation == "fsync":
            if path in failed:
                return path
            if verdict == "hit":
                failed.add(path)
    return None


class Failed(Exception):
    pass


def expect(condition, message):
    if not condition:
        raise Failed(message)


def check(scenario, kind, at, reference):
    """One case. Returns whether the run got as far as call number `at`."""
    scenario.prepare()
    result = run(scenario, kind.action, kind.mode, kind.operations, at)
    story = f"exit {result.returncode}: {result.stderr.strip()}"
    if not result.hits:
        expect(result.returncode == 0, f"failed without a fault, {story}")
        return False
    expect(scenario.whole_or_absent(reference), f"the output is neither complete nor absent, {story}")
    if kind.action.startswith("kill"):
        expect(result.returncode == -9, f"not killed, {story}")
    elif result.returncode == 0:
        expect(scenario.result() == reference, "another result")
        if kind.action.isdigit() and not kind.survives:
            lost = {"write", "fsync", "ftruncate", "rename", "mkdir"} & set(result.hits)
            expect(not lost, f"{lost} failed and the program claims success")
    else:
        expect(not kind.survives, f"should not be noticed, {story}")
        # A name whose state cannot be asked counts as taken, which is bad usage.
        allowed = (3, 4) if "stat" in result.hits else (4,)
        expect(result.returncode in allowed, story)
        lines = result.stderr.strip().splitlines()
        expect(len(lines) == 1 and lines[0].startswith("error: ") and len(lines[0]) < 500, story)
    if not kind.survives:
        expect(synced_again(result.log) is None, f"synced again: {synced_again(result.log)}")
    finished = scenario.result() == reference and not any(
        path.exists() for path in scenario.place.leftovers())
    if not finished:
        again = run(scenario)
        expect(again.returncode == 0, f"{story}; the next run: {again.stderr.strip()}")
        expect(scenario.result() == reference, f"{story}; the next run gives other bytes")
    expect(not any(path.exists() for path in scenario.place.leftovers()), f"leftovers, {story}")
    return True


def campaign(place, name, kind, sampled, rng):
    """Every place (or some) of one kind of fault in one scenario. Returns (cases, failures)."""
    scenario = SCENARIOS[name](place)
    scenario.prepare()
    total = sum(calls_of(scenario, kind.operations).values())
    reference = scenario.result()
    # Threads may take a few calls more or less from run to run; the end is found by running into it.
    places = sorted(rng.sample(range(1, total + 1), min(SAMPLES, total))) if sampled else None
    failures, cases, at = [], 0, 0
    while True:
        if sampled:
            if not places:
                break
            at = places.pop(0)
        else:
            at += 1
        try:
            if not check(scenario, kind, at, reference):
                if sampled:
                    continue
                break
        except Failed as failure:
            failures.append(f"{name}, {kind.name} at call {at}: {failure}")
            if len(failures) >= 5:
                break
        cases += 1
    return cases, failures


def main():
    global PRELOAD
    parser = argparse.ArgumentParser()
    parser.add_argument("preload")
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []])
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kinds", help="only those whose name contains this")
    options = parser.parse_args()
    tiny_model.skip_without_binary()
    PRELOAD = options.preload
    seed = tiny_model.test_seed()
    work = [(name, kind) for name in options.scenarios or SCENARIOS for kind in KINDS
            if (name != "verify" or not kind.action.startswith("kill") and "ENOSPC" not in kind.name)
            and (options.kinds is None or options.kinds in kind.name)]
    total, failed = 0, []
    with tempfile.TemporaryDirectory(prefix="sluice-faults-") as root:

        def job(number):
            name, kind = work[number]
            rng = random.Random(f"{seed} {name} {kind.name}")
            place = Place(f"{root}/{number}")
            try:
                return campaign(place, name, kind, not options.all, rng)
            finally:
                shutil.rmtree(place.folder)

        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            for (name, kind), (cases, failures) in zip(work, pool.map(job, range(len(work)))):
                total += cases
                failed += failures
                print(f"{name:9} {kind.name:12} {cases:5} cases, {len(failures)} failed", flush=True)
                for failure in failures:
                    print(f"    {failure}", flush=True)
    print(f"{total} cases, {len(failed)} failed")
    return 1 if failed or total == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
