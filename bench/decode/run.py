#!/usr/bin/env python3
"""Prefill and decode against llama.cpp: the same model at the same bits per weight, interleaved.

    cmake --preset bench && cmake --build --preset bench
    bench/decode/get_llama_cpp
    .venv/bin/python bench/decode/make_models.py MODELS --generate
    .venv/bin/python bench/decode/run.py MODELS

MODELS is a folder by make_models.py: each .gguf runs in both programs, and llama.cpp's also stands
beside the MLX folder of the same width. Or name them: PEER.gguf=OURS[,OURS...], where OURS is what
`sluice bench` takes. Round by round, in alternating order, every side runs as a process of its own:
`sluice bench` and llama.cpp's `llama-bench`, each with an unmeasured warm-up. Every run goes to
bench/results/decode_<machine>_<date>.csv at once; at the end, also with --report CSV, a table of
medians over the rounds. The share of the memory's rate counts weights and keys and values that a
token needs over what as many threads read of the same weights without computing, measured in every
run of `sluice bench` after each repetition; so is the share of prefill that multiplying alone would take. A run during which other processes were busy is tried
again, and left out when that does not help: two threads that wait for each other lose half of their
speed to half a core's disturbance.

--mlx runs mlx_lm's generation on the MLX folders too, once; it chooses its threads itself.
--prefix puts words before every command, such as "taskset -c 0,1"."""

import argparse
import csv
import datetime
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SLUICE = ROOT / "build/bench/bin/sluice"
LLAMA_CPP = ROOT / "build/peer/llama.cpp"
PYTHON = ROOT / ".venv/bin/python"
BITS = {"Q4_0": 4, "Q4_K_S": 4, "Q8_0": 8}  # of the MLX folder beside it
COLUMNS = ["commit", "processor", "peer_version", "pair", "side", "model", "threads", "round",
           "prefill", "decode", "file_bytes", "read_bytes_token", "memory_rate", "peak_share", "peak_bytes",
           "other_cores"]
DISTURBED = 0.1  # cores: a run during which others used more is tried again, and not reported

# A process starts its peak at its parent's resident memory, so the parent must be a small one. It
# prints the peak and how many cores other processes, and other guests of the host, kept busy.
LAUNCHER = """
import os, sys, time

def busy_seconds():
    try:
        with open("/proc/stat") as file:
            numbers = file.readline().split()
    except FileNotFoundError:
        return float("nan")
    user, nice, system, _, _, interrupts, soft, steal = map(int, numbers[1:9])
    return (user + nice + system + interrupts + soft + steal) / os.sysconf("SC_CLK_TCK")

start, busy = time.monotonic(), busy_seconds()
_, status, usage = os.wait4(os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ), 0)
busy, seconds = busy_seconds() - busy, time.monotonic() - start
unit = 1 if sys.platform == "darwin" else 1024
others = max(0, busy - usage.ru_utime - usage.ru_stime) / seconds
print("\\n" + str(usage.ru_maxrss * unit), others)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run(arguments, *command):
    """Output of a command, which must succeed, and what it used."""
    words = [*arguments.prefix, sys.executable, "-S", "-E", "-c", LAUNCHER, *map(str, command)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    done = subprocess.run(words, text=True, capture_output=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(map(str, command))} failed: {done.stderr[-2000:]}")
    output, numbers = done.stdout.rstrip().rsplit("\n", 1)
    peak, others = numbers.split()
    return output, dict(peak_bytes=int(peak), other_cores=float(others))


def ours(model, threads, arguments):
    output, usage = run(arguments, SLUICE, "bench", model, "--json", "--quiet", "--threads",
                        threads, "--prompts", arguments.prompt, "--tokens", arguments.decode,
                        "--repetitions", arguments.repetitions)
    found = json.loads(output)
    results = {result["kind"]: result for result in found["results"]}
    return usage | dict(
        prefill=results["prefill"]["tokens_per_s"], decode=results["decode"]["tokens_per_s"],
        file_bytes=found["weight_bytes"], memory_rate=results["decode"]["memory_bytes_s"],
        read_bytes_token=results["decode"]["read_bytes_token"],
        peak_share=results["prefill"].get("peak_share"), peak_bytes=found["peak_resident_bytes"])


def peer(model, threads, arguments):
    output, usage = run(arguments, LLAMA_CPP, "llama-bench", "-m", model, "-t", threads, "-p",
                        arguments.prompt, "-n", arguments.decode, "-r", arguments.repetitions,
                        "-o", "json")
    results = {"prefill" if test["n_prompt"] else "decode": statistics.median(test["samples_ts"])
               for test in json.loads(output)}
    return usage | dict(results, file_bytes=os.path.getsize(model),
                        read_bytes_token=gguf_bytes_token(model, arguments.decode // 2))


def stock(model, threads, arguments):
    """mlx_lm: what its benchmark calls is what `mlx_lm.generate` calls."""
    output, usage = run(arguments, PYTHON, "-m", "mlx_lm", "benchmark", "--model", model, "-p",
                        arguments.prompt, "-g", arguments.decode, "-n", 1)
    prompt, generation = re.search(r"Averages: prompt_tps=([\d.]+), generation_tps=([\d.]+)",
                                   output).groups()
    size = sum(path.stat().st_size for path in Path(model).glob("*.safetensors"))
    return usage | dict(prefill=float(prompt), decode=float(generation), file_bytes=size)


def gguf_bytes_token(path, depth):
    """What one token reads at this depth: all matrices, of embeddings that are not also the output
    one row, and keys and values in f16."""
    import gguf
    reader = gguf.GGUFReader(path)
    sizes = {tensor.name: int(tensor.n_bytes) for tensor in reader.tensors}

    def field(name):
        return reader.fields[f"llama.{name}"].contents()

    total = sum(sizes.values())
    if "output.weight" in sizes:
        [embedding] = [t for t in reader.tensors if t.name == "token_embd.weight"]
        total -= sizes["token_embd.weight"] * (1 - 1 / int(embedding.shape[1]))
    head = field("embedding_length") // field("attention.head_count")
    row = field("block_count") * field("attention.head_count_kv") * head * 2 * 2
    return int(total) + depth * row


def pairs_of(words):
    """(llama.cpp's model, ours) from folders and PEER=OURS,OURS."""
    pairs = []
    for word in words:
        if "=" in word:
            theirs, mine = word.split("=")
            pairs.append((theirs, mine.split(",")))
            continue
        for path in sorted(Path(word).glob("*.gguf")):
            name, kind = re.fullmatch(r"(.+)[.-](\w+)", path.stem).groups()
            folder = path.parent / f"{name}-{BITS.get(kind)}bit"
            pairs.append((str(path), [str(path)] + [str(folder)] * folder.exists()))
    if not pairs:
        sys.exit(f"no .gguf in {' '.join(words)}; bench/decode/make_models.py makes them")
    return pairs


def facts():
    """Columns that all rows share."""
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"],
                            capture_output=True, text=True).stdout.strip()
    version = subprocess.run([LLAMA_CPP, "llama-bench", "--version"], capture_output=True,
                             text=True)
    found = re.search(r"version: (\S+)", version.stdout + version.stderr)
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return dict(commit=commit, peer_version=found[1] if found else "",
                processor=names[0] if names else platform.processor())


def measure(arguments, path):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        shared = facts()

        def one(side, function, theirs, model, threads, number):
            for _ in range(arguments.tries):
                found = function(model, threads, arguments)
                writer.writerow(dict(shared, pair=Path(theirs).name, side=side,
                                     model=Path(model).name, threads=threads, round=number,
                                     **found))
                file.flush()
                print(f"{side:9} {Path(model).name:40} threads {threads} round {number}: prefill "
                      f"{found['prefill']:8.2f}  decode {found['decode']:7.2f} tokens/s, "
                      f"others {found['other_cores']:.2f} cores", flush=True)
                if not found["other_cores"] > DISTURBED:
                    break

        for theirs, mine in pairs_of(arguments.models):
            sides = [("llama.cpp", peer, theirs)] + [("sluice", ours, model) for model in mine]
            for threads in map(int, arguments.threads.split(",")):
                for number in range(arguments.rounds):
                    for side, function, model in sides[::-1] if number % 2 == 0 else sides:
                        one(side, function, theirs, model, threads, number)
        if arguments.mlx:
            for model in sorted({model for _, mine in pairs_of(arguments.models) for model in mine
                                 if Path(model).is_dir()}):
                one("mlx_lm", stock, model, model, 0, 0)


def report(path):
    """A table, in Markdown, of medians over the rounds; ratios are ours over llama.cpp's."""
    with open(path, newline="") as file:
        everything = list(csv.DictReader(file))
    rows = [row for row in everything if not float(row["other_cores"]) > DISTURBED]

    def values(key, **wanted):
        return [float(row[key]) for row in rows
                if row.get(key) and all(row[name] == value for name, value in wanted.items())]

    def column(key, **wanted):
        return statistics.median(values(key, **wanted) or [float("nan")])

    head = ["llama.cpp", "sluice", "threads", "MB/token", "prefill", "ratio", "of peak %", "decode",
            "ratio", "rounds", "memory GB/s", "share %", "peak MB"]
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    cases = dict.fromkeys((row["pair"], row["model"], row["threads"]) for row in rows
                          if row["side"] == "sluice")
    for pair, model, threads in cases:
        rates = values("memory_rate", side="sluice", threads=threads)
        rate = statistics.median(rates)
        both = [dict(pair=pair, threads=threads, side="sluice", model=model),
                dict(pair=pair, threads=threads, side="llama.cpp")]
        (prefill, decode, read, peak), theirs = (
            [column(key, **side) for key in ("prefill", "decode", "read_bytes_token", "peak_bytes")]
            for side in both)
        # Ours run by run: what the memory allows changes from one to the next on shared machines.
        mine, peers = ([row for row in rows if all(row[name] == value for name, value in side.items())]
                       for side in both)

        def share_of(row):
            return (float(row["decode"]) * float(row["read_bytes_token"]) / float(row["memory_rate"]))

        share = statistics.median(map(share_of, mine))
        their_share = theirs[1] * theirs[2] / rate
        # What is asked for: the smaller of 1.2 times as fast and 90 % of the memory's rate. Round by
        # round as well: where the memory is fast one is the smaller, where it is slow the other.
        fast = decode >= 1.2 * theirs[1] or share >= 0.9
        peer_of = {row["round"]: float(row["decode"]) for row in peers}
        met = [float(row["decode"]) >= 1.2 * peer_of[row["round"]] or share_of(row) >= 0.9
               for row in mine if row["round"] in peer_of]
        print(f"| {pair} | {'same' if model == pair else model} | {threads} "
              f"| {read / 1e6:.1f}, {theirs[2] / 1e6:.1f} "
              f"| {prefill:.1f}, {theirs[0]:.1f} | {prefill / theirs[0]:.2f}"
              f"{'' if prefill >= theirs[0] else ' !'} "
              f"| {100 * column('peak_share', **both[0]):.0f} "
              f"| {decode:.2f}, {theirs[1]:.2f} | {decode / theirs[1]:.2f}{'' if fast else ' !'} "
              f"| {sum(met)} of {len(met)} | {rate / 1e9:.1f} ({min(rates) / 1e9:.1f} to {max(rates) / 1e9:.1f}) "
              f"| {100 * share:.0f}, {100 * their_share:.0f} "
              f"| {peak / 1e6:.0f}, {theirs[3] / 1e6:.0f} |")
    for row in rows:
        if row["side"] == "mlx_lm":
            prefill, decode, peak = (float(row[key])
                                     for key in ("prefill", "decode", "peak_bytes"))
            print(f"\nmlx_lm {row['model']}: prefill {prefill:.2f}, decode {decode:.2f} tokens/s, "
                  f"peak {peak / 1e6:.0f} MB")
    print("\nTwo numbers: sluice, llama.cpp. !: below what is asked for; rounds: in how many it was met.")
    print(f"Left out: {len(everything) - len(rows)} of {len(everything)} runs during which others "
          f"used more than {DISTURBED} of a core.")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODELS or PEER.gguf=OURS")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--tries", type=int, default=3, help="at a run that others disturb")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--mlx", action="store_true")
    parser.add_argument("--prefix", type=shlex.split, default=[])
    parser.add_argument("--results", metavar="CSV", help="where to write every run")
    parser.add_argument("--report", metavar="CSV", help="only the table of an earlier run")
    arguments = parser.parse_args()
    if arguments.report:
        report(arguments.report)
        return
    if not arguments.models:
        parser.error("no models")
    path = Path(arguments.results) if arguments.results else ROOT / "bench/results" / (
        f"decode_{platform.machine()}_{os.cpu_count()}core_{datetime.date.today()}.csv")
    measure(arguments, path)
    report(path)


if __name__ == "__main__":
    main()
