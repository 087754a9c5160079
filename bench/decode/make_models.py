#!/usr/bin/env python3
"""The models that run.py compares on: for each the same weights as .gguf files and MLX folders.

    bench/decode/get_llama_cpp
    .venv/bin/python bench/decode/make_models.py FOLDER demo/SmolLM2-135M-Instruct.Q4_1.gguf
    .venv/bin/python bench/decode/make_models.py FOLDER --generate

A .gguf is requantized to Q4_0, Q4_K_S and Q8_0 by llama.cpp's own tool, and to 4/64 and 8/64 by
`sluice quantize`. --generate first writes a random Llama of 2.5 B parameters, in BF16: a checkpoint
by tools/make_checkpoint.py, and the same as .gguf; both are removed at the end. Needs 13 GB of
disk while it runs, 8 GB after. What is there already is kept."""

import argparse
import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import gguf
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SLUICE = ROOT / "build/bench/bin/sluice"
LLAMA_CPP = ROOT / "build/peer/llama.cpp"


def load_tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_checkpoint, layout = load_tool("make_checkpoint"), load_tool("gguf_layout")
safetensors_folder = load_tool("safetensors_folder")

GENERATED = "random-llama-2.5B"
# Every width divides by 256, the blocks of Q4_K; the output is a matrix of its own, as in Llama 3.
DIMS = dict(hidden_size=2560, intermediate_size=6912, num_hidden_layers=32, num_attention_heads=20,
            num_key_value_heads=5, vocab_size=49152, max_position_embeddings=8192)
TYPES = ("Q4_0", "Q4_K_S", "Q8_0")
BITS = (4, 8)


def run(*command):
    print("+", *command, flush=True)
    subprocess.run([str(word) for word in command], check=True)


def checkpoint_tensors(folder):
    """name, uint16 array of BF16 bits, one tensor after another."""
    for name, _, shape, data in safetensors_folder.stored_tensors(folder):
        yield name, data.view("<u2").reshape(shape)


def add_metadata(writer, config):
    layout.add_dims(writer, config)
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    # Bytes, two special tokens and unused ones.
    alphabet = make_checkpoint.byte_alphabet()
    unused = [f"<unused{n}>" for n in range(config["vocab_size"] - len(alphabet) - 3)]
    layout.add_tokenizer(writer, config, [*alphabet, "<s>", "</s>", "ab", *unused],
                         [1] * len(alphabet) + [3, 3, 1] + [5] * len(unused), "smollm")


def write_gguf(path, folder, config):
    """The checkpoint as BF16 .gguf, one tensor in memory at a time."""
    writer = gguf.GGUFWriter(str(path), "llama")
    add_metadata(writer, config)
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, bits in checkpoint_tensors(folder):
        dtype = gguf.GGMLQuantizationType.BF16 if bits.ndim > 1 else gguf.GGMLQuantizationType.F32
        kind = np.uint16 if bits.ndim > 1 else np.float32
        writer.add_tensor_info(layout.gguf_name(name), bits.shape, np.dtype(kind),
                               bits.size * np.dtype(kind).itemsize, raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, bits in checkpoint_tensors(folder):
        if bits.ndim == 1:
            writer.write_tensor_data((bits.astype(np.uint32) << 16).view(np.float32))
            continue
        kind = name.split(".")[-2]
        writer.write_tensor_data(layout.interleaved(bits, heads[kind]) if kind in heads else bits)
    writer.close()


def generate(folder):
    """A checkpoint and a .gguf with the same random weights."""
    checkpoint, model = folder / f"{GENERATED}-bf16", folder / f"{GENERATED}-BF16.gguf"
    if not checkpoint.exists():
        make_checkpoint.make_checkpoint(checkpoint, "llama", shards=None, **DIMS)
    if not model.exists():
        config = json.loads((checkpoint / "config.json").read_text())
        partial = model.with_suffix(".partial")
        write_gguf(partial, checkpoint, config)
        partial.rename(model)
    return checkpoint, model


def quantized(folder, name, checkpoint, model):
    for kind in TYPES:
        out = folder / f"{name}-{kind}.gguf"
        if not out.exists():
            run(LLAMA_CPP, "llama-quantize", "--allow-requantize", model, out, kind)
    for bits in BITS:
        out = folder / f"{name}-{bits}bit"
        if not out.exists():
            run(SLUICE, "quantize", checkpoint, "--bits", bits, "--group-size", 64, "-o", out,
                "--quiet")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("model", type=Path, nargs="?", help="a .gguf")
    parser.add_argument("--generate", action="store_true")
    arguments = parser.parse_args()
    if (arguments.model is None) != arguments.generate:
        parser.error("either a .gguf or --generate")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if not arguments.generate:
        name = arguments.model.stem.rsplit(".", 1)[0]
        beside = arguments.folder / arguments.model.name
        if not beside.exists():
            beside.symlink_to(arguments.model.resolve())
        quantized(arguments.folder, name, arguments.model, arguments.model)
        return
    names = [f"{GENERATED}-{kind}.gguf" for kind in TYPES]
    if all((arguments.folder / name).exists()
           for name in [*names, *(f"{GENERATED}-{bits}bit" for bits in BITS)]):
        return
    checkpoint, model = generate(arguments.folder)
    quantized(arguments.folder, GENERATED, checkpoint, model)
    shutil.rmtree(checkpoint)
    model.unlink()


if __name__ == "__main__":
    main()
