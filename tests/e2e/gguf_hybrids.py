"""Qwen's hybrids of linear and gated attention as llama.cpp's converter lays them out in GGUF: what
gguf_models.py has for the others."""

import numpy as np
from support import load_tool, read_json, read_safetensors

layout = load_tool("gguf_layout")

ARCHITECTURES = {"qwen3_next": "qwen3next", "qwen3_5": "qwen35", "qwen3_5_moe": "qwen35moe"}
NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight", "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight", "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "linear_attn.in_proj_qkv.weight": "attn_qkv.weight",
    "linear_attn.in_proj_z.weight": "attn_gate.weight",
    "linear_attn.in_proj_b.weight": "ssm_beta.weight",
    "linear_attn.in_proj_a.weight": "ssm_alpha.weight",
    "linear_attn.in_proj_ba.weight": "ssm_ba.weight",
    "linear_attn.conv1d.weight": "ssm_conv1d.weight", "linear_attn.dt_bias": "ssm_dt.bias",
    "linear_attn.A_log": "ssm_a", "linear_attn.norm.weight": "ssm_norm.weight",
    "linear_attn.out_proj.weight": "ssm_out.weight",
    "mlp.gate.weight": "ffn_gate_inp.weight",
    "mlp.shared_expert_gate.weight": "ffn_gate_inp_shexp.weight",
    **{f"mlp.{part}_proj.weight": f"ffn_{part}.weight" for part in ("gate", "up", "down")},
    **{f"mlp.shared_expert.{part}_proj.weight": f"ffn_{part}_shexp.weight"
       for part in ("gate", "up", "down")},
    "mlp.experts.down_proj": "ffn_down_exps.weight",
}
TOP_NAMES = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}


def tiled(values, axis, keys, width):
    """Value heads of that width by turns among key heads, which in Hugging Face's files keep theirs
    together."""
    values = np.moveaxis(values, axis, 0)
    heads = values.reshape(keys, -1, width, *values.shape[1:])
    return np.moveaxis(heads.swapaxes(0, 1).reshape(values.shape), 0, axis)


def separated(values, config):
    """in_proj_qkvz, head by head in the file: (q of all heads, then k, then v), and z."""
    keys, key = config["linear_num_key_heads"], config["linear_key_head_dim"]
    per_key = config["linear_num_value_heads"] // keys * config["linear_value_head_dim"]
    heads = values.reshape(keys, -1, values.shape[1])
    parts = np.split(heads, np.cumsum([key, key, per_key]), axis=1)
    q, k, v, z = (part.reshape(-1, values.shape[1]) for part in parts)
    return np.concatenate([q, k, v]), z


def rearranged(name, values, config):
    """Of Qwen3.5, whose value heads the converter moves."""
    keys, heads = config["linear_num_key_heads"], config["linear_num_value_heads"]
    width = config["linear_value_head_dim"]
    if heads == keys or "linear_attn" not in name:
        return values
    if "in_proj_qkv" in name or "conv1d" in name:
        first = 2 * keys * config["linear_key_head_dim"]
        return np.concatenate([values[:first], tiled(values[first:], 0, keys, width)])
    if "in_proj_z" in name:
        return tiled(values, 0, keys, width)
    if name.endswith(("in_proj_b.weight", "in_proj_a.weight", "A_log", "dt_bias")):
        return tiled(values, 0, keys, 1)
    if "out_proj" in name:
        return tiled(values, 1, keys, width)
    return values


def gguf_tensors(folder, config, fuse_experts=False):
    """name → float32 array."""
    text = config.get("text_config", config)
    tensors, experts = {}, {}
    for name, tensor in read_safetensors(folder / "model.safetensors").items():
        values = tensor.floats()
        name = name.removeprefix("model.").removeprefix("language_model.")
        if name.startswith(("visual.", "mtp.")):
            continue
        if name == "lm_head.weight":
            tensors["output.weight"] = values
            continue
        if name.endswith("norm.weight") and "linear_attn" not in name:
            values = values + np.float32(1)
        if name in TOP_NAMES:
            tensors[TOP_NAMES[name]] = values
            continue
        _, layer, rest = name.split(".", 2)
        block = f"blk.{layer}."
        if config["model_type"] != "qwen3_next":
            values = rearranged(name, values, text)
        if rest.endswith("A_log"):
            values = -np.exp(values)
        if "conv1d" in rest:
            values = values.squeeze(1)
        if rest == "mlp.experts.gate_up_proj":
            if fuse_experts:
                tensors[f"{block}ffn_gate_up_exps.weight"] = values
            else:
                gate, up = np.split(values, 2, axis=1)
                tensors[f"{block}ffn_gate_exps.weight"] = gate
                tensors[f"{block}ffn_up_exps.weight"] = up
        elif "mlp.experts." in rest and rest.endswith(".weight"):
            expert, matrix = rest.split(".")[2:4]
            part = matrix.removesuffix("_proj")
            experts.setdefault(f"{block}ffn_{part}_exps.weight", {})[int(expert)] = values
        elif "in_proj_qkvz" in rest:
            qkv, z = separated(values, text)
            tensors[f"{block}attn_qkv.weight"] = qkv
            tensors[f"{block}attn_gate.weight"] = z
        else:
            tensors[block + NAMES[rest]] = values
    for key, members in experts.items():
        tensors[key] = np.stack([members[e] for e in sorted(members)])
    return tensors


def add_metadata(writer, config):
    text = config.get("text_config", config)
    rope = text.get("rope_parameters", text)
    layout.add_dims(writer, dict(text, rope_theta=rope["rope_theta"],
                                 intermediate_size=text.get("intermediate_size", 0)))
    if "intermediate_size" not in text:
        del writer.kv_data[0][f"{writer.arch}.feed_forward_length"]
    dim = text["head_dim"]
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_rope_dimension_count(int(dim * rope["partial_rotary_factor"]))
    if config["model_type"] != "qwen3_next":
        writer.add_rope_dimension_sections([*rope["mrope_section"], 0])
    writer.add_ssm_conv_kernel(text["linear_conv_kernel_dim"])
    writer.add_ssm_state_size(text["linear_key_head_dim"])
    writer.add_ssm_group_count(text["linear_num_key_heads"])
    writer.add_ssm_time_step_rank(text["linear_num_value_heads"])
    writer.add_ssm_inner_size(text["linear_num_value_heads"] * text["linear_value_head_dim"])
    writer.add_full_attention_interval(text["full_attention_interval"])
    if "num_experts" in text:
        writer.add_expert_count(text["num_experts"])
        writer.add_expert_used_count(text["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(text["moe_intermediate_size"])
        writer.add_expert_shared_feed_forward_length(text["shared_expert_intermediate_size"])


def write_gguf(path, folder, blocks=None, predicting=False, fuse_experts=False,
               change=None):
    """F32 but for `blocks`: a function of name and values that gives (type number, bytes of the rows),
    or nothing. predicting: with a block behind the layers that is left out. change: does something to
    the writer's metadata."""
    import gguf

    config = read_json(folder / "config.json")
    text = config.get("text_config", config)
    writer = gguf.GGUFWriter(str(path), ARCHITECTURES[config["model_type"]])
    add_metadata(writer, config)
    vocabulary = read_json(folder / "tokenizer.json")["model"]["vocab"]
    ids = config if "bos_token_id" in config else text
    layout.add_tokenizer(writer, ids, [*sorted(vocabulary, key=vocabulary.get), "ab"],
                         [1] * (len(vocabulary) - 2) + [3, 3, 1], "qwen2")
    tensors = gguf_tensors(folder, config, fuse_experts)
    if predicting:
        layers = text["num_hidden_layers"]
        writer.add_block_count(layers + 1)
        writer.add_nextn_predict_layers(1)
        tensors[f"blk.{layers}.nextn.eh_proj.weight"] = np.ones((128, 256), np.float32)
        tensors[f"blk.{layers}.attn_norm.weight"] = np.ones(128, np.float32)
    if change:
        change(writer)
    for name, values in tensors.items():
        values = np.ascontiguousarray(values, np.float32)
        stored = blocks(name, values) if blocks else None
        if stored:
            kind, rows = stored
            writer.add_tensor(name, rows, raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
