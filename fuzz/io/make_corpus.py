"""Writes the seeds under fuzz/io/corpus: small sound files of every kind, for mutation to start
from. Standard library only; the output does not depend on the machine."""
import json
import pathlib
import struct

ROOT = pathlib.Path(__file__).parent / "corpus"


def put(kind, name, data):
    (ROOT / kind).mkdir(parents=True, exist_ok=True)
    (ROOT / kind / name).write_bytes(data)


def safetensors(header, data):
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def string(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def u32(value):
    return 4, struct.pack("<I", value)


def f32(value):
    return 6, struct.pack("<f", value)


def flag(value):
    return 7, bytes([value])


def text(value):
    return 8, string(value)


def strings(values):
    return 9, struct.pack("<IQ", 8, len(values)) + b"".join(map(string, values))


def numbers(kind, code, values):
    return 9, struct.pack("<IQ", kind, len(values)) + struct.pack(f"<{len(values)}{code}", *values)


def gguf(fields, tensors, data, version=3):
    out = struct.pack("<IIQQ", 0x46554747, version, len(tensors), len(fields))
    for key, (kind, value) in fields.items():
        out += string(key) + struct.pack("<I", kind) + value
    for name, dims, kind, offset in tensors:
        out += string(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        out += struct.pack("<IQ", kind, offset)
    return out + bytes(-len(out) % 32) + data


def model(arch):
    return {
        "general.architecture": text(arch),
        f"{arch}.block_count": u32(1),
        f"{arch}.context_length": u32(64),
        f"{arch}.embedding_length": u32(32),
        f"{arch}.feed_forward_length": u32(32),
        f"{arch}.attention.head_count": u32(4),
        f"{arch}.attention.head_count_kv": u32(2),
        f"{arch}.attention.layer_norm_rms_epsilon": f32(1e-5),
    }


def main():
    put("safetensors", "empty", safetensors({}, b""))
    put("safetensors", "two", safetensors({
        "__metadata__": {"format": "pt"},
        "a.weight": tensor("F32", [1, 2], 0, 8),
        "b": tensor("BF16", [0, 3], 8, 8),
        "c": tensor("U8", [], 8, 9)}, b"123456789"))
    put("safetensors", "f8", safetensors({"a": tensor("F8_E4M3", [3], 0, 3)}, b"abc"))
    put("index", "sound", json.dumps({
        "metadata": {"total_size": 1.5e3, "x": [None, True]},
        "weight_map": {"a": "model-00001-of-00002.safetensors",
                       "b": "model-00002-of-00002.safetensors"}}).encode())
    put("index", "climbing", json.dumps({"weight_map": {"a": "../x.safetensors"}}).encode())
    embedding = [("token_embd.weight", [32, 6], 2, 0)]
    data = bytes(6 * 18)
    llama = model("llama") | {
        "llama.rope.freq_base": f32(10000.0),
        "tokenizer.ggml.model": text("llama"),
        "tokenizer.ggml.tokens": strings(["<unk>", "<s>", "</s>", "a", "b", "ab"]),
        "tokenizer.ggml.scores": numbers(6, "f", [0, 0, 0, -1, -2, -3]),
        "tokenizer.ggml.token_type": numbers(5, "i", [2, 3, 3, 1, 1, 1]),
        "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.ggml.eos_token_id": u32(2),
        "tokenizer.ggml.add_bos_token": flag(1)}
    put("gguf", "llama", gguf(llama, embedding, data))
    put("gguf", "llama-v2", gguf(llama, embedding, data, 2))
    put("gguf", "qwen3moe", gguf(model("qwen3moe") | {
        "qwen3moe.expert_count": u32(4), "qwen3moe.expert_used_count": u32(2),
        "qwen3moe.expert_feed_forward_length": u32(32),
        "tokenizer.ggml.model": text("gpt2"), "tokenizer.ggml.pre": text("qwen2"),
        "tokenizer.ggml.tokens": strings(["a", "b", "ab", "<|e|>"]),
        "tokenizer.ggml.merges": strings(["a b"]),
        "tokenizer.ggml.token_type": numbers(5, "i", [1, 1, 1, 3]),
        "tokenizer.ggml.eos_token_id": u32(3),
        "tokenizer.chat_template": text("{{ messages }}")}, embedding, data))
    put("gguf", "split-first", gguf(model("llama") | {
        "split.no": (2, struct.pack("<H", 0)), "split.count": (2, struct.pack("<H", 3)),
        "split.tensors.count": (5, struct.pack("<i", 3))}, embedding, data))
    nested = struct.pack("<IQ", 9, 2) + numbers(4, "I", [1, 2])[1] + strings(["inner"])[1]
    put("gguf", "nested", gguf(model("llama") | {"nested": (9, nested)},
                               [("token_embd.weight", [256, 6], 34, 0)], bytes(6 * 54)))
    put("gguf", "rope-factors", gguf(model("llama") | {
        "tokenizer.ggml.model": text("gpt2"),
        "tokenizer.ggml.tokens": strings(["a"]), "tokenizer.ggml.merges": strings([])},
        [("token_embd.weight", [32, 6], 2, 0), ("rope_freqs.weight", [4], 0, 128)],
        bytes(128) + struct.pack("<4f", 1, 1, 1, 1)))


main()
