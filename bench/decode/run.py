#!/usr/bin/env python3
"""Prefill and decode against llama.cpp: the same model at the same bits per weight, interleaved.

    cmake --preset bench && cmake --build --preset bench
    npm install --prefix build/peer node-llama-cpp
    .venv/bin/python bench/decode/run.py OURS=PEER.gguf [OURS=PEER.gguf ...] --threads 1,2

Each pair is a model for `sluice bench` (a folder or a .gguf) and a .gguf for llama.cpp, which runs
by the prebuilt library of its npm package. Round by round, in alternating order, each side runs as
a process of its own; medians over all rounds. Writes every run to
bench/results/decode_<machine>_<date>.csv."""

import argparse
import csv
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SLUICE = ROOT / "build/bench/bin/sluice"
PEER = ROOT / "build/peer"


def ours(model, threads, arguments):
    output = subprocess.run(
        [SLUICE, "bench", model, "--json", "--quiet", "--threads", str(threads),
         "--prompts", str(arguments.prompt), "--tokens", str(arguments.decode),
         "--repetitions", str(arguments.repetitions)],
        check=True, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(output)
    rates = {result["kind"]: result for result in found["results"]}
    return dict(prefill=rates["prefill"]["tokens_per_s"], decode=rates["decode"]["tokens_per_s"],
                memory_share=rates["decode"]["memory_share"],
                memory_rate=found["memory_bytes_s"], bytes=found["weight_bytes"])


def peer(model, threads, arguments):
    output = subprocess.run(
        ["node", PEER / "llama_cpp.mjs", model, str(threads), str(arguments.prompt),
         str(arguments.decode), str(arguments.repetitions)],
        check=True, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(output.splitlines()[-1])
    return dict(prefill=arguments.prompt / statistics.median(found["prefill"]),
                decode=arguments.decode / statistics.median(found["decode"]),
                bytes=os.path.getsize(model))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="OURS=PEER.gguf")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--results", help="CSV file")
    arguments = parser.parse_args()
    rows = []
    # A module is found beside the script that imports it.
    shutil.copy(ROOT / "bench/decode/llama_cpp.mjs", PEER)
    for pair in arguments.pairs:
        mine, theirs = pair.split("=")
        for threads in map(int, arguments.threads.split(",")):
            for number in range(arguments.rounds):
                sides = [("sluice", ours, mine), ("llama.cpp", peer, theirs)]
                for name, run, model in sides if number % 2 == 0 else sides[::-1]:
                    rows.append(dict(side=name, model=model, pair=pair, threads=threads,
                                     round=number, **run(model, threads, arguments)))
            report(rows, pair, threads)
    save(rows, arguments.results)


def report(rows, pair, threads):
    def column(side, key):
        return statistics.median(row[key] for row in rows if row["side"] == side
                                 and row["pair"] == pair and row["threads"] == threads)
    print(f"\n{pair}, {threads} threads: {column('sluice', 'bytes') / 1e6:.1f} and "
          f"{column('llama.cpp', 'bytes') / 1e6:.1f} MB, memory "
          f"{column('sluice', 'memory_rate') / 1e9:.1f} GB/s")
    for key in ("prefill", "decode"):
        mine, theirs = column("sluice", key), column("llama.cpp", key)
        print(f"  {key:8} sluice {mine:9.2f} tokens/s   llama.cpp {theirs:9.2f}   "
              f"ratio {mine / theirs:.2f}")
    print(f"  of the memory's rate: {100 * column('sluice', 'memory_share'):.1f} %", flush=True)


def save(rows, path):
    path = Path(path) if path else ROOT / "bench/results" / (
        f"decode_{platform.machine()}_{os.cpu_count()}core_{datetime.date.today()}.csv")
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"],
                            capture_output=True, text=True).stdout.strip()
    columns = ["commit", "pair", "side", "model", "threads", "round", "prefill", "decode",
               "memory_share", "memory_rate", "bytes"]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(dict(commit=commit, **row))
    print(f"{len(rows)} rows in {path}")


if __name__ == "__main__":
    main()
