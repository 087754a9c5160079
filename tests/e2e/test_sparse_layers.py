"""A layer of full size of models whose experts have to be turned or taken apart, Llama 4 Scout and
gpt-oss-120b, whose weights are holes of sparse files: conversion and verification in bounded memory,
measured whole-process. A matrix of one of Scout's experts alone takes 168 MB.

    test_sparse_layers.py SLUICE PEAK"""

import shutil
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
        source, out = self.folder / name, self.folder / f"{name}-out"
        size = write_sparse(source, family, dtype, dims)
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


if __name__ == "__main__":
    support.main()
