"""Writing GGUF models with the gguf package, from checkpoints of tools/make_checkpoint.py: names,
stacked experts and permuted rows as llama.cpp's converter has them."""

import numpy as np
from support import read_json, read_safetensors

ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3_moe": "qwen3moe"}
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
TOP_NAMES = {"model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight",
             "model.norm.weight": "output_norm.weight"}


def interleaved(values, heads):
    """llama.cpp's LlamaModel.permute."""
    shape = values.shape
    split = values.reshape(heads, 2, shape[0] // heads // 2, *shape[1:])
    return split.swapaxes(1, 2).reshape(shape)


def gguf_tensors(folder, config):
    """name → float32 array, experts stacked, q and k of llama permuted."""
    tensors, experts = {}, {}
    for name, tensor in read_safetensors(folder / "model.safetensors").items():
        values = tensor.floats()
        if name in TOP_NAMES:
            tensors[TOP_NAMES[name]] = values
            continue
        _, _, layer, rest = name.split(".", 3)
        path, _, parameter = rest.rpartition(".")
        if ".experts." in path:
            _, _, expert, matrix = path.split(".")
            key = f"blk.{layer}.{NAMES['mlp.' + matrix]}_exps.{parameter}"
            experts.setdefault(key, {})[int(expert)] = values
            continue
        if config["model_type"] == "llama" and path.endswith(("q_proj", "k_proj")):
            heads = "num_attention_heads" if path.endswith("q_proj") else "num_key_value_heads"
            values = interleaved(values, config[heads])
        tensors[f"blk.{layer}.{NAMES[path]}.{parameter}"] = values
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
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    if "head_dim" in config:
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    if "num_experts" in config:
        writer.add_expert_count(config["num_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    vocabulary = read_json(folder / "tokenizer.json")["model"]["vocab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    # One merge and its token, because the package leaves out empty arrays.
    writer.add_token_list([*sorted(vocabulary, key=vocabulary.get), "ab"])
    writer.add_token_types([1] * (len(vocabulary) - 2) + [3, 3, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
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
