"""How every entry of the benchmark is made. A method makes a folder or a .gguf file in a scratch
folder and returns its path, or raises Failure with the reason."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from sources import LLAMA_CPP, Failure

HERE = Path(__file__).resolve().parent
SIZES = (2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6, 8)  # bits per weight
OFFLINE = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass(frozen=True)
class Entry:
    method: str
    setting: str
    make: Callable  # (workspace, scratch folder) → path, note
    kind: str = "mlx"  # or "gguf"
    calibrated: bool = False
    rival: bool = True  # Sluice is also run at exactly its bytes

    @property
    def id(self):
        return re.sub(r"[^\w.-]+", "_", f"{self.method}-{self.setting}")


# ---- Sluice ----


# What `sluice fit --effort` does, and levers one at a time. "fast" and "normal" see weights alone. "best"
# plans by sensitivities that the model was measured to have on text of its own, and encodes with error
# feedback by what enters each product on such text. With each, the formats that the searching encoder
# is priced for.
EFFORTS = {"fast": "none", "normal": "default", "best": "all", "normal with feedback": "default",
           "best without feedback": "all"}


def by_sensitivities(effort):
    return effort.startswith("best")


def by_activations(effort):
    return effort in ("best", "normal with feedback")


def planned(effort, target, options, work, scratch):
    plan, out = scratch / "plan.json", scratch / "out"
    if by_sensitivities(effort):
        options = [*options, "--sensitivity", work.sensitivities()]
    feedback = ["--activations", work.activations()] if by_activations(effort) else []
    solve = [work.sluice, "plan", work.analysis(EFFORTS[effort]), *target, *options, "-o", plan,
             "--quiet"]
    note = ""
    try:
        work.run(*solve)
    except Failure as failure:
        if "safety floors" not in str(failure):
            raise
        work.run(*solve, "--sqnr-floor", 0)  # as other tools, which have none
        note = "SQNR floor off"
    work.run(work.sluice, "quantize", work.huggingface, "--plan", plan, *feedback, "-o", out,
             "--quiet")
    return out, note


def sluice_at(effort, target, setting, name=None, options=()):
    return Entry(name or f"sluice {effort}", setting,
                 lambda work, scratch: planned(effort, target, options, work, scratch), rival=False)


def sluice_entries(efforts):
    for bits in SIZES:
        for effort in efforts:
            yield sluice_at(effort, ["--bpw", bits], f"{bits} bits")


def published_entries():
    """The published data-free method, at every size that it can reach."""
    options = ("--objective", "nrmse-linear", "--configs", "mint-v1")
    for bits in SIZES:
        entry = sluice_at("fast", ["--bpw", bits], f"{bits} bits", "published", options)
        yield Entry(entry.method, entry.setting, entry.make)


# ---- mlx_lm ----


def converted(*options):
    def make(work, scratch):
        out = scratch / "out"
        work.run(sys.executable, "-m", "mlx_lm", "convert", "--hf-path", work.huggingface,
                 "--mlx-path", out, "-q", *options, env=OFFLINE)
        return out, ""
    return make


def uniform_entries():
    for bits in (2, 3, 4, 5, 6, 8):
        for group in (32, 64, 128):
            yield Entry("uniform", f"{bits}/{group}",
                        converted("--q-bits", bits, "--q-group-size", group))
    for recipe in ("mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6"):
        yield Entry("mixed", recipe, converted("--quant-predicate", recipe))


def calibrated(name, samples, length, *options):
    def make(work, scratch):
        out = scratch / "out"
        work.run(sys.executable, HERE / "calibrated.py", name, work.calibration, samples, length,
                 "--model", work.huggingface, "--mlx-path", out, *options, env=OFFLINE, cwd=scratch)
        return out, ""
    return make


def calibrated_entries():
    for low, high, target in ((4, 5, 5), (4, 8, 5), (3, 5, 4), (2, 4, 3)):
        yield Entry("dynamic_quant", f"{low} and {high} to {target}",
                    calibrated("dynamic_quant", 64, 256, "--low-bits", low, "--high-bits", high,
                               "--target-bpw", target), calibrated=True)
    for bits in (2, 4):  # it packs no others
        yield Entry("gptq", f"{bits}/64", calibrated("gptq", 128, 256, "--bits", bits),
                    calibrated=True)
    for bits in (2, 3, 4):
        yield Entry("awq", f"{bits}/64", calibrated("awq", 128, 256, "--bits", bits),
                    calibrated=True)
        yield Entry("dwq", f"{bits}/64",
                    calibrated("dwq", 192, 256, "--bits", bits, "--num-samples", 192),
                    calibrated=True)


# ---- llama.cpp ----

GGUF_TYPES = ("Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_0", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M",
              "Q6_K", "Q8_0", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS",
              "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_XS", "IQ4_NL")


def importance_matrix(work):
    path = work.folder / "importance.gguf"
    if not path.exists() and LLAMA_CPP.exists():
        unfinished = work.folder / f"importance.{os.getpid()}.gguf"
        work.run(LLAMA_CPP, "llama-imatrix", "-m", work.gguf, "-f", work.calibration, "-o",
                 unfinished, "-c", work.source.context, "--chunks", 128)
        unfinished.rename(path)
    return path


def requantized(kind, with_importance):
    def make(work, scratch):
        if not LLAMA_CPP.exists():
            raise Failure("llama.cpp is not there; run bench/decode/get_llama_cpp")
        out = scratch / "out.gguf"
        options = ["--imatrix", importance_matrix(work)] if with_importance else []
        told = work.run("sh", "-c", 'exec "$@" 2>&1', "sh", LLAMA_CPP, "llama-quantize", *options,
                        work.gguf, out, kind)
        fallback = re.search(r"(\d+ of \d+) tensor\(s\) required fallback", told)
        return out, f"{fallback[1]} tensors of another type: narrow rows" if fallback else ""
    return make


def gguf_entries():
    for kind in GGUF_TYPES:
        for matrix in (False, True):
            yield Entry("llama.cpp with imatrix" if matrix else "llama.cpp", kind,
                        requantized(kind, matrix), kind="gguf", calibrated=matrix)


def all_entries(efforts):
    return [*sluice_entries(efforts), *published_entries(), *uniform_entries(), *gguf_entries(),
            *calibrated_entries()]
