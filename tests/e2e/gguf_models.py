"""Writing GGUF models with the gguf package, from checkpoints of tools/make_checkpoint.py: names,
stacked experts and permuted rows as llama.cpp's converter has them."""

import numpy as np
from support import load_tool, read_json, read_safetensors

layout = load_tool("gguf_layout")

ARCHITECTURES = {"llama": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen3": "qwen3",
                 "qwen3_moe": "qwen3moe"}
MIXTRAL_NAMES = {"w1": "ffn_gate", "w2": "ffn_down", "w3": "ffn_up"}


def gguf_tensors(folder, config):
    """name → float32 array, experts stacked, q and k of llama permuted."""
    tensors, experts = {}, {}
    for name, tensor in read_safetensors(folder / "model.safetensors").items():
        values = tensor.floats()
        if ".experts." in name:
            _, _, layer, _, _, expert, matrix, parameter = name.split(".")
            part = MIXTRAL_NAMES.get(matrix) or layout.NAMES["mlp." + matrix]
            key = f"blk.{layer}.{part}_exps.{parameter}"
            experts.setdefault(key, {})[int(expert)] = values
            continue
        projection = name.split(".")[-2]
        if ARCHITECTURES[config["model_type"]] == "llama" and projection in ("q_proj", "k_proj"):
            heads = "num_attention_heads" if projection == "q_proj" else "num_key_value_heads"
            values = layout.interleaved(values, config[heads])
        tensors[layout.gguf_name(name)] = values
    for key, members in experts.items():
        tensors[key] = np.stack([members[e] for e in sorted(members)])
    return tensors


def write_gguf(path, folder, blocks=None, pre="qwen2", split_max_tensors=0):
    """The checkpoint in `folder` as GGUF, F32 but for `blocks`: GGUF name → (type number, bytes of
    the rows). With split_max_tensors, a set of files beside path, each with at most so many."""
    import gguf

    config = read_json(folder / "config.json")
    writer = gguf.GGUFWriter(str(path), ARCHITECTURES[config["model_type"]],
                             split_max_tensors=split_max_tensors)
    layout.add_dims(writer, config)
    if "head_dim" in config:
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    if "num_experts" in config:
        writer.add_expert_count(config["num_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if "num_local_experts" in config:
        writer.add_expert_count(config["num_local_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
    vocabulary = read_json(folder / "tokenizer.json")["model"]["vocab"]
    layout.add_tokenizer(writer, config, [*sorted(vocabulary, key=vocabulary.get), "ab"],
                         [1] * (len(vocabulary) - 2) + [3, 3, 1], pre)
    for name, values in gguf_tensors(folder, config).items():
        if name in (blocks or {}):
            kind, rows = blocks[name]
            writer.add_tensor(name, rows, raw_dtype=kind)
        else:
            writer.add_tensor(name, np.ascontiguousarray(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
