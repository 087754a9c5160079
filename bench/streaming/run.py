#!/usr/bin/env python3
"""Models larger than memory: tokens/s at several parts of their size, against what the disk allows
and against llama.cpp's memory mapping under the same limit.

    cmake --preset bench && cmake --build --preset bench
    .venv/bin/python bench/streaming/make_large.py MODEL ...
    sudo bench/streaming/run.py MODEL... [--peer MODEL=THEIRS.gguf] [--shares 25,50]

Needs Linux and root: every run is put into a memory cgroup (v1) of its limit, swap forbidden, and
the model's files are dropped from the page cache before it. `sluice bench` reads its own share of
the disk's limit: after each repetition the same reads are done again without computing. llama.cpp
maps the file and leaves weights as they are (its other layout is a second copy in memory, for which
it is killed); it runs with the device's usual read-ahead and with 128 KiB. Rows go to
bench/results/streaming_<machine>_<date>.csv at once."""

import argparse
import csv
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SLUICE = ROOT / "build/bench/bin/sluice"
LLAMA_CPP = ROOT / "build/peer/llama.cpp"
CGROUP = Path("/sys/fs/cgroup/memory/sluice_bench")
COLUMNS = ["commit", "processor", "model", "share", "limit_bytes", "side", "tokens_per_s",
           "prefill_tokens_per_s", "disk_bytes_token", "hit_rate", "share_of_disk_limit",
           "disk_bytes_s", "cpu_s_token", "first_token_s", "peak_bytes", "cgroup_peak_bytes",
           "read_ahead_kb", "prompt", "repetitions"]


def files_of(model):
    path = Path(model)
    return sorted(path.glob("*.safetensors")) if path.is_dir() else [path]


def size_of(model):
    return sum(path.stat().st_size for path in files_of(model))


def drop_cache(model):
    for path in files_of(model):
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def in_cgroup(limit, *command):
    """Output of a command under a memory limit, and the group's own peak. None: it was killed."""
    CGROUP.mkdir(exist_ok=True)
    (CGROUP / "memory.limit_in_bytes").write_text(str(limit))
    (CGROUP / "memory.swappiness").write_text("0")
    (CGROUP / "memory.max_usage_in_bytes").write_text("0")

    def enter():
        (CGROUP / "cgroup.procs").write_text(str(os.getpid()))

    done = subprocess.run([str(word) for word in command], text=True, capture_output=True,
                          preexec_fn=enter)
    peak = int((CGROUP / "memory.max_usage_in_bytes").read_text())
    (CGROUP / "memory.force_empty").write_text("0")
    CGROUP.rmdir()
    if done.returncode != 0:
        print(f"exit {done.returncode}: {done.stderr[-500:]}", file=sys.stderr)
        return None, peak
    return done.stdout, peak


def read_ahead_file(path):
    """/sys/.../read_ahead_kb of the disk that a file is on."""
    device = os.stat(path).st_dev
    folder = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    return next(p for p in (folder / "queue/read_ahead_kb", folder.parent / "queue/read_ahead_kb")
                if p.exists())


def first_token(model, limit):
    """Seconds from the start of the process to its first token, files not cached; None where the model
    has no tokenizer."""
    drop_cache(model)
    begin = time.monotonic()
    output, _ = in_cgroup(limit, SLUICE, "run", model, "--memory", f"{limit}B", "--raw", "-p",
                          "Once upon a time", "-n", 1, "--context", 512, "--quiet")
    return dict(first_token_s=time.monotonic() - begin) if output is not None else {}


def bench(model, limit, prompt, tokens, repetitions):
    """Results by kind and the whole answer of one `sluice bench`; None: it was killed."""
    drop_cache(model)
    output, peak = in_cgroup(limit, SLUICE, "bench", model, "--memory", f"{limit}B", "--json",
                             "--quiet", "--prompts", prompt, "--tokens", tokens, "--repetitions",
                             repetitions)
    if output is None:
        return None
    found = json.loads(output)
    return {result["kind"]: result for result in found["results"]}, found, peak


def ours(model, limit, arguments):
    # Decoding in many pairs with its own reads; a long prompt once, which takes as long as all of them.
    decoded = bench(model, limit, 16, arguments.tokens, arguments.repetitions)
    if decoded is None:
        return None
    results, found, peak = decoded
    decode = results["decode"]
    row = dict(tokens_per_s=decode["tokens_per_s"], peak_bytes=found["peak_resident_bytes"],
               cgroup_peak_bytes=peak)
    if "disk_limit_s" in decode:
        row |= dict(disk_bytes_token=decode["disk_bytes_step"], hit_rate=decode["hit_rate"],
                    share_of_disk_limit=decode["share_of_disk_limit"],
                    disk_bytes_s=decode["disk_bytes_step"] * decode["tokens"]
                    / decode["disk_limit_s"], cpu_s_token=decode["cpu_s_step"])
    read = bench(model, limit, arguments.prompt, 1, 1)
    if read is not None:
        row |= dict(prefill_tokens_per_s=read[0]["prefill"]["tokens_per_s"])
    return row | first_token(model, limit)


def peer(model, limit, arguments):
    drop_cache(model)
    output, peak = in_cgroup(limit, LLAMA_CPP, "llama-bench", "-m", model, "-t", os.cpu_count(),
                             "-p", arguments.prompt, "-n", arguments.peer_tokens, "-r", 1, "-o", "json",
                             "--load-mode", "mmap", "--repack", 0)
    if output is None:
        return None
    prefill, decode = json.loads(output)
    return dict(tokens_per_s=statistics.median(decode["samples_ts"]), cgroup_peak_bytes=peak,
                prefill_tokens_per_s=statistics.median(prefill["samples_ts"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--peer", action="append", default=[], metavar="MODEL=GGUF")
    parser.add_argument("--shares", default="25,37.5,50,75,100")
    parser.add_argument("--limits", help="bytes instead of shares, by commas")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--peer-tokens", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=10)
    arguments = parser.parse_args()
    peers = dict(word.split("=") for word in arguments.peer)
    text = Path("/proc/cpuinfo").read_text()
    processor = re.search(r"model name\s*: (.*)", text)[1]
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], text=True,
                            capture_output=True).stdout.strip()
    date = datetime.date.today().isoformat()
    out = ROOT / f"bench/results/streaming_{platform.machine()}_{os.cpu_count()}core_{date}.csv"
    new = not out.exists()
    with open(out, "a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()

        def note(row, **common):
            writer.writerow(common | row | dict(commit=commit, processor=processor,
                                                prompt=arguments.prompt,
                                                repetitions=arguments.repetitions))
            file.flush()
            shown = {key: round(value, 3) if isinstance(value, float) else value
                     for key, value in (common | row).items()}
            print(" ".join(f"{key}={value}" for key, value in shown.items()), flush=True)

        for model in arguments.models:
            size = size_of(model)
            limits = [(None, int(word)) for word in arguments.limits.split(",")] \
                if arguments.limits else \
                [(share, int(size * share / 100)) for share in map(float, arguments.shares.split(","))]
            for share, limit in limits:
                # Everything and the program itself, where all of the model is to fit.
                limit = limit if share != 100 else int(size * 1.02) + 400_000_000
                common = dict(model=Path(model).name, share=share, limit_bytes=limit)
                row = ours(model, limit, arguments)
                if row is not None:
                    note(row, side="sluice", **common)
                theirs = peers.get(model)
                if theirs is None:
                    continue
                knob = read_ahead_file(theirs)
                usual = knob.read_text().strip()
                for kilobytes in dict.fromkeys((usual, "128")):
                    knob.write_text(kilobytes)
                    row = peer(theirs, limit, arguments)
                    if row is not None:
                        note(row, side="llama.cpp", read_ahead_kb=kilobytes, **common)
                knob.write_text(usual)


if __name__ == "__main__":
    main()
