"""Writing GGUF models with the gguf package, from checkpoints of tools/make_checkpoint.py: names,
stacked experts and permuted rows as llama.cpp's converter has them."""

import numpy as np
from support import load_tool, read_json, read_safetensors

layout = load_tool("gguf_layout")

ARCHITECTURES = {"llama": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen3": "qwen3",
                 "qwen3_moe": "qwen3moe", "qwen2_moe": "qwen2moe", "olmoe": "olmoe",
                 "glm4_moe": "glm4moe", "granite": "granite", "granitemoe": "granitemoe",
                 "gpt_oss": "gpt-oss", "gemma3_text": "gemma3",
                 "deepseek_v3": "deepseek2"}
INTERLEAVED = ("llama", "granite", "granitemoe")
MIXTRAL_NAMES = {"w1": "ffn_gate", "w2": "ffn_down", "w3": "ffn_up"}


# Beside those that all have.
NAMES = {
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp", "mlp.router": "ffn_gate_inp",
    "block_sparse_moe.router.layer": "ffn_gate_inp",
    "block_sparse_moe.output_linear": "ffn_down_exps", "self_attn.sinks": "attn_sinks",
    "mlp.gate.e_score_correction": "exp_probs_b", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm", "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_b_proj": "attn_q_b", "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    **{f"mlp.{owner}.{part}_proj": f"ffn_{part}_shexp" for part in ("gate", "up", "down")
       for owner in ("shared_expert", "shared_experts")},
}


def gguf_name(name, family):
    if name in layout.TOP_NAMES:
        return layout.TOP_NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    path, _, parameter = rest.rpartition(".")
    if path == "post_attention_layernorm" and family in ("glm4_moe", "gpt_oss", "gemma3_text"):
        return f"blk.{layer}.post_attention_norm.{parameter}"
    if path in NAMES:
        return f"blk.{layer}.{NAMES[path]}.{parameter}"
    return layout.gguf_name(name)


def add_other_metadata(writer, config):
    """What the families have that came after Qwen3."""
    family = config["model_type"]
    if family == "qwen2_moe":
        writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
    if family == "deepseek_v3":
        import gguf

        rope, rank = config["qk_rope_head_dim"], config["kv_lora_rank"]
        writer.add_head_count_kv(1)
        if config["q_lora_rank"]:
            writer.add_q_lora_rank(config["q_lora_rank"])
        writer.add_kv_lora_rank(rank)
        writer.add_key_length(rank + rope)
        writer.add_value_length(rank)
        writer.add_key_length_mla(config["qk_nope_head_dim"] + rope)
        writer.add_value_length_mla(config["v_head_dim"])
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        writer.add_expert_group_count(config["n_group"])
        writer.add_expert_group_used_count(config["topk_group"])
        scaling = config["rope_scaling"]
        if scaling:
            writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
            writer.add_rope_scaling_factor(scaling["factor"])
            writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
            writer.add_rope_scaling_yarn_log_mul(0.1 * scaling["mscale_all_dim"])
    if family in ("glm4_moe", "deepseek_v3"):
        writer.add_expert_count(config["n_routed_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
        writer.add_expert_shared_count(config["n_shared_experts"])
        writer.add_leading_dense_block_count(config["first_k_dense_replace"])
        writer.add_expert_weights_scale(config["routed_scaling_factor"])
        writer.add_expert_weights_norm(config["norm_topk_prob"])
        writer.add_rope_dimension_count(
            rope if family == "deepseek_v3" else
            int(config["head_dim"] * config["partial_rotary_factor"]))
    if family.startswith("granite"):
        writer.add_attention_scale(config["attention_multiplier"])
        writer.add_embedding_scale(config["embedding_multiplier"])
        writer.add_residual_scale(config["residual_multiplier"])
        writer.add_logit_scale(config["logits_scaling"])
    if family in ("gpt_oss", "gemma3_text"):
        writer.add_sliding_window(config["sliding_window"])
    if family == "gpt_oss":
        import gguf

        writer.add_expert_feed_forward_length(config["intermediate_size"])
        scaling = config["rope_scaling"]
        if scaling:
            writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
            writer.add_rope_scaling_factor(scaling["factor"])
            writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])


def gguf_tensors(folder, config):
    """name → float32 array, experts stacked, q and k of llama permuted."""
    tensors, experts = {}, {}
    for name, tensor in read_safetensors(folder / "model.safetensors").items():
        values = tensor.floats()
        if name.startswith("model.layers.") and \
                int(name.split(".")[2]) >= config["num_hidden_layers"]:
            continue  # multi-token prediction
        if config["model_type"] == "gemma3_text" and name.endswith("norm.weight"):
            values = values + np.float32(1)
        name = name.replace("self_attn.sinks", "self_attn.sinks.weight")
        name = name.replace("e_score_correction_bias", "e_score_correction.bias")
        if "mlp.experts.gate_up_proj" in name or "mlp.experts.down_proj" in name:  # gpt-oss
            block = f"blk.{name.split('.')[2]}."
            bias = name.endswith("_bias")
            if not bias:
                values = values.swapaxes(1, 2)
            end = "bias" if bias else "weight"
            if "down_proj" in name:
                tensors[f"{block}ffn_down_exps.{end}"] = values
            else:
                tensors[f"{block}ffn_gate_exps.{end}"] = values[:, ::2]
                tensors[f"{block}ffn_up_exps.{end}"] = values[:, 1::2]
            continue
        if "kv_b_proj" in name:  # each head's keys are turned
            block = f"blk.{name.split('.')[2]}."
            heads = values.reshape(config["num_attention_heads"], -1, values.shape[1])
            keys = config["qk_nope_head_dim"]
            tensors[f"{block}attn_k_b.weight"] = heads[:, :keys].swapaxes(1, 2)
            tensors[f"{block}attn_v_b.weight"] = heads[:, keys:]
            continue
        if "input_linear" in name:
            block = f"blk.{name.split('.')[2]}."
            gate, up = np.split(values, 2, axis=1)
            tensors[f"{block}ffn_gate_exps.weight"] = gate
            tensors[f"{block}ffn_up_exps.weight"] = up
            continue
        if ".experts." in name:
            _, _, layer, _, _, expert, matrix, parameter = name.split(".")
            part = MIXTRAL_NAMES.get(matrix) or layout.NAMES["mlp." + matrix]
            key = f"blk.{layer}.{part}_exps.{parameter}"
            experts.setdefault(key, {})[int(expert)] = values
            continue
        projection = name.split(".")[-2]
        if ARCHITECTURES[config["model_type"]] in INTERLEAVED and projection in ("q_proj", "k_proj"):
            heads = "num_attention_heads" if projection == "q_proj" else "num_key_value_heads"
            values = layout.interleaved(values, config[heads])
        tensors[gguf_name(name, config["model_type"])] = values
    for key, members in experts.items():
        tensors[key] = np.stack([members[e] for e in sorted(members)])
    return tensors


def write_gguf(path, folder, blocks=None, pre="qwen2", split_max_tensors=0):
    """The checkpoint in `folder` as GGUF, F32 but for `blocks`: GGUF name → (type number, bytes of
    the rows), or a function of name and values that gives these or nothing. With split_max_tensors, a set of files beside path, each with at most so many."""
    import gguf

    config = read_json(folder / "config.json")
    writer = gguf.GGUFWriter(str(path), ARCHITECTURES[config["model_type"]],
                             split_max_tensors=split_max_tensors)
    layout.add_dims(writer, config)
    if "head_dim" in config:
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    add_other_metadata(writer, config)
    if "num_experts" in config:
        writer.add_expert_count(config["num_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
        if "moe_intermediate_size" in config:
            writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if "num_local_experts" in config:
        writer.add_expert_count(config["num_local_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
    vocabulary = read_json(folder / "tokenizer.json")["model"]["vocab"]
    layout.add_tokenizer(writer, config, [*sorted(vocabulary, key=vocabulary.get), "ab"],
                         [1] * (len(vocabulary) - 2) + [3, 3, 1], pre)
    for name, values in gguf_tensors(folder, config).items():
        stored = blocks(name, values) if callable(blocks) else (blocks or {}).get(name)
        if stored:
            kind, rows = stored
            writer.add_tensor(name, rows, raw_dtype=kind)
        else:
            writer.add_tensor(name, np.ascontiguousarray(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
