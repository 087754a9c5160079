"""A layer of full size of models whose experts have to be turned or taken apart, Llama 4 Scout and
gpt-oss-120b, and of such that are packed by columns, whose weights are holes of sparse files: conversion
and verification in bounded memory, measured whole-process. A matrix of one of Scout's experts alone takes
168 MB.

    test_sparse_layers.py SLUICE PEAK"""

import json
import math
import shutil
import struct
import sys
import time

import support

MANY_THREADS = 48
PEAK_BYTES_MAX = int(sys.argv.pop(2).removesuffix("MB")) * 10**6 if len(sys.argv) > 2 else 0
tool = support.load_tool("make_checkpoint")

# Fewer experts than they have, of their size; one layer.
SCOUT = dict(hidden_size=5120, intermediate_size=8192, intermediate_size_mlp=16384, head_dim=128,
             num_attention_heads=40, num_key_value_heads=8, num_local_experts=2,
             num_hidden_layers=1, vocab_size=2048)
GPT_OSS = dict(hidden_size=2880, intermediate_size=2880, head_dim=64, num_attention_heads=64,
               num_key_value_heads=8, num_local_experts=24, num_experts_per_tok=4,
               num_hidden_layers=1, vocab_size=2048)
LLAMA = dict(hidden_size=8192, intermediate_size=28672, num_attention_heads=64, num_key_value_heads=8,
             num_hidden_layers=1, vocab_size=2048)
KIMI = dict(num_hidden_layers=2, hidden_size=7168, moe_intermediate_size=2048, intermediate_size=18432,
            n_routed_experts=12, num_attention_heads=64, num_key_value_heads=64, q_lora_rank=1536,
            kv_lora_rank=512, vocab_size=2048)
ELEMENT_BYTES = {"I32": 4, "I64": 8, "F16": 2, "BF16": 2, "F32": 4}


def packed_parts(method, rows, columns):
    """(end of the name, type, shape) of what a matrix is stored as."""
    if method == "compressed-tensors":
        return [("weight_packed", "I32", (rows, columns // 8)),
                ("weight_scale", "BF16", (rows, columns // 32)), ("weight_shape", "I64", (2,))]
    groups = columns // 128
    by_columns = [("qzeros", "I32", (groups, rows // 8)), ("scales", "F16", (groups, rows))]
    if method == "awq":
        return [("qweight", "I32", (columns, rows // 8)), *by_columns]
    return [("qweight", "I32", (columns // 8, rows)), *by_columns, ("g_idx", "I32", (columns,))]


def write_packed(folder, family, method, dims, **settings):
    """The same with the linears of layers packed."""
    folder.mkdir()
    config = tool.make_config(family, "f16" if method != "compressed-tensors" else "bf16", **dims)
    config["quantization_config"] = dict(quant_method=method, **settings)
    header, offset = {}, 0
    for name, shape in tool.tensor_list(config):
        plain = "layers." not in name or not name.endswith("proj.weight") or "kv_b" in name
        kind = "F32" if name.endswith("bias") else "BF16" if method not in ("gptq", "awq") else "F16"
        parts = [("weight", kind, shape)] if plain else packed_parts(method, *shape)
        for end, dtype, part in parts:
            bytes_ = math.prod(part) * ELEMENT_BYTES[dtype]
            full = name if plain else name.removesuffix("weight") + end
            header[full] = dict(dtype=dtype, shape=part, data_offsets=[offset, offset + bytes_])
            offset += bytes_
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        out.truncate(8 + len(text) + offset)
    tool.write_json(folder / "config.json", config)
    return offset


def write_sparse(folder, family, dtype, dims):
    """Headers in full, weights as holes. Returns the bytes of all weights."""
    folder.mkdir()
    config = tool.make_config(family, dtype, **dims)
    tensors = tool.typed_tensors(config, dtype)
    header = tool.header_bytes(tensors)
    size = sum(tool.stored_bytes(shape, kind) for _, shape, kind in tensors)
    with open(folder / "model.safetensors", "wb") as out:
        out.write(header)
        out.truncate(len(header) + size)
    tool.write_json(folder / "config.json", config)
    return size


class SparseLayers(support.TestCase):
    def check(self, name, family, dtype, dims, *format):
        self.measure(name, write_sparse(self.folder / name, family, dtype, dims), *format)

    def measure(self, name, size, *format):
        source, out = self.folder / name, self.folder / f"{name}-out"
        commands = [("quantize", source, *format, "-o", out), ("verify", source, out),
                    ("verify", source, out, "--threads", MANY_THREADS)]
        for command in commands:
            start = time.monotonic()
            result = support.measured([*command, "--quiet"])
            print(f"{name}, {size / 1e9:.2f} GB: {command[0]} peak {result.peak_bytes / 1e6:.1f} MB, "
                  f"{time.monotonic() - start:.1f} s", flush=True)
            self.assertEqual(result.code, 0, result.stderr)
            self.assertLessEqual(result.peak_bytes, PEAK_BYTES_MAX)
        shutil.rmtree(out)

    def test_experts_that_are_turned(self):
        self.check("scout", "llama4", "bf16", SCOUT, "--bits", 4)

    def test_experts_that_are_taken_apart(self):
        self.check("gpt-oss", "gpt_oss", "mxfp4", GPT_OSS, "--bits", 4)

    def test_experts_that_are_both(self):
        self.check("gpt-oss-16", "gpt_oss", "bf16", dict(GPT_OSS, num_local_experts=8),
                   "--mode", "mxfp4")

    def test_matrices_packed_by_columns(self):
        for method, settings in (("awq", dict(version="gemm", zero_point=True)),
                                 ("gptq", dict(sym=True, desc_act=False)),
                                 ("gptq", dict(sym=True, desc_act=True))):
            name = f"{method}-{settings.get('desc_act', '')}"
            size = write_packed(self.folder / name, "llama", method, LLAMA, bits=4, group_size=128,
                                **settings)
            # Holes say that all columns are of the first group, which is no order to be moved in.
            self.measure(name, size, "--bits", 3, "--group-size", 128)

    def test_experts_packed_by_rows(self):
        weights = dict(num_bits=4, type="int", symmetric=True, strategy="group", group_size=32)
        size = write_packed(self.folder / "kimi", "kimi_k2", "compressed-tensors", KIMI,
                            format="pack-quantized", config_groups=dict(group_0=dict(weights=weights)))
        self.measure("kimi", size, "--bits", 4, "--group-size", 32)


if __name__ == "__main__":
    support.main()
