#!/usr/bin/env python3
"""Makes seeded random checkpoints in the layout transformers writes, for tests and measurements.

Any size: large tensors are cut from a pool of random numbers, so that writing runs at disk speed
and memory stays small. Also a module: `make_checkpoint(folder, family=..., ...)`.

    tools/make_checkpoint.py OUT --family qwen3_moe --dtype bf16 --shards 2 --seed 1
    tools/make_checkpoint.py OUT --family llama --bytes 4GB
    tools/make_checkpoint.py OUT --family deepseek_v3 --dtype fp8
"""

import argparse
import json
import math
import re
import struct
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from checkpoint_families import LAYOUTS, layer_tensors, seeing_tensors  # noqa: E402

FAMILIES = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "deepseek_v2",
            "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa", "kimi_k2",
            "kimi_k25", "qwen3_next", "qwen3_5", "qwen3_5_moe",
            "gpt_oss", "gemma3_text", "gemma3", "gemma4", "llama4", "nemotron_h",
            *LAYOUTS)
CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "deepseek_v32": "DeepseekV32ForCausalLM",
    "glm4_moe_lite": "Glm4MoeLiteForCausalLM",
    "glm_moe_dsa": "GlmMoeDsaForCausalLM",
    "kimi_k2": "DeepseekV3ForCausalLM",
    "kimi_k25": "KimiK25ForConditionalGeneration",
    "qwen3_next": "Qwen3NextForCausalLM",
    "qwen3_5": "Qwen3_5ForConditionalGeneration",
    "qwen3_5_moe": "Qwen3_5MoeForConditionalGeneration",
    "gpt_oss": "GptOssForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "gemma3": "Gemma3ForConditionalGeneration",
    "gemma4": "Gemma4ForConditionalGeneration",
    "llama4": "Llama4ForConditionalGeneration",
    **{family: layout.architecture for family, layout in LAYOUTS.items()},
    "nemotron_h": "NemotronHForCausalLM",
}
# Latent attention; of these, with an indexer, and with a layer for several tokens by default.
DEEPSEEK = ("deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa", "kimi_k2",
            "kimi_k25")
INDEXED = ("deepseek_v32", "glm_moe_dsa")
PREDICTING = ("deepseek_v32", "glm4_moe_lite", "glm_moe_dsa")
HYBRIDS = ("qwen3_next", "qwen3_5", "qwen3_5_moe")  # linear attention beside gated attention
# Their numbers are in text_config, and their language model is one part of several.
NESTED = ("qwen3_5", "qwen3_5_moe")
GEMMA = ("gemma3_text", "gemma3")
# Of LAYOUTS, those that also see, and what their text_config is called.
SEEING = {family: layout.text_type for family, layout in LAYOUTS.items() if layout.text_type}
DTYPES = {
    "bf16": ("BF16", "bfloat16", 2),
    "f16": ("F16", "float16", 2),
    "f32": ("F32", "float32", 4),
    # Linears of layers as 8-bit floats with a scale per block of 128 by 128; others as bf16.
    "fp8": ("F8_E4M3", "bfloat16", 1),
    # Experts as blocks of 4-bit floats with an exponent each, as gpt-oss is published; others bf16.
    "mxfp4": ("U8", "bfloat16", 1),
}
MXFP4_BLOCK = 32
FP8_BLOCK = 128
FP8_NAME = re.compile(r"(proj|with_mqa|\.w[123])\.weight$")
POOL_ELEMENTS = 16 * 1024 * 1024
WRITE_ELEMENTS = 4 * 1024 * 1024
# Models above this many elements take their matrices from the pool; others are drawn afresh.
FRESH_ELEMENTS = 32 * 1024 * 1024
SHARD_BYTES = 5_000_000_000

# Every width divides by 128, so that every format applies.
TINY = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, vocab_size=320)


def make_config(family, dtype="bf16", tied=False, **dims):
    """A config.json; dims are its own keys, over tiny defaults."""
    config = dict(TINY)
    config.update(
        architectures=[CLASSES[family]],
        model_type=family,
        attention_dropout=0.0,
        bos_token_id=256,
        eos_token_id=257,
        hidden_act="silu",
        initializer_range=0.02,
        max_position_embeddings=512,
        rms_norm_eps=1e-5 if family in ("llama", "mistral", "mixtral") else 1e-6,
        rope_scaling=None,
        rope_theta=10000.0,
        tie_word_embeddings=tied,
        torch_dtype=DTYPES[dtype][1],
        transformers_version="4.51.0",
        use_cache=True,
    )
    if family == "llama":
        config.update(attention_bias=False, mlp_bias=False)
    if family in ("mistral", "mixtral"):
        config.update(sliding_window=None)
    if family == "mixtral":
        config.update(num_local_experts=4, num_experts_per_tok=2, output_router_logits=False,
                      router_aux_loss_coef=0.02)
    if family == "qwen2":
        config.update(use_sliding_window=False, sliding_window=None)
    if family.startswith("qwen3"):
        config.update(attention_bias=False, head_dim=64)
    if family == "qwen3_moe":
        config.update(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=128,
                      decoder_sparse_step=1, mlp_only_layers=[], norm_topk_prob=True,
                      output_router_logits=False, router_aux_loss_coef=0.001)
    if family in DEEPSEEK:
        config.update(attention_bias=False, q_lora_rank=128, kv_lora_rank=128, qk_nope_head_dim=128,
                      qk_rope_head_dim=32, v_head_dim=128, n_routed_experts=4, n_shared_experts=1,
                      num_experts_per_tok=2, moe_intermediate_size=128, first_k_dense_replace=1,
                      moe_layer_freq=1, n_group=1, topk_group=1, norm_topk_prob=True,
                      routed_scaling_factor=2.5, scoring_func="sigmoid", topk_method="noaux_tc",
                      num_key_value_heads=config["num_attention_heads"],
                      num_nextn_predict_layers=int(family in PREDICTING), qk_head_dim=160)
    if family == "deepseek_v2":  # which mlx_lm loads with yarn scaling only
        config.update(topk_method="greedy", scoring_func="softmax", norm_topk_prob=False,
                      routed_scaling_factor=1.0,
                      rope_scaling=dict(type="yarn", factor=4.0, mscale=0.707, mscale_all_dim=0.707,
                                        beta_fast=32, beta_slow=1,
                                        original_max_position_embeddings=32))
    if family in INDEXED:
        config.update(index_head_dim=64, index_n_heads=4, index_topk=24)
    if family == "glm_moe_dsa":
        config.update(indexer_rope_interleave=True,
                      rope_parameters=dict(rope_theta=10000.0, rope_type="default"))
        del config["rope_theta"], config["rope_scaling"]
    if family in ("glm4_moe_lite", "glm_moe_dsa"):
        config.update(rms_norm_eps=1e-5)
    if family in HYBRIDS:
        config.update(num_hidden_layers=4, full_attention_interval=4, linear_num_key_heads=2,
                      linear_num_value_heads=4, linear_key_head_dim=64, linear_value_head_dim=32,
                      linear_conv_kernel_dim=4, rope_theta=10000000.0, partial_rotary_factor=0.25)
    if family == "nemotron_h":
        config.update(hybrid_override_pattern="ME*-", num_hidden_layers=4, head_dim=64,
                      attention_bias=False, mlp_bias=False, use_bias=False, use_conv_bias=True,
                      mamba_proj_bias=False, mamba_num_heads=4, mamba_head_dim=32, n_groups=2,
                      ssm_state_size=32, conv_kernel=4, layer_norm_epsilon=1e-5,
                      mlp_hidden_act="relu2", n_routed_experts=4, n_shared_experts=1,
                      num_experts_per_tok=2, moe_intermediate_size=128,
                      moe_shared_expert_intermediate_size=256, n_group=1, topk_group=1,
                      norm_topk_prob=True, routed_scaling_factor=2.5, time_step_min=0.001,
                      time_step_max=0.1)
    if family in ("qwen3_next", "qwen3_5_moe"):
        config.update(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=128,
                      shared_expert_intermediate_size=128, decoder_sparse_step=1,
                      mlp_only_layers=[], norm_topk_prob=True)
    if family == "gpt_oss":
        config.update(attention_bias=True, head_dim=64, intermediate_size=128, num_local_experts=4,
                      num_experts_per_tok=2, experts_per_token=2, sliding_window=16,
                      rms_norm_eps=1e-5, rope_theta=150000, swiglu_limit=7.0,
                      rope_scaling=dict(beta_fast=32.0, beta_slow=1.0, factor=32.0,
                                        original_max_position_embeddings=4096, rope_type="yarn",
                                        truncate=False))
    if family in GEMMA:
        for key in ("hidden_act", "tie_word_embeddings"):
            del config[key]
        config.update(num_hidden_layers=3, head_dim=64, hidden_activation="gelu_pytorch_tanh",
                      query_pre_attn_scalar=48, sliding_window=16, sliding_window_pattern=2,
                      rope_theta=1000000.0, rope_local_base_freq=10000.0, rms_norm_eps=1e-6,
                      attn_logit_softcapping=None, final_logit_softcapping=None)
        config["tied"] = tied
    if family == "gemma4":
        config.update(num_hidden_layers=3, head_dim=32, global_head_dim=64,
                      num_global_key_value_heads=1, attention_k_eq_v=True, enable_moe_block=True,
                      num_experts=4, top_k_experts=2, moe_intermediate_size=128,
                      num_kv_shared_layers=0, hidden_size_per_layer_input=0,
                      vocab_size_per_layer_input=320, use_double_wide_mlp=False,
                      hidden_activation="gelu_pytorch_tanh", final_logit_softcapping=30.0,
                      sliding_window=16, tie_word_embeddings=True,
                      layer_types=["sliding_attention", "full_attention", "sliding_attention"])
        del config["hidden_act"]
    if family == "llama4":
        config.update(num_hidden_layers=5, head_dim=64, intermediate_size=128,
                      intermediate_size_mlp=256, interleave_moe_layer_step=1, num_local_experts=4,
                      num_experts_per_tok=1, attention_bias=False, attention_chunk_size=16,
                      use_qk_norm=True, rms_norm_eps=1e-5, rope_theta=500000.0, floor_scale=8,
                      attn_scale=0.1, attn_temperature_tuning=True, output_router_logits=False,
                      rope_scaling=dict(factor=8.0, high_freq_factor=4.0, low_freq_factor=1.0,
                                        original_max_position_embeddings=32, rope_type="llama3"))
    if dtype == "mxfp4":
        config.update(quantization_config=dict(
            modules_to_not_convert=["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                    "model.embed_tokens", "lm_head"], quant_method="mxfp4"))
    if family in LAYOUTS:
        config.update(LAYOUTS[family].keys)
    if dtype == "fp8":
        config.update(quantization_config=dict(activation_scheme="dynamic", fmt="e4m3",
                                               quant_method="fp8",
                                               weight_block_size=[FP8_BLOCK, FP8_BLOCK]))
    config.update(dims)
    if family == "gpt_oss" and "layer_types" not in config:
        config["layer_types"] = [("sliding_attention", "full_attention")[layer % 2]
                                 for layer in range(config["num_hidden_layers"])]
    if family == "kimi_k25":
        return kimi_of_several_parts(config)
    if family in ("gemma3", "gemma4", "llama4") or family in SEEING:
        return beside_vision(config)
    return nested(config) if family in NESTED else config


def kimi_of_several_parts(config):
    """Kimi K2 as the language model of a model that sees."""
    text = dict(config, architectures=["DeepseekV3ForCausalLM"], model_type="kimi_k2")
    return dict(architectures=config["architectures"], model_type="kimi_k25", text_config=text,
                bos_token_id=config["bos_token_id"], eos_token_id=config["eos_token_id"],
                dtype=config["torch_dtype"], tie_word_embeddings=config["tie_word_embeddings"],
                vision_config=dict(hidden_size=64, model_type="moonvit"))


def nested(config):
    """The same as transformers writes it for a model that also sees."""
    text = {k: v for k, v in config.items()
            if k not in ("architectures", "rope_theta", "rope_scaling", "torch_dtype",
                         "partial_rotary_factor", "transformers_version")}
    if text["model_type"] == "qwen3_5_moe":
        for key in ("decoder_sparse_step", "intermediate_size", "norm_topk_prob"):
            del text[key]
    text["model_type"] += "_text"
    text["dtype"] = config["torch_dtype"]
    text["layer_types"] = ["full_attention" if (n + 1) % text["full_attention_interval"] == 0
                           else "linear_attention" for n in range(text["num_hidden_layers"])]
    text["rope_parameters"] = dict(rope_type="default", rope_theta=config["rope_theta"],
                                   partial_rotary_factor=config["partial_rotary_factor"],
                                   mrope_interleaved=True, mrope_section=[3, 3, 2])
    return dict(architectures=config["architectures"], model_type=config["model_type"],
                text_config=text, tie_word_embeddings=config["tie_word_embeddings"],
                transformers_version="5.7.0", image_token_id=300,
                vision_config=dict(depth=1, hidden_size=64, model_type=config["model_type"]))


def beside_vision(config):
    """The same with its numbers in text_config, as transformers 4 writes it."""
    text = {k: v for k, v in config.items()
            if k not in ("architectures", "bos_token_id", "eos_token_id", "torch_dtype", "tied",
                         "transformers_version")}
    text["model_type"] = SEEING.get(config["model_type"], f"{config['model_type']}_text")
    whole = {k: config[k] for k in config if k not in text}
    whole.update(model_type=config["model_type"], text_config=text,
                 vision_config=dict(hidden_size=64, model_type=f"{config['model_type']}_vision"))
    if config["model_type"] in ("gemma3", "gemma4"):
        whole["vocab_size"] = config["vocab_size"]
    return whole


def text_of(config):
    """Where the language model's numbers are."""
    return config.get("text_config", config)


def is_sparse(config, layer):
    if config["model_type"] == "qwen3_5_moe_text":
        return config["num_experts"] > 0
    if config["model_type"] in DEEPSEEK:
        return (layer >= config["first_k_dense_replace"]
                and layer % config["moe_layer_freq"] == 0)
    return (config.get("num_experts", 0) > 0 and layer not in config["mlp_only_layers"]
            and (layer + 1) % config["decoder_sparse_step"] == 0)


def latent_attention(config, prefix):
    """DeepSeek's attention: q, k and v by way of low ranks."""
    h, heads = config["hidden_size"], config["num_attention_heads"]
    nope, rope, v = (config[k] for k in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    q_rank, kv_rank = config["q_lora_rank"], config["kv_lora_rank"]
    q = heads * (nope + rope)
    tensors = [("q_proj.weight", (q, h))]
    if q_rank:
        tensors = [("q_a_proj.weight", (q_rank, h)), ("q_a_layernorm.weight", (q_rank,)),
                   ("q_b_proj.weight", (q, q_rank))]
    tensors += [("kv_a_proj_with_mqa.weight", (kv_rank + rope, h)),
                ("kv_a_layernorm.weight", (kv_rank,)),
                ("kv_b_proj.weight", (heads * (nope + v), kv_rank)),
                ("o_proj.weight", (h, heads * v))]
    if config["attention_bias"]:
        tensors += [("kv_a_proj_with_mqa.bias", (kv_rank + rope,)), ("o_proj.bias", (h,))]
        tensors += [("q_a_proj.bias", (q_rank,))] if q_rank else []
    if config["model_type"] in INDEXED:
        width, count = config["index_head_dim"], config["index_n_heads"]
        tensors += [("indexer.wq_b.weight", (count * width, q_rank)),
                    ("indexer.wk.weight", (width, h)), ("indexer.k_norm.weight", (width,)),
                    ("indexer.k_norm.bias", (width,)),
                    ("indexer.weights_proj.weight", (count, h))]
    return [(f"{prefix}self_attn.{name}", shape) for name, shape in tensors]


def deepseek_experts(config, prefix):
    h, m, experts = (config[k] for k in ("hidden_size", "moe_intermediate_size",
                                         "n_routed_experts"))
    tensors = [("gate.weight", (experts, h))]
    if config["model_type"] != "deepseek_v2":
        tensors.append(("gate.e_score_correction_bias", (experts,)))
    owners = [(f"experts.{expert}", m) for expert in range(experts)]
    if config["n_shared_experts"]:
        owners.append(("shared_experts", m * config["n_shared_experts"]))
    for owner, width in owners:
        tensors += [(f"{owner}.gate_proj.weight", (width, h)),
                    (f"{owner}.up_proj.weight", (width, h)),
                    (f"{owner}.down_proj.weight", (h, width))]
    return [(f"{prefix}mlp.{name}", shape) for name, shape in tensors]


def linear_attention(config, fused):
    """Qwen's Gated DeltaNet; fused as Qwen3-Next has its projections."""
    h = config["hidden_size"]
    value_heads = config["linear_num_value_heads"]
    keys = config["linear_num_key_heads"] * config["linear_key_head_dim"]
    values = value_heads * config["linear_value_head_dim"]
    tensors = [("conv1d.weight", (2 * keys + values, 1, config["linear_conv_kernel_dim"])),
               ("dt_bias", (value_heads,)), ("A_log", (value_heads,)),
               ("norm.weight", (config["linear_value_head_dim"],)),
               ("out_proj.weight", (h, values))]
    if fused:
        return tensors + [("in_proj_qkvz.weight", (2 * keys + 2 * values, h)),
                          ("in_proj_ba.weight", (2 * value_heads, h))]
    return tensors + [("in_proj_qkv.weight", (2 * keys + values, h)),
                      ("in_proj_z.weight", (values, h)),
                      ("in_proj_b.weight", (value_heads, h)),
                      ("in_proj_a.weight", (value_heads, h))]


def hybrid_tensors(config):
    """The hybrids of linear and gated attention, each in its own layout."""
    text, fused = text_of(config), config["model_type"] == "qwen3_next"
    h, i, v = (text.get(k) for k in ("hidden_size", "intermediate_size", "vocab_size"))
    q = text["num_attention_heads"] * text["head_dim"]
    kv = text["num_key_value_heads"] * text["head_dim"]
    root = "model." if fused else "model.language_model."
    tensors = [(f"{root}embed_tokens.weight", (v, h))]

    def attention_layer():
        attention = [("q_proj", (2 * q, h)), ("k_proj", (kv, h)), ("v_proj", (kv, h)),
                     ("o_proj", (h, q))]
        layer = [(f"self_attn.{name}.weight", shape) for name, shape in attention]
        if text["attention_bias"]:
            layer += [(f"self_attn.{name}.bias", shape[:1]) for name, shape in attention]
        return layer + [("self_attn.q_norm.weight", (text["head_dim"],)),
                        ("self_attn.k_norm.weight", (text["head_dim"],))]

    def mlp(owner, width):
        return [(f"{owner}.gate_proj.weight", (width, h)), (f"{owner}.up_proj.weight", (width, h)),
                (f"{owner}.down_proj.weight", (h, width))]

    def feed_forward(layer):
        if not is_sparse(text, layer):
            return mlp("mlp", i)
        experts, m = text["num_experts"], text["moe_intermediate_size"]
        tensors = [("mlp.gate.weight", (experts, h)), ("mlp.shared_expert_gate.weight", (1, h))]
        tensors += mlp("mlp.shared_expert", text["shared_expert_intermediate_size"])
        if fused:
            for expert in range(experts):
                tensors += mlp(f"mlp.experts.{expert}", m)
            return tensors
        return tensors + [("mlp.experts.gate_up_proj", (experts, 2 * m, h)),
                          ("mlp.experts.down_proj", (experts, h, m))]

    for layer in range(text["num_hidden_layers"]):
        attends = (layer + 1) % text["full_attention_interval"] == 0
        members = attention_layer() if attends else [
            (f"linear_attn.{name}", shape) for name, shape in linear_attention(text, fused)]
        members += feed_forward(layer)
        members += [("input_layernorm.weight", (h,)), ("post_attention_layernorm.weight", (h,))]
        tensors += [(f"{root}layers.{layer}.{name}", shape) for name, shape in members]
    tensors.append((f"{root}norm.weight", (h,)))
    if not config["tie_word_embeddings"]:
        tensors.append(("lm_head.weight", (v, h)))
    # Parts that are left out.
    tensors += [("mtp.fc.weight", (h, 2 * h)), ("mtp.norm.weight", (h,)),
                ("mtp.layers.0.self_attn.q_proj.weight", (2 * q, h))]
    if not fused:
        tensors += [("model.visual.patch_embed.proj.weight", (64, 3, 2, 4, 4)),
                    ("model.visual.blocks.0.attn.qkv.weight", (192, 64)),
                    ("model.visual.merger.norm.weight", (64,))]
    return tensors
def gemma3_tensors(config):
    text = text_of(config)
    h, i, d = (text[k] for k in ("hidden_size", "intermediate_size", "head_dim"))
    q, kv = text["num_attention_heads"] * d, text["num_key_value_heads"] * d
    root = "" if text is config else "language_model."
    tensors = [("model.embed_tokens.weight", (text["vocab_size"], h))]
    for layer in range(text["num_hidden_layers"]):
        members = [("self_attn.q_proj", (q, h)), ("self_attn.k_proj", (kv, h)),
                   ("self_attn.v_proj", (kv, h)), ("self_attn.o_proj", (h, q)),
                   ("self_attn.q_norm", (d,)), ("self_attn.k_norm", (d,)),
                   ("mlp.gate_proj", (i, h)), ("mlp.down_proj", (h, i)), ("mlp.up_proj", (i, h)),
                   ("input_layernorm", (h,)), ("post_attention_layernorm", (h,)),
                   ("pre_feedforward_layernorm", (h,)), ("post_feedforward_layernorm", (h,))]
        tensors += [(f"model.layers.{layer}.{name}.weight", shape) for name, shape in members]
    tensors.append(("model.norm.weight", (h,)))
    if not config["tied"]:
        tensors.append(("lm_head.weight", (text["vocab_size"], h)))
    tensors = [(root + name, shape) for name, shape in tensors]
    if root:
        tensors += [("vision_tower.vision_model.embeddings.patch_embedding.weight", (64, 3, 4, 4)),
                    ("vision_tower.vision_model.post_layernorm.bias", (64,)),
                    ("multi_modal_projector.mm_input_projection_weight", (64, h))]
    return tensors


def gemma4_tensors(config):
    text = text_of(config)
    h, layers, inputs = (text[k] for k in ("hidden_size", "num_hidden_layers",
                                           "hidden_size_per_layer_input"))
    borrowing = layers - text["num_kv_shared_layers"]
    tensors = [("embed_tokens", (text["vocab_size"], h)), ("norm", (h,))]
    if inputs:
        tensors += [("embed_tokens_per_layer", (text["vocab_size_per_layer_input"], layers * inputs)),
                    ("per_layer_model_projection", (layers * inputs, h)),
                    ("per_layer_projection_norm", (inputs,))]
    for layer in range(layers):
        whole = text["layer_types"][layer] == "full_attention"
        d = text["global_head_dim" if whole else "head_dim"]
        same = text["attention_k_eq_v"] and whole
        kv = d * text["num_global_key_value_heads" if same else "num_key_value_heads"]
        q = d * text["num_attention_heads"]
        wide = text["use_double_wide_mlp"] and layer >= borrowing
        i = text["intermediate_size"] * (2 if wide else 1)
        members = [("self_attn.q_proj", (q, h)), ("self_attn.k_proj", (kv, h)),
                   ("self_attn.o_proj", (h, q)), ("self_attn.q_norm", (d,)),
                   ("self_attn.k_norm", (d,)), ("mlp.gate_proj", (i, h)), ("mlp.down_proj", (h, i)),
                   ("mlp.up_proj", (i, h)), ("input_layernorm", (h,)),
                   ("post_attention_layernorm", (h,)), ("pre_feedforward_layernorm", (h,)),
                   ("post_feedforward_layernorm", (h,))]
        if not same:
            members.append(("self_attn.v_proj", (kv, h)))
        if inputs:
            members += [("per_layer_input_gate", (inputs, h)), ("per_layer_projection", (h, inputs)),
                        ("post_per_layer_input_norm", (h,))]
        if text["enable_moe_block"]:
            members += [("router.proj", (text["num_experts"], h)),
                        ("post_feedforward_layernorm_1", (h,)),
                        ("post_feedforward_layernorm_2", (h,)),
                        ("pre_feedforward_layernorm_2", (h,))]
        tensors += [(f"layers.{layer}.{name}", shape) for name, shape in members]
    tensors = [(f"{name}.weight", shape) for name, shape in tensors]
    for layer in range(layers):
        members = [("layer_scalar", (1,))]
        if text["enable_moe_block"]:
            experts, m = text["num_experts"], text["moe_intermediate_size"]
            members += [("router.scale", (h,)), ("router.per_expert_scale", (experts,)),
                        ("experts.gate_up_proj", (experts, 2 * m, h)),
                        ("experts.down_proj", (experts, h, m))]
        tensors += [(f"layers.{layer}.{name}", shape) for name, shape in members]
    tensors = [(f"model.language_model.{name}", shape) for name, shape in tensors]
    return tensors + [("model.vision_tower.patch_embedder.input_proj.weight", (64, 48)),
                      ("model.embed_vision.embedding_projection.weight", (h, 64)),
                      ("model.audio_tower.output_proj.weight", (64, 64))]


def llama4_tensors(config):
    text = text_of(config)
    h, i, d = (text[k] for k in ("hidden_size", "intermediate_size", "head_dim"))
    q, kv = text["num_attention_heads"] * d, text["num_key_value_heads"] * d
    experts, dense = text["num_local_experts"], text["intermediate_size_mlp"]
    tensors = [("model.embed_tokens.weight", (text["vocab_size"], h))]

    def mlp(owner, width):
        return [(f"{owner}.gate_proj.weight", (width, h)), (f"{owner}.up_proj.weight", (width, h)),
                (f"{owner}.down_proj.weight", (h, width))]

    for layer in range(text["num_hidden_layers"]):
        members = []
        for name, shape in (("q", (q, h)), ("k", (kv, h)), ("v", (kv, h)), ("o", (h, q))):
            members.append((f"self_attn.{name}_proj.weight", shape))
            if text["attention_bias"]:
                members.append((f"self_attn.{name}_proj.bias", shape[:1]))
        if (layer + 1) % text["interleave_moe_layer_step"] == 0:
            members += [("feed_forward.experts.gate_up_proj", (experts, h, 2 * i)),
                        ("feed_forward.experts.down_proj", (experts, i, h)),
                        ("feed_forward.router.weight", (experts, h))]
            members += mlp("feed_forward.shared_expert", i)
        else:
            members += mlp("feed_forward", dense)
        members += [("input_layernorm.weight", (h,)), ("post_attention_layernorm.weight", (h,))]
        tensors += [(f"model.layers.{layer}.{name}", shape) for name, shape in members]
    tensors += [("model.norm.weight", (h,)), ("lm_head.weight", (text["vocab_size"], h))]
    tensors = [(f"language_model.{name}", shape) for name, shape in tensors]
    return tensors + [("vision_model.class_embedding", (64,)),
                      ("vision_model.patch_embedding.linear.weight", (64, 48)),
                      ("multi_modal_projector.linear_1.weight", (h, 64))]


def gpt_oss_experts(config, prefix):
    """Fused and [in, out], gate and up by turns; typed_tensors turns them round for MXFP4."""
    h, i, experts = (config[k] for k in ("hidden_size", "intermediate_size", "num_local_experts"))
    return [(f"{prefix}mlp.{name}", shape) for name, shape in (
        ("router.weight", (experts, h)), ("router.bias", (experts,)),
        ("experts.gate_up_proj", (experts, h, 2 * i)),
        ("experts.gate_up_proj_bias", (experts, 2 * i)),
        ("experts.down_proj", (experts, i, h)), ("experts.down_proj_bias", (experts, h)))]


def mxfp4_tensors(name, shape):
    experts, columns, rows = shape
    blocks = (experts, rows, columns // MXFP4_BLOCK)
    return [(f"{name}_blocks", (*blocks, MXFP4_BLOCK // 2), "mxfp4"),
            (f"{name}_scales", blocks, "mxfp4")]


def nemotron_tensors(config):
    """Nemotron-H: each layer is a Mamba2 mixer, attention, a feed-forward part or experts."""
    h, i, v = (config[k] for k in ("hidden_size", "intermediate_size", "vocab_size"))
    heads = config["mamba_num_heads"]
    inner = heads * config["mamba_head_dim"]
    conv = inner + 2 * config["n_groups"] * config["ssm_state_size"]
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]

    def linears(bias, *matrices):
        members = []
        for name, shape in matrices:
            members.append((f"{name}.weight", shape))
            members += [(f"{name}.bias", shape[:1])] if bias else []
        return members

    def mamba():
        return (linears(config["mamba_proj_bias"], ("in_proj", (inner + conv + heads, h)),
                        ("out_proj", (h, inner)))
                + [("conv1d.weight", (conv, 1, config["conv_kernel"])), ("dt_bias", (heads,)),
                   ("A_log", (heads,)), ("D", (heads,)), ("norm.weight", (inner,))]
                + ([("conv1d.bias", (conv,))] if config["use_conv_bias"] else []))

    def experts():
        m, latent = config["moe_intermediate_size"], config.get("moe_latent_size")
        width = latent or h
        members = [("gate.weight", (config["n_routed_experts"], h)),
                   ("gate.e_score_correction_bias", (config["n_routed_experts"],))]
        for expert in range(config["n_routed_experts"]):
            members += [(f"experts.{expert}.up_proj.weight", (m, width)),
                        (f"experts.{expert}.down_proj.weight", (width, m))]
        shared = config["moe_shared_expert_intermediate_size"]
        members += linears(config["mlp_bias"], ("shared_experts.up_proj", (shared, h)),
                           ("shared_experts.down_proj", (h, shared)))
        if latent:
            members += linears(config["mlp_bias"], ("fc1_latent_proj", (latent, h)),
                               ("fc2_latent_proj", (h, latent)))
        return members

    kinds = {
        "M": mamba, "E": experts,
        "*": lambda: linears(config["attention_bias"], ("q_proj", (q, h)), ("k_proj", (kv, h)),
                             ("v_proj", (kv, h)), ("o_proj", (h, q))),
        "-": lambda: linears(config["mlp_bias"], ("up_proj", (i, h)), ("down_proj", (h, i)))}
    tensors = [("backbone.embeddings.weight", (v, h))]
    for layer, kind in enumerate(config["hybrid_override_pattern"]):
        prefix = f"backbone.layers.{layer}."
        tensors.append((f"{prefix}norm.weight", (h,)))
        tensors += [(f"{prefix}mixer.{name}", shape) for name, shape in kinds[kind]()]
    return tensors + [("backbone.norm_f.weight", (h,)), ("lm_head.weight", (v, h)),
                      ("mtp.layers.0.norm.weight", (h,))]


def typed_tensors(config, dtype):
    """(name, shape, dtype) of every stored tensor."""
    tensors = []
    for name, shape in tensor_list(config):
        if dtype == "mxfp4":
            tensors += (mxfp4_tensors(name, shape) if name.endswith(("gate_up_proj", "down_proj"))
                        else [(name, shape, "bf16")])
            continue
        nested_f32 = ("linear_attn.A_log", "linear_attn.norm.weight")
        if name.endswith(("e_score_correction_bias", "mixer.A_log")) or (
                config["model_type"] in NESTED and name.endswith(nested_f32)):
            tensors.append((name, shape, "f32"))
        elif dtype != "fp8":
            tensors.append((name, shape, dtype))
        elif "layers." not in name or not FP8_NAME.search(name):
            tensors.append((name, shape, "bf16"))
        else:
            tensors.append((name, shape, "fp8"))
            tensors.append((f"{name}_scale_inv", tuple(-(-n // FP8_BLOCK) for n in shape), "f32"))
    return tensors


def tensor_list(config):
    """(name, shape) of every tensor that the configuration implies, in module order."""
    family = config["model_type"]
    if family in HYBRIDS:
        return hybrid_tensors(config)
    if family == "kimi_k25":
        tensors = [(f"language_model.{name}", shape) for name, shape in tensor_list(text_of(config))]
        return tensors + [("vision_tower.patch_embed.proj.weight", (64, 3, 14, 14)),
                          ("vision_tower.encoder.blocks.0.wqkv.weight", (192, 64)),
                          ("mm_projector.proj.0.weight", (config["text_config"]["hidden_size"], 64)),
                          ("mm_projector.proj.0.bias", (config["text_config"]["hidden_size"],))]
    if family in GEMMA:
        return gemma3_tensors(config)
    if family == "gemma4":
        return gemma4_tensors(config)
    if family == "llama4":
        return llama4_tensors(config)
    if family == "nemotron_h":
        return nemotron_tensors(config)
    if family in SEEING and "text_config" in config:
        return seeing_tensors(config, tensor_list(dict(text_of(config), model_type=family)))
    h, i, v = (config[k] for k in ("hidden_size", "intermediate_size", "vocab_size"))
    head_dim = config.get("head_dim") or h // config["num_attention_heads"]
    q = config["num_attention_heads"] * head_dim
    kv = config["num_key_value_heads"] * head_dim
    tensors = [("model.embed_tokens.weight", (v, h))]
    laid_out = layer_tensors(config)
    tensors += laid_out or []
    predicting = config.get("num_nextn_predict_layers", 0)
    for layer in range(config["num_hidden_layers"] + predicting if laid_out is None else 0):
        prefix = f"model.layers.{layer}."
        attention = [("q_proj", (q, h)), ("k_proj", (kv, h)), ("v_proj", (kv, h)),
                     ("o_proj", (h, q))]
        if family in DEEPSEEK:
            attention = []
            tensors += latent_attention(config, prefix)
        for name, shape in attention:
            tensors.append((f"{prefix}self_attn.{name}.weight", shape))
            biased = family == "qwen2" and name != "o_proj"
            if biased or config.get("attention_bias"):
                tensors.append((f"{prefix}self_attn.{name}.bias", shape[:1]))
        if family.startswith("qwen3"):
            tensors.append((f"{prefix}self_attn.q_norm.weight", (head_dim,)))
            tensors.append((f"{prefix}self_attn.k_norm.weight", (head_dim,)))
        if family == "gpt_oss":
            tensors.append((f"{prefix}self_attn.sinks", (config["num_attention_heads"],)))
            tensors += gpt_oss_experts(config, prefix)
        elif is_sparse(config, layer) and family in DEEPSEEK:
            tensors += deepseek_experts(config, prefix)
        elif family == "mixtral":
            moe = f"{prefix}block_sparse_moe."
            tensors.append((f"{moe}gate.weight", (config["num_local_experts"], h)))
            for expert in range(config["num_local_experts"]):
                for name, shape in [("w1", (i, h)), ("w2", (h, i)), ("w3", (i, h))]:
                    tensors.append((f"{moe}experts.{expert}.{name}.weight", shape))
        elif is_sparse(config, layer):
            m = config["moe_intermediate_size"]
            tensors.append((f"{prefix}mlp.gate.weight", (config["num_experts"], h)))
            for expert in range(config["num_experts"]):
                matrices = [("gate_proj", (m, h)), ("up_proj", (m, h)), ("down_proj", (h, m))]
                for name, shape in matrices:
                    tensors.append((f"{prefix}mlp.experts.{expert}.{name}.weight", shape))
        else:
            for name, shape in [("gate_proj", (i, h)), ("up_proj", (i, h)), ("down_proj", (h, i))]:
                tensors.append((f"{prefix}mlp.{name}.weight", shape))
                if config.get("mlp_bias"):
                    tensors.append((f"{prefix}mlp.{name}.bias", shape[:1]))
        tensors.append((f"{prefix}input_layernorm.weight", (h,)))
        tensors.append((f"{prefix}post_attention_layernorm.weight", (h,)))
        if layer >= config["num_hidden_layers"]:
            tensors += [(f"{prefix}{name}", shape) for name, shape in
                        [("eh_proj.weight", (h, 2 * h)), ("enorm.weight", (h,)),
                         ("hnorm.weight", (h,)), ("shared_head.norm.weight", (h,)),
                         ("shared_head.head.weight", (v, h)), ("embed_tokens.weight", (v, h))]]
    tensors.append(("model.norm.weight", (h,)))
    if not config["tie_word_embeddings"]:
        tensors.append(("lm_head.weight", (v, h)))
    return tensors


def to_bytes(values, dtype):
    """float32 array to little-endian bytes, rounded to nearest even."""
    if dtype == "f32":
        return values.astype("<f4").tobytes()
    if dtype == "f16":
        return values.astype("<f2").tobytes()
    bits = values.astype("<f4").view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype("<u2").tobytes()


def add_edge_rows(values):
    """Groups that quantizers treat specially, in the first rows of a matrix."""
    rows = [0.0, 0.25, -0.25]  # constants
    for row, value in enumerate(rows):
        if row < values.shape[0]:
            values[row] = value
    if values.shape[0] > 6:
        values[3] = np.abs(values[3])          # all positive
        values[4] = -np.abs(values[4])         # all negative
        values[5] *= 1e-9                      # far below eps
        values[6] = np.sign(values[6]) * 0.125  # two values of equal magnitude


class Generator:
    """Seeded weights: heavy-tailed, scaled as trained matrices are."""

    def __init__(self, seed, dtype, edge_rows, pooled, zero_centred=False,
                 unscaled_attention=False):
        self.pooled = pooled
        self.zero_centred = zero_centred  # norms multiply by 1 + w
        # Norms of q and k do what dividing by √head_dim does elsewhere.
        self.unscaled_attention = unscaled_attention
        self.random = np.random.default_rng(seed)
        self.dtype = dtype
        self.edge_rows = edge_rows
        self.pool = None

    def small(self, name, shape, dtype):
        if dtype == "fp8":  # every value but NaN
            codes = self.random.integers(0, 127, shape) | self.random.integers(0, 2, shape) << 7
            return [codes.astype(np.uint8).tobytes()]
        if name.endswith("scale_inv"):
            return [to_bytes(self.random.uniform(1e-4, 2e-3, shape).astype(np.float32), dtype)]
        if dtype == "mxfp4":
            low, high = (119, 124) if name.endswith("_scales") else (0, 256)
            return [self.random.integers(low, high, shape).astype(np.uint8).tobytes()]
        noise = self.random.standard_t(5, size=shape).astype(np.float32)
        if name.endswith("A_log"):
            return [to_bytes(np.log(self.random.uniform(1e-2, 16, shape)).astype(np.float32), dtype)]
        if self.zero_centred and name.endswith("norm.weight") and "linear_attn" not in name:
            return [to_bytes(0.1 * noise, dtype)]
        if self.unscaled_attention and name.endswith(("q_norm.weight", "k_norm.weight")):
            return [to_bytes(0.35 + 0.03 * noise, dtype)]
        if name.endswith("norm.weight"):
            return [to_bytes(1 + 0.1 * noise, dtype)]
        if len(shape) == 1 or name.endswith("bias"):
            return [to_bytes(0.1 * noise, dtype)]
        values = noise * np.float32(1 / math.sqrt(shape[-1]))
        if self.edge_rows:
            add_edge_rows(values)
        return [to_bytes(values, dtype)]

    def large(self, shape):
        """Blocks from random places of a pool that is drawn once."""
        if self.pool is None:
            noise = self.random.standard_t(5, size=POOL_ELEMENTS).astype(np.float32)
            self.pool = memoryview(to_bytes(noise * np.float32(0.02), self.dtype))
        size = DTYPES[self.dtype][2]
        left = math.prod(shape)
        while left > 0:
            count = min(left, WRITE_ELEMENTS)
            start = int(self.random.integers(0, POOL_ELEMENTS - count + 1))
            yield self.pool[start * size:(start + count) * size]
            left -= count

    def blocks(self, name, shape, dtype):
        if self.pooled and len(shape) > 1 and dtype == self.dtype:
            return self.large(shape)
        return self.small(name, shape, dtype)


def stored_bytes(shape, dtype):
    return math.prod(shape) * DTYPES[dtype][2]


def assign_shards(tensors, shards):
    """Lists of tensors, one per file, of about equal bytes; shards None means by size."""
    total = sum(stored_bytes(shape, dtype) for _, shape, dtype in tensors)
    count = shards or max(1, -(-total // SHARD_BYTES))
    files, filled = [[]], 0
    for name, shape, dtype in tensors:
        if filled * count >= total * len(files) and len(files) < count:
            files.append([])
        files[-1].append((name, shape, dtype))
        filled += stored_bytes(shape, dtype)
    return files


def header_bytes(tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, dtype in tensors:
        size = stored_bytes(shape, dtype)
        header[name] = dict(dtype=DTYPES[dtype][0], shape=list(shape),
                            data_offsets=[offset, offset + size])
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def byte_alphabet():
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    stands = {b: chr(b) for b in printable}
    stands.update({b: chr(256 + n) for n, b in enumerate(others)})
    return [stands[b] for b in range(256)]


def write_tokenizer(folder):
    """Byte-level BPE without merges: every byte is a token, then <s> and </s>."""
    vocabulary = {token: index for index, token in enumerate(byte_alphabet())}
    special = [dict(id=256 + n, content=content, single_word=False, lstrip=False, rstrip=False,
                    normalized=False, special=True) for n, content in enumerate(["<s>", "</s>"])]
    vocabulary.update({token["content"]: token["id"] for token in special})
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    tokenizer = dict(version="1.0", truncation=None, padding=None, added_tokens=special,
                     normalizer=None, pre_tokenizer=byte_level, post_processor=None,
                     decoder=byte_level,
                     model=dict(type="BPE", dropout=None, unk_token=None,
                                continuing_subword_prefix=None, end_of_word_suffix=None,
                                fuse_unk=False, byte_fallback=False, vocab=vocabulary, merges=[]))
    write_json(folder / "tokenizer.json", tokenizer)
    write_json(folder / "tokenizer_config.json",
               dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="</s>",
                    model_max_length=512, clean_up_tokenization_spaces=False))


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_weights(folder, tensors, shards, generator):
    files = assign_shards(tensors, shards)
    weight_map, total = {}, 0
    for number, members in enumerate(files, 1):
        name = ("model.safetensors" if len(files) == 1
                else f"model-{number:05d}-of-{len(files):05d}.safetensors")
        with open(folder / name, "wb") as out:
            out.write(header_bytes(members))
            for tensor, shape, dtype in members:
                for block in generator.blocks(tensor, shape, dtype):
                    out.write(block)
                weight_map[tensor] = name
                total += stored_bytes(shape, dtype)
    if len(files) > 1:
        write_json(folder / "model.safetensors.index.json",
                   dict(metadata=dict(total_size=total), weight_map=weight_map))


def make_checkpoint(folder, family="llama", dtype="bf16", tied=False, shards=1, seed=0,
                    edge_rows=False, **dims):
    """Writes the folder, which must not exist; dims are config.json keys. Returns the config."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    config = make_config(family, dtype, tied, **dims)
    tensors = typed_tensors(config, dtype)
    pooled = (dtype not in ("fp8", "mxfp4")
              and sum(math.prod(shape) for _, shape, _ in tensors) > FRESH_ELEMENTS)
    generator = Generator(seed, dtype, edge_rows, pooled, zero_centred=family in HYBRIDS + GEMMA,
                          unscaled_attention=family == "gemma4")
    write_weights(folder, tensors, shards, generator)
    config.pop("tied", None)
    write_json(folder / "config.json", config)
    ids = config if "bos_token_id" in config else text_of(config)
    write_json(folder / "generation_config.json",
               dict(bos_token_id=ids["bos_token_id"], eos_token_id=ids["eos_token_id"]))
    write_tokenizer(folder)
    return config


def dims_for_bytes(family, dtype, total):
    """Widths of a plausible model of about that many bytes; the layers fill it."""
    scale = [(0, 1024, 2816, 16000), (800e6, 2048, 5632, 32000), (8e9, 4096, 14336, 128256)]
    _, hidden, intermediate, vocab = [s for s in scale if total >= s[0]][-1]
    dims = dict(hidden_size=hidden, intermediate_size=intermediate, vocab_size=vocab,
                num_attention_heads=hidden // 128, num_key_value_heads=max(1, hidden // 512))
    if family.startswith("qwen3"):
        dims["head_dim"] = 128
    if family in HYBRIDS:
        dims.update(linear_num_key_heads=hidden // 128, linear_num_value_heads=hidden // 64,
                    linear_key_head_dim=128, linear_value_head_dim=128)
    if family in ("qwen3_moe", "qwen3_next", "qwen3_5_moe"):
        dims.update(num_experts=32, num_experts_per_tok=4, moe_intermediate_size=intermediate // 8)

    def size(layers):
        config = make_config(family, dtype, **dims, num_hidden_layers=layers)
        return sum(stored_bytes(shape, kind) for _, shape, kind in typed_tensors(config, dtype))

    per_layer = size(2) - size(1)
    dims["num_hidden_layers"] = max(1, math.ceil((total - (size(1) - per_layer)) / per_layer))
    return dims


def parse_bytes(text):
    match = re.fullmatch(r"([0-9.]+)(MB|GB|MiB|GiB)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text}: expected a number with MB, GB, MiB or GiB")
    unit = dict(MB=10**6, GB=10**9, MiB=2**20, GiB=2**30)[match[2]]
    return int(float(match[1]) * unit)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--family", choices=FAMILIES, default="llama")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--tied", action="store_true")
    parser.add_argument("--shards", type=int, help="files (default: one per 5 GB)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--edge-rows", action="store_true",
                        help="constant, one-signed and tiny rows in every matrix")
    parser.add_argument("--bytes", type=parse_bytes, help="about this much, such as 4GB")
    parser.add_argument("--set", metavar="KEY=JSON", action="append", default=[],
                        help="any key of config.json, such as num_hidden_layers=4")
    args = parser.parse_args()
    dims = dims_for_bytes(args.family, args.dtype, args.bytes) if args.bytes else {}
    for setting in args.set:
        key, value = setting.split("=", 1)
        dims[key] = json.loads(value)
    if args.out.exists():
        sys.exit(f"{args.out} exists already")
    config = make_checkpoint(args.out, args.family, args.dtype, args.tied, args.shards, args.seed,
                             args.edge_rows, **dims)
    total = sum(f.stat().st_size for f in args.out.glob("*.safetensors"))
    print(f"{args.out}: {args.family}, {text_of(config)['num_hidden_layers']} layers, {total / 1e9:.3f} GB")


if __name__ == "__main__":
    main()
