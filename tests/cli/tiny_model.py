"""Small llama checkpoints with the standard library alone, and running the program on them."""

import json
import os
import pathlib
import random
import struct
import subprocess
import sys

BINARY = os.environ.get("SLUICE_BINARY", "")


def test_seed():
    """The seed of random cases: always the same, unless the environment says another."""
    seed = int(os.environ.get("SLUICE_TEST_SEED", 1))
    print(f"SLUICE_TEST_SEED={seed}", flush=True)
    return seed


def skip_without_binary():
    if not BINARY or not os.access(BINARY, os.X_OK):
        print("SLUICE_BINARY is not built")
        sys.exit(77)


def sluice(*arguments, expect=0, **options):
    result = subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True,
                            timeout=120, **options)
    if expect is not None and result.returncode != expect:
        raise AssertionError(f"{arguments}: exit code {result.returncode}, expected {expect}\n"
                             f"{result.stdout}{result.stderr}")
    return result


def matrix(rng, rows, columns):
    """bfloat16 of about ±0.06; the upper half of an f32 with a random sign and mantissa."""
    noise = rng.randbytes(rows * columns)
    out = bytearray(2 * rows * columns)
    out[0::2] = noise
    out[1::2] = bytes(0x3d if b & 1 else 0xbd for b in noise)
    return [rows, columns], bytes(out)


def norm(size):
    return [size], b"\x80\x3f" * size


def make_model(folder, hidden=128, intermediate=96, layers=1, vocab=64, seed=1):
    folder = pathlib.Path(folder)
    folder.mkdir()
    rng = random.Random(seed)
    heads, kv_heads, head_dim = 4, 2, hidden // 4
    tensors = {"model.embed_tokens.weight": matrix(rng, vocab, hidden),
               "lm_head.weight": matrix(rng, vocab, hidden),
               "model.norm.weight": norm(hidden)}
    for layer in range(layers):
        shapes = {"self_attn.q_proj": (heads * head_dim, hidden),
                  "self_attn.k_proj": (kv_heads * head_dim, hidden),
                  "self_attn.v_proj": (kv_heads * head_dim, hidden),
                  "self_attn.o_proj": (hidden, heads * head_dim),
                  "mlp.gate_proj": (intermediate, hidden),
                  "mlp.up_proj": (intermediate, hidden),
                  "mlp.down_proj": (hidden, intermediate)}
        for name, shape in shapes.items():
            tensors[f"model.layers.{layer}.{name}.weight"] = matrix(rng, *shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{name}.weight"] = norm(hidden)
    header, data = {}, b""
    for name, (shape, raw) in tensors.items():
        header[name] = {"dtype": "BF16", "shape": shape,
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "config.json").write_text(json.dumps({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden,
        "intermediate_size": intermediate, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim,
        "vocab_size": vocab, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16"}))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def files_of(folder):
    """Everything but timings, by name."""
    return {path.name: path.read_bytes() for path in sorted(pathlib.Path(folder).iterdir())
            if path.name != "run.json"}
