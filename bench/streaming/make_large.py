#!/usr/bin/env python3
"""A large random model, quantized, written at disk speed without its 16-bit form.

    .venv/bin/python bench/streaming/make_large.py OUT --shape qwen3-30b [--tokenizer FILE]
    .venv/bin/python bench/streaming/make_large.py OUT.gguf --shape olmoe
    .venv/bin/python bench/streaming/make_large.py OUT.gguf --shape mistral-7b

A folder gets 4-bit affine weights with groups of 64 (mixtures are qwen3_moe, dense models llama); a
.gguf Q4_0 (Mixtral's layout, or Llama's), which llama.cpp runs too. Codes are random and scales
constant: speed and reads do not depend on them. Routers are random with rows of different lengths, so that some experts are chosen far more
often than others, as in trained models; which ones follows from the seed and is no real text's
choice."""

import argparse
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SHAPES = {
    # Qwen3-30B-A3B: 17 GB at 4 bits.
    "qwen3-30b": dict(hidden_size=2048, num_hidden_layers=48, num_attention_heads=32,
                      num_key_value_heads=4, head_dim=128, num_experts=128, num_experts_per_tok=8,
                      moe_intermediate_size=768, intermediate_size=6144, vocab_size=151936,
                      max_position_embeddings=40960),
    # OLMoE-1B-7B: 4 GB.
    "olmoe": dict(hidden_size=2048, num_hidden_layers=16, num_attention_heads=16,
                  num_key_value_heads=16, head_dim=128, num_experts=64, num_experts_per_tok=8,
                  moe_intermediate_size=1024, intermediate_size=1024, vocab_size=50304,
                  max_position_embeddings=4096),
    # Dense: Mistral 7B, 4.1 GB.
    "mistral-7b": dict(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
                       num_attention_heads=32, num_key_value_heads=8, head_dim=128,
                       vocab_size=32000, max_position_embeddings=32768),
}
DEVIATION = 0.02  # of weights
# Of embeddings: so large that what a router sees is the token, not what all tokens have in common.
EMBEDDING_DEVIATION = 1.0
SKEW = 0.35       # of the logarithm of a router row's length
SHARD_BYTES = 5_000_000_000
ALIGNMENT = 16384  # of data in a file


def load_tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_checkpoint = load_tool("make_checkpoint")


class Noise:
    """Random bytes cut from a pool."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.pool = self.random.integers(0, 256, 64 << 20, np.uint8)

    def write(self, file, count):
        while count > 0:
            start = int(self.random.integers(0, len(self.pool) // 2)) // 64 * 64
            part = self.pool[start:start + min(count, len(self.pool) // 2)]
            file.write(part.data)
            count -= len(part)


def bf16(values):
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def router(noise, config):
    lengths = np.exp(SKEW * noise.random.standard_normal(config["num_experts"]))
    rows = noise.random.standard_normal((config["num_experts"], config["hidden_size"]))
    return (DEVIATION * lengths[:, None] * rows).astype(np.float32)


def stacked(config):
    """(name, shape) of all matrices as MLX stacks them, and of vectors, in order of layers."""
    found, experts = [], config.get("num_experts")
    for name, shape in make_checkpoint.tensor_list(config):
        if ".experts." not in name:
            found.append((name, shape))
        elif ".experts.0." in name:
            found.append((name.replace("experts.0.", "switch_mlp."), (experts, *shape)))
    return found


def scale_of(name):
    """Of 4-bit codes, so that weights have the wanted deviation."""
    deviation = EMBEDDING_DEVIATION if "emb" in name else DEVIATION
    return deviation / np.sqrt((16 ** 2 - 1) / 12)


def parts_of(name, shape):
    """(name, dtype, shape, bytes) of what a tensor is stored as."""
    if len(shape) == 1 or name.endswith("mlp.gate.weight"):
        return [(name, "BF16", shape, 2 * int(np.prod(shape)))]
    base = name.removesuffix("weight")
    codes, groups = (*shape[:-1], shape[-1] // 8), (*shape[:-1], shape[-1] // 64)
    return [(name, "U32", codes, 4 * int(np.prod(codes))),
            (base + "scales", "BF16", groups, 2 * int(np.prod(groups))),
            (base + "biases", "BF16", groups, 2 * int(np.prod(groups)))]


def write_part(file, noise, config, name, dtype, shape, size):
    scale = scale_of(name)
    if dtype == "U32":
        noise.write(file, size)
    elif name.endswith("mlp.gate.weight"):
        file.write(bf16(router(noise, config)).tobytes())
    else:
        value = {"scales": scale, "biases": -7.5 * scale}.get(name.rsplit(".", 1)[1], 1.0)
        piece = np.full(min(size // 2, 1 << 20), bf16(value), np.uint16).tobytes()
        for start in range(0, size, len(piece)):
            file.write(piece[:size - start])


def write_folder(out, config, noise, tokenizer):
    out.mkdir(parents=True)
    shards, used = [[]], 0
    for name, shape in stacked(config):
        parts = parts_of(name, shape)
        size = sum(part[3] for part in parts)
        if used + size > SHARD_BYTES:
            shards.append([])
            used = 0
        shards[-1] += parts
        used += size
    weight_map = {}
    for index, parts in enumerate(shards, 1):
        file_name = f"model-{index:05}-of-{len(shards):05}.safetensors"
        header, at = {"__metadata__": {"format": "mlx"}}, 0
        for name, dtype, shape, size in parts:
            header[name] = dict(dtype=dtype, shape=list(shape), data_offsets=[at, at + size])
            weight_map[name] = file_name
            at += size
        text = json.dumps(header).encode()
        text += b" " * (-(len(text) + 8) % ALIGNMENT)
        with open(out / file_name, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for part in parts:
                write_part(file, noise, config, *part)
    config["quantization"] = dict(group_size=64, bits=4, mode="affine")
    (out / "config.json").write_text(json.dumps(config, indent=2))
    index = dict(metadata={}, weight_map=weight_map)
    (out / "model.safetensors.index.json").write_text(json.dumps(index))
    if tokenizer is not None:
        shutil.copy(tokenizer, out / "tokenizer.json")
    else:
        make_checkpoint.write_tokenizer(out)


def write_blocks(file, noise, name, elements):
    """Q4_0: an f16 scale and 32 codes of mean 8, which is zero: weights with a mean of their own
    would make all tokens alike after a few layers."""
    scale = np.float16(scale_of(name)).tobytes()
    left = elements // 32
    while left > 0:
        count = min(left, 1 << 20)
        start = int(noise.random.integers(0, len(noise.pool) - count * 18)) // 64 * 64
        blocks = noise.pool[start:start + count * 18].reshape(count, 18).copy()
        blocks[blocks & 15 == 0] |= 8
        blocks[blocks >> 4 == 0] |= 128
        blocks[:, :2] = np.frombuffer(scale, np.uint8)
        file.write(blocks.tobytes())
        left -= count


def write_gguf(out, config, noise):
    import gguf
    layout = load_tool("gguf_layout")
    writer = gguf.GGUFWriter(str(out), "llama")
    layout.add_dims(writer, config)
    if "num_experts" in config:
        writer.add_expert_count(config["num_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    alphabet = make_checkpoint.byte_alphabet()
    unused = [f"<unused{n}>" for n in range(config["vocab_size"] - len(alphabet) - 3)]
    layout.add_tokenizer(writer, config, [*alphabet, "<s>", "</s>", "ab", *unused],
                         [1] * len(alphabet) + [3, 3, 1] + [5] * len(unused), "smollm")
    tensors = []
    for name, shape in stacked(config):
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            continue  # not in this layout
        if "switch_mlp" in name:
            _, _, layer, _, _, matrix, parameter = name.split(".")
            tensors.append((f"blk.{layer}.{layout.NAMES['mlp.' + matrix]}_exps.{parameter}", shape))
        else:
            tensors.append((layout.gguf_name(name), shape))
    q4, f32 = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.F32
    for name, shape in tensors:
        plain = len(shape) == 1 or "ffn_gate_inp" in name
        count = int(np.prod(shape))
        if plain:
            writer.add_tensor_info(name, shape, np.dtype(np.float32), 4 * count, raw_dtype=f32)
        else:
            stored = (*shape[:-1], shape[-1] // 32 * 18)
            writer.add_tensor_info(name, stored, np.dtype(np.uint8), count // 32 * 18,
                                   raw_dtype=q4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    file = writer.fout[0]
    for name, shape in tensors:
        writer.write_padding(file, file.tell())
        if len(shape) == 1:
            file.write(np.ones(shape, np.float32).tobytes())
        elif "ffn_gate_inp" in name:
            file.write(router(noise, config).tobytes())
        else:
            write_blocks(file, noise, name, int(np.prod(shape)))
    writer.write_padding(file, file.tell())
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="olmoe")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json to put beside")
    arguments = parser.parse_args()
    if arguments.out.exists():
        parser.error(f"{arguments.out} is there already")
    shape = SHAPES[arguments.shape]
    config = make_checkpoint.make_config("qwen3_moe" if "num_experts" in shape else "llama", **shape)
    noise = Noise(arguments.seed)
    if arguments.out.suffix == ".gguf":
        write_gguf(arguments.out, config, noise)
    else:
        write_folder(arguments.out, config, noise, arguments.tokenizer)


if __name__ == "__main__":
    main()
