#!/usr/bin/env python3
"""Size against KL divergence and perplexity: Sluice at each effort beside every other way to make a
smaller model, at equal bytes, on every trained model that is there.

    cmake --preset bench && cmake --build --preset bench
    bench/decode/get_llama_cpp                 # for llama.cpp's entries
    .venv/bin/python bench/quality/run.py      # SLUICE_REAL_INPUTS: the folder of real inputs

Each entry is made, scored against the source by `sluice compare` (activations and keys in f32, so that
weights alone are judged; windows that begin with BOS, every token scored) and removed; its scores go to
build/quality/MODEL/entries at once, and what is there is not done again, failures with their reasons
included (--again tries those anew). For each entry of another tool, Sluice is run at exactly its bytes,
and the difference is taken window by window. --part 1/2 does every second entry, for several processes
or machines over one folder. At the end, also with --report: bench/results/quality_<machine>_<date>.csv
and docs/images/quality_<model>.svg, and predicted_<model>.svg of plans by measured sensitivities."""

import argparse
import datetime
import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import methods
import report
from sources import ROOT, SOURCES, Failure, Workspace


def tensor_bytes(path):
    """Of a .gguf, without the tokenizer that it has inside."""
    import gguf
    return sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors)


def measure(work, entry, scratch):
    path, note = entry.make(work, scratch)
    found = json.loads(work.run(work.sluice, "compare", work.reference, path,
                                *work.window_options(), "--json", "--quiet"))
    [model] = found["models"]
    size = tensor_bytes(path) if entry.kind == "gguf" else model["weight_file_bytes"]
    plan = scratch / "plan.json"  # of Sluice's own entries
    predicted = json.loads(plan.read_text()).get("predicted_kl") if plan.exists() else None
    return dict(bytes=size, bits_per_weight=8 * size / work.parameters, note=note,
                predicted_kl=predicted, reference=found["reference"]["perplexity"], scores=model)


def done(work, entry, arguments):
    """The entry's record; made when it is not there."""
    path = work.folder / "entries" / f"{entry.id}.json"
    if path.exists():
        record = json.loads(path.read_text())
        if not (arguments.again and "failed" in record):
            return record
    record = dict(method=entry.method, setting=entry.setting, kind=entry.kind,
                  calibrated=entry.calibrated, commit=arguments.commit)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=work.folder, prefix="making-") as scratch:
        try:
            record |= measure(work, entry, Path(scratch))
        except Failure as failure:
            record["failed"] = str(failure)
    record["seconds"] = round(time.monotonic() - started, 1)
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(record))
    unfinished.rename(path)
    told = record.get("failed") or (f"{record['bits_per_weight']:.3f} bits, divergence "
                                    f"{record['scores']['kl']['mean']:.5f}")
    print(f"{work.source.name}: {entry.method} {entry.setting}: {told}", flush=True)
    return record


def partners(entry, record, efforts):
    """Sluice at exactly the bytes of another tool's entry."""
    if not entry.rival or "failed" in record:
        return []
    return [methods.sluice_at(effort, ["--budget", f"{record['bytes']}B"], f"{record['bytes']} bytes")
            for effort in efforts]


def known_sizes(work, path):
    """Of an earlier results file: sizes in bytes by method and setting; none where one failed."""
    records = report.known(path, work.source.name, []) if path else []
    return {(record["method"], record["setting"]): record.get("bytes") for record in records}


def all_known(known, entry, efforts):
    """Also at Sluice's efforts: a difference needs the windows of both."""
    if (entry.method, entry.setting) not in known:
        return False
    size = known[entry.method, entry.setting]
    return not entry.rival or size is None or all(
        (f"sluice {effort}", f"{size} bytes") in known for effort in efforts)


def run_source(work, entries, efforts, arguments):
    with open(work.folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        work.prepare()
        for effort in efforts:
            work.analysis(methods.EFFORTS[effort])
            if methods.by_sensitivities(effort):
                work.sensitivities()
            if methods.by_activations(effort):
                work.activations()
        if any(entry.method == "llama.cpp with imatrix" for entry in entries):
            methods.importance_matrix(work)
    part, parts = map(int, arguments.part.split("/"))
    known = known_sizes(work, arguments.known)
    for entry in entries[part - 1::parts]:
        if all_known(known, entry, efforts):
            continue
        record = done(work, entry, arguments)
        for partner in partners(entry, record, efforts):
            done(work, partner, arguments)


def commit_of():
    told = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True,
                          text=True)
    return told.stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", default=os.environ.get("SLUICE_REAL_INPUTS", ""))
    parser.add_argument("--sluice", default=ROOT / "build/bench/bin/sluice")
    parser.add_argument("--work", type=Path, default=ROOT / "build/quality")
    parser.add_argument("--models", help="names, with commas between (default: all that are there)")
    parser.add_argument("--methods", help="only these, with commas between")
    parser.add_argument("--settings", help="only these of those, with commas between, in this order: 4/64,6/64")
    parser.add_argument("--efforts", help="of Sluice, with commas between (default: all)")
    parser.add_argument("--part", default="1/1", metavar="I/N")
    parser.add_argument("--again", action="store_true", help="entries that failed before")
    parser.add_argument("--report", action="store_true", help="only from what is there")
    parser.add_argument("--results", type=Path, metavar="CSV")
    parser.add_argument("--known", type=Path, metavar="CSV", help="earlier results: entries that are not "
                        "there are taken from it, each with its own commit, and not made anew where "
                        "it has Sluice's at the same bytes as well")
    arguments = parser.parse_args()
    arguments.commit = commit_of()
    wanted = arguments.models.split(",") if arguments.models else None
    efforts = arguments.efforts.split(",") if arguments.efforts else list(methods.EFFORTS)
    entries = methods.all_entries(efforts)
    if arguments.methods:
        names = arguments.methods.split(",")
        entries = [entry for entry in entries if entry.method in names]
    if arguments.settings:
        entries = [entry for setting in arguments.settings.split(",") for entry in entries
                   if entry.setting == setting]
    works = [Workspace(source, arguments.inputs, arguments.work, arguments.sluice)
             for source in SOURCES if wanted is None or source.name in wanted]
    works = [work for work in works if work.available()]
    if not works:
        sys.exit("no model is there; set SLUICE_REAL_INPUTS, or run scripts/demo_model")
    if not arguments.report:
        for work in works:
            try:
                run_source(work, entries, efforts, arguments)
            except Failure as failure:  # before the first entry
                print(f"{work.source.name}: {failure}", file=sys.stderr)
    path = arguments.results or ROOT / "bench/results" / (
        f"quality_{platform.machine()}_{os.cpu_count()}core_{datetime.date.today()}.csv")
    everything = []
    for work in works:
        records = report.load(work.folder / "entries")
        if arguments.known:
            records += report.known(arguments.known, work.source.name, records)
        everything.append((work.source, records))
    report.write(everything, path, ROOT / "docs/images")


if __name__ == "__main__":
    main()
