#!/usr/bin/env python3
"""Preparation against the disk: each command's time over the time of its reads and writes alone.

    cmake --preset bench && cmake --build --preset bench
    .venv/bin/python bench/convert/run.py --sizes 4GB,16GB --pairs 10

For every size it makes a checkpoint (tools/make_checkpoint.py), and then, pair by pair and in
alternating order, runs a command and `stream_bench`, which does the same reads and writes through
the same engine and computes nothing. Every run starts with the model's files out of the page cache.
`mlx_lm.convert` runs on the same checkpoint, the machine's own disk and memory rates are measured
beside. Prints medians and writes every run to bench/results/convert_<machine>_<date>.csv.

Needs 1.6 times the largest size on disk in --folder, and the Python environment that
`scripts/setup test` makes."""

import argparse
import csv
import datetime
import importlib.util
import mmap
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "bench" / "bin"
PYTHON = ROOT / ".venv" / "bin" / "python"

spec = importlib.util.spec_from_file_location("make_checkpoint", ROOT / "tools/make_checkpoint.py")
make_checkpoint = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_checkpoint)

# A process starts its peak at its parent's resident memory, so the parent must be a small one.
LAUNCHER = """
import os, sys, time
null = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]
start = time.monotonic()
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=null)
_, status, usage = os.wait4(process, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss, time.monotonic() - start,
      usage.ru_utime + usage.ru_stime)
"""


def run(command):
    """Seconds, peak resident bytes and CPU seconds of a command, which must succeed."""
    launcher = [sys.executable, "-S", "-E", "-c", LAUNCHER, *map(str, command)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    output = subprocess.run(launcher, check=True, text=True, stdout=subprocess.PIPE,
                            env=environment).stdout
    code, peak, seconds, cpu = output.split()
    if int(code) != 0:
        sys.exit(f"{' '.join(map(str, command))} failed with {code}")
    unit = 1 if sys.platform == "darwin" else 1024
    return dict(seconds=float(seconds), peak_bytes=int(peak) * unit, cpu_seconds=float(cpu))


def evict(*folders):
    """Writes out what is dirty and takes the folders' files out of the page cache."""
    os.sync()
    for folder in folders:
        for path in Path(folder).glob("*"):
            if path.is_file() and hasattr(os, "posix_fadvise"):
                with open(path, "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk_rate(folder, threads=4, size=1 << 20):
    """Bytes per second of plain direct reads of the weights, without any code of Sluice."""
    todo = [(path, at) for path in sorted(Path(folder).glob("*.safetensors"))
            for at in range(0, path.stat().st_size // size * size, size)]
    lock, direct = threading.Lock(), getattr(os, "O_DIRECT", 0)

    def work():
        buffer, files = mmap.mmap(-1, size), {}
        while True:
            with lock:
                if not todo:
                    break
                path, at = todo.pop()
            if path not in files:
                files[path] = os.open(path, os.O_RDONLY | direct)
            os.preadv(files[path], [buffer], at)
        for file in files.values():
            os.close(file)

    total = len(todo) * size
    workers = [threading.Thread(target=work) for _ in range(threads)]
    start = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return total / (time.monotonic() - start)


def memory_rate():
    """Bytes per second that one core reads from memory: the best of five sums over half a GB."""
    import numpy as np
    array = np.ones(1 << 26)
    best = min(_timed(array.sum) for _ in range(5))
    return array.nbytes / best


def _timed(function):
    start = time.monotonic()
    function()
    return time.monotonic() - start


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.rows = []
        self.sluice = BUILD / "sluice"
        self.stream = BUILD / "stream_bench"
        self.threads = arguments.threads or os.cpu_count()

    def note(self, size, pair, what, **values):
        self.rows.append(dict(size=size, pair=pair, what=what, **values))

    def timed(self, size, pair, what, command, folders):
        evict(*folders)
        result = run(command)
        self.note(size, pair, what, **result)
        print(f"{size:>6} pair {pair:2} {what:18} {result['seconds']:8.2f} s  "
              f"CPU {result['cpu_seconds']:8.2f} s  peak {result['peak_bytes'] / 1e6:7.1f} MB",
              flush=True)

    def commands(self, source, work):
        """name: (command, the same without computing, folders read, output to remove first)"""
        s, threads = self.sluice, ["--threads", self.threads, "--quiet"]
        out, copy, uniform = work / "out", work / "copy", work / "uniform"
        analysis = work / "analysis"
        read = [self.stream, "read", source, self.threads]
        return {
            "analyze": ([s, "analyze", source, "--best", "none", "-o", analysis, *threads], read,
                        [source], analysis),
            "analyze best": ([s, "analyze", source, "-o", analysis, *threads], read, [source],
                             analysis),
            "quantize": ([s, "quantize", source, "--bits", 4, "-o", out, *threads],
                         [self.stream, "write", source, uniform, copy, self.threads], [source],
                         out),
            "verify": ([s, "verify", source, uniform, *threads],
                       [self.stream, "verify", source, uniform, self.threads], [source, uniform],
                       None),
        }

    def measure(self, size):
        work = Path(self.arguments.folder) / f"sluice-bench-{os.getpid()}"
        work.mkdir()
        try:
            self.measure_in(size, work)
        finally:
            shutil.rmtree(work)

    def measure_in(self, size, work):
        source = work / "source"
        dims = make_checkpoint.dims_for_bytes(self.arguments.family, "bf16",
                                              make_checkpoint.parse_bytes(size))
        make_checkpoint.make_checkpoint(source, self.arguments.family, shards=None, **dims)
        self.bytes = sum(f.stat().st_size for f in source.glob("*.safetensors"))
        run([self.sluice, "quantize", source, "--bits", 4, "-o", work / "uniform", "--quiet"])
        for pair in range(self.arguments.pairs):
            evict(source)
            self.note(size, pair, "disk", rate=disk_rate(source))
            self.note(size, pair, "memory", rate=memory_rate())
            for name, (command, baseline, folders, output) in self.commands(source, work).items():
                if name not in self.arguments.commands:
                    continue
                both = [(name, command), (name + " reads", baseline)]
                for what, words in both if pair % 2 == 0 else both[::-1]:
                    self.timed(size, pair, what, words, folders)
                    for leftover in (output, work / "copy"):
                        if leftover is not None and leftover.exists():
                            (shutil.rmtree if leftover.is_dir() else os.unlink)(leftover)
            if pair < self.arguments.mlx_pairs and PYTHON.exists():
                self.timed(size, pair, "mlx_lm.convert",
                           [PYTHON, "-m", "mlx_lm", "convert", "--hf-path", source, "--mlx-path",
                            work / "mlx", "-q", "--q-bits", 4, "--q-group-size", 64], [source])
                shutil.rmtree(work / "mlx")
        self.report(size)

    def column(self, size, what, key):
        return [row[key] for row in self.rows if row["size"] == size and row["what"] == what]

    def report(self, size):
        weights = self.bytes / 2
        median = statistics.median
        print(f"\n{size}: {self.bytes / 1e9:.2f} GB of bf16, {self.threads} threads; disk "
              f"{median(self.column(size, 'disk', 'rate')) / 1e9:.2f} GB/s, memory "
              f"{median(self.column(size, 'memory', 'rate')) / 1e9:.1f} GB/s")
        print(f"{'':16}{'seconds':>9}{'reads':>9}{'ratio':>8}{'min':>7}{'max':>7}"
              f"{'Gweights/s/core':>17}{'peak MB':>9}")
        for name in self.arguments.commands:
            seconds = self.column(size, name, "seconds")
            reads = self.column(size, name + " reads", "seconds")
            ratios = [a / b for a, b in zip(seconds, reads)]
            cpu = self.column(size, name, "cpu_seconds")
            peak = max(self.column(size, name, "peak_bytes"))
            print(f"{name:16}{median(seconds):9.2f}{median(reads):9.2f}{median(ratios):8.3f}"
                  f"{min(ratios):7.2f}{max(ratios):7.2f}{weights / 1e9 / median(cpu):17.3f}"
                  f"{peak / 1e6:9.1f}")
        stock = self.column(size, "mlx_lm.convert", "seconds")
        if stock:
            ours = self.column(size, "quantize", "seconds")
            peak = max(self.column(size, "mlx_lm.convert", "peak_bytes"))
            ratio = f"{median(stock) / median(ours):.2f} × quantize" if ours else ""
            print(f"{'mlx_lm.convert':16}{median(stock):9.2f} s, peak {peak / 1e6:.1f} MB {ratio}")
        print(flush=True)

    def save(self):
        path = Path(self.arguments.results) if self.arguments.results else (
            ROOT / "bench" / "results" /
            f"convert_{platform.machine()}_{os.cpu_count()}core_{datetime.date.today()}.csv")
        commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"],
                                capture_output=True, text=True).stdout.strip()
        columns = ["commit", "family", "threads", "size", "pair", "what", "seconds", "cpu_seconds",
                   "peak_bytes", "rate"]
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            for row in self.rows:
                writer.writerow(dict(commit=commit, family=self.arguments.family,
                                     threads=self.threads, **row))
        print(f"{len(self.rows)} rows in {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["analyze", "analyze best", "quantize", "verify"]
    parser.add_argument("--sizes", default="1GB", help="such as 1GB,4GB,16GB,40GB")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--mlx-pairs", type=int, default=3, help="runs of mlx_lm.convert")
    parser.add_argument("--commands", default=",".join(names),
                        help=f"some of: {', '.join(names)}")
    parser.add_argument("--family", default="llama", choices=make_checkpoint.FAMILIES)
    parser.add_argument("--threads", type=int, default=0, help="default: all cores")
    parser.add_argument("--folder", default=os.environ.get("TMPDIR", "/tmp"))
    parser.add_argument("--results", help="CSV file")
    arguments = parser.parse_args()
    arguments.commands = arguments.commands.split(",")
    bench = Bench(arguments)
    for size in arguments.sizes.split(","):
        needed = 1.6 * make_checkpoint.parse_bytes(size)
        if shutil.disk_usage(arguments.folder).free < needed:
            sys.exit(f"{size}: {needed / 1e9:.1f} GB are needed in {arguments.folder}")
        bench.measure(size)
    bench.save()


if __name__ == "__main__":
    main()
