"""Configurations and tensor lists of families, in the layout in which transformers writes them:
make_checkpoint.py's. Each entry of LAYOUTS has the class that config.json names, the keys that the
family adds to the common ones (tiny sizes), and the tensors that a configuration implies, in module
order, without embedding and head. New families go here.
"""

import collections

# Models that also see have their numbers in text_config, whose model_type is text_type, and the
# language model's tensors under a prefix.
Layout = collections.namedtuple("Layout", "architecture keys layer behind text_type prefix",
                                defaults=(None, None, None))


def sizes(config):
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return (config["hidden_size"], config["intermediate_size"],
            config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim,
            head_dim)


def attention(config, biased=()):
    """Separate projections; biases of those named."""
    h, _, q, kv, _ = sizes(config)
    tensors = []
    for name, shape in [("q_proj", (q, h)), ("k_proj", (kv, h)), ("v_proj", (kv, h)),
                        ("o_proj", (h, q))]:
        tensors.append((f"self_attn.{name}.weight", shape))
        if name in biased:
            tensors.append((f"self_attn.{name}.bias", shape[:1]))
    return tensors


def qk_norms(q, k):
    return [("self_attn.q_norm.weight", (q,)), ("self_attn.k_norm.weight", (k,))]


def norms(config, biased=False):
    h = config["hidden_size"]
    return [(f"{name}.{parameter}", (h,)) for name in ("input_layernorm", "post_attention_layernorm")
            for parameter in (("weight", "bias") if biased else ("weight",))]


def gated(config, path, width, names=("gate_proj", "up_proj", "down_proj"), biased=False):
    """The three matrices of a feed-forward part, or of an expert."""
    h = config["hidden_size"]
    tensors = []
    for name, shape in zip(names, [(width, h), (width, h), (h, width)]):
        tensors.append((f"{path}.{name}.weight", shape))
        if biased:
            tensors.append((f"{path}.{name}.bias", shape[:1]))
    return tensors


def experts(config, path, count, width, names=("gate_proj", "up_proj", "down_proj")):
    return [tensor for expert in range(count)
            for tensor in gated(config, f"{path}.experts.{expert}", width, names)]


W123 = ("w1", "w3", "w2")
ALL = ("q_proj", "k_proj", "v_proj", "o_proj")
QKV = ALL[:3]


def olmoe(config, layer):
    h, i, q, kv, _ = sizes(config)
    return (attention(config, ALL if config["attention_bias"] else ()) + qk_norms(q, kv)
            + [("mlp.gate.weight", (config["num_experts"], h))]
            + experts(config, "mlp", config["num_experts"], i) + norms(config))


def qwen2_moe(config, layer):
    h = config["hidden_size"]
    return (attention(config, QKV)
            + [("mlp.gate.weight", (config["num_experts"], h))]
            + experts(config, "mlp", config["num_experts"], config["moe_intermediate_size"])
            + gated(config, "mlp.shared_expert", config["shared_expert_intermediate_size"])
            + [("mlp.shared_expert_gate.weight", (1, h))] + norms(config))


def glm4_moe(config, layer):
    h, i, _, _, head_dim = sizes(config)
    tensors = attention(config, QKV if config["attention_bias"] else ())
    if config["use_qk_norm"]:
        tensors += qk_norms(head_dim, head_dim)
    width, count = config["moe_intermediate_size"], config["n_routed_experts"]
    if layer < config["first_k_dense_replace"]:
        tensors += gated(config, "mlp", i)
    else:
        tensors += [("mlp.gate.weight", (count, h)), ("mlp.gate.e_score_correction_bias", (count,))]
        tensors += experts(config, "mlp", count, width)
        tensors += gated(config, "mlp.shared_experts", width * config["n_shared_experts"])
    return tensors + norms(config)


def glm4_moe_behind(config):
    """Layers for multi-token prediction."""
    h, tensors = config["hidden_size"], []
    for extra in range(config["num_nextn_predict_layers"]):
        layer = config["num_hidden_layers"] + extra
        own = [("eh_proj.weight", (h, 2 * h)), ("enorm.weight", (h,)), ("hnorm.weight", (h,)),
               ("shared_head.norm.weight", (h,))]
        tensors += [(f"model.layers.{layer}.{name}", shape)
                    for name, shape in own + glm4_moe(config, layer)]
    return tensors


def minimax_m2(config, layer):
    h, i, q, kv, _ = sizes(config)
    count = config["num_local_experts"]
    return (attention(config) + (qk_norms(q, kv) if config["use_qk_norm"] else [])
            + [("block_sparse_moe.gate.weight", (count, h)),
               ("block_sparse_moe.e_score_correction_bias", (count,))]
            + experts(config, "block_sparse_moe", count, i, W123) + norms(config))


def granite(config, layer):
    return (attention(config, ALL if config["attention_bias"] else ())
            + gated(config, "mlp", config["intermediate_size"], biased=config["mlp_bias"])
            + norms(config))


def granitemoe(config, layer):
    h, i, _, _, _ = sizes(config)
    count = config["num_local_experts"]
    return (attention(config, ALL if config["attention_bias"] else ())
            + [("block_sparse_moe.input_linear.weight", (count, 2 * i, h)),
               ("block_sparse_moe.output_linear.weight", (count, h, i)),
               ("block_sparse_moe.router.layer.weight", (count, h))] + norms(config))


def phi3(config, layer):
    h, i, q, kv, _ = sizes(config)
    return [("self_attn.qkv_proj.weight", (q + 2 * kv, h)), ("self_attn.o_proj.weight", (h, q)),
            ("mlp.gate_up_proj.weight", (2 * i, h)), ("mlp.down_proj.weight", (h, i)),
            *norms(config)]


def phimoe(config, layer):
    h, i, _, _, _ = sizes(config)
    count = config["num_local_experts"]
    return (attention(config, ALL) + [("block_sparse_moe.gate.weight", (count, h))]
            + experts(config, "block_sparse_moe", count, i, W123) + norms(config, biased=True))


def phimoe_behind(config):
    return [("model.norm.bias", (config["hidden_size"],)), ("lm_head.bias", (config["vocab_size"],))]


def plain(config, layer):
    """Llama's layer; biases where the configuration has the keys for them."""
    biased = QKV if config.get("attention_bias") else ()
    return (attention(config, biased)
            + gated(config, "mlp", config["intermediate_size"], biased=config.get("mlp_bias", False))
            + norms(config))


def biased_plain(config, layer):
    """The same, whose o_proj has a bias too."""
    return (attention(config, ALL if config["attention_bias"] else ())
            + gated(config, "mlp", config["intermediate_size"], biased=config["mlp_bias"])
            + norms(config))


def mimo(config, layer):
    return (attention(config, QKV) + gated(config, "mlp", config["intermediate_size"])
            + norms(config))


def mimo_behind(config):
    """Layers for multi-token prediction."""
    h = config["hidden_size"]
    return [(f"model.mtp_layers.{layer}.{name}", shape)
            for layer in range(config["num_nextn_predict_layers"])
            for name, shape in mimo(config, layer) + [("input_proj.weight", (h, 2 * h))]]


def gemma2(config, layer):
    behind = [(f"{name}_feedforward_layernorm.weight", (config["hidden_size"],))
              for name in ("pre", "post")]
    return (attention(config) + gated(config, "mlp", config["intermediate_size"]) + norms(config)
            + behind)


def qwen3_vl(config, layer):
    head_dim = sizes(config)[-1]
    return (attention(config) + qk_norms(head_dim, head_dim)
            + gated(config, "mlp", config["intermediate_size"]) + norms(config))


def qwen3_vl_moe(config, layer):
    h, i, _, _, head_dim = sizes(config)
    count, width = config["num_experts"], config["moe_intermediate_size"]
    mixed = attention(config) + qk_norms(head_dim, head_dim) + norms(config)
    if layer in config["mlp_only_layers"]:
        return mixed + gated(config, "mlp", i)
    return mixed + [("mlp.gate.weight", (count, h)),
                    ("mlp.experts.gate_up_proj", (count, h, 2 * width)),
                    ("mlp.experts.down_proj", (count, width, h))]


MULTIPLIERS = dict(attention_bias=False, attention_multiplier=0.02, embedding_multiplier=12.0,
                   residual_multiplier=0.22, logits_scaling=6.0)

LAYOUTS = {
    "olmoe": Layout(
        "OlmoeForCausalLM",
        dict(attention_bias=False, clip_qkv=None, num_experts=6, num_experts_per_tok=2,
             norm_topk_prob=False, intermediate_size=128), olmoe),
    "qwen2_moe": Layout(
        "Qwen2MoeForCausalLM",
        dict(use_sliding_window=False, sliding_window=None, num_experts=6, num_experts_per_tok=2,
             moe_intermediate_size=128, shared_expert_intermediate_size=256, decoder_sparse_step=1,
             mlp_only_layers=[], norm_topk_prob=False), qwen2_moe),
    "glm4_moe": Layout(
        "Glm4MoeForCausalLM",
        dict(head_dim=64, attention_bias=True, use_qk_norm=True, partial_rotary_factor=0.5,
             n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=3, n_group=1, topk_group=1,
             moe_intermediate_size=128, first_k_dense_replace=1, norm_topk_prob=True,
             routed_scaling_factor=1.5, num_nextn_predict_layers=1), glm4_moe, glm4_moe_behind),
    "minimax_m2": Layout(
        "MiniMaxM2ForCausalLM",
        dict(head_dim=64, rotary_dim=32, use_qk_norm=True, qk_norm_type="per_layer",
             intermediate_size=128, shared_intermediate_size=0, num_local_experts=6,
             num_experts_per_tok=2, scoring_func="sigmoid", use_routing_bias=True), minimax_m2),
    "granite": Layout("GraniteForCausalLM", dict(MULTIPLIERS, mlp_bias=False), granite),
    "granitemoe": Layout(
        "GraniteMoeForCausalLM",
        dict(MULTIPLIERS, intermediate_size=128, num_local_experts=6, num_experts_per_tok=2),
        granitemoe),
    "phi3": Layout(
        "Phi3ForCausalLM",
        dict(original_max_position_embeddings=512, sliding_window=None), phi3),
    "phimoe": Layout(
        "PhimoeForCausalLM",
        dict(attention_bias=True, lm_head_bias=True, sliding_window=None, intermediate_size=128,
             num_local_experts=6, num_experts_per_tok=2, router_jitter_noise=0.01,
             original_max_position_embeddings=64), phimoe, phimoe_behind),
    "mimo": Layout("MiMoForCausalLM", dict(attention_bias=True, num_nextn_predict_layers=1), mimo,
                   mimo_behind),
    "smollm3": Layout(
        "SmolLM3ForCausalLM",
        dict(attention_bias=False, mlp_bias=False, use_sliding_window=False, num_hidden_layers=4,
             no_rope_layer_interval=4), biased_plain),
    "seed_oss": Layout(
        "SeedOssForCausalLM",
        dict(head_dim=64, attention_bias=True, attention_out_bias=False, mlp_bias=False), plain),
    "ernie4_5": Layout("Ernie4_5ForCausalLM", dict(head_dim=64, use_bias=False), plain),
    "gemma2": Layout(
        "Gemma2ForCausalLM",
        dict(head_dim=64, hidden_act="gelu_pytorch_tanh",
             hidden_activation="gelu_pytorch_tanh", query_pre_attn_scalar=48,
             attn_logit_softcapping=50.0, final_logit_softcapping=30.0, sliding_window=16),
        gemma2),
    "mistral3": Layout(
        "Mistral3ForConditionalGeneration", dict(head_dim=64, sliding_window=None), plain,
        text_type="mistral", prefix="language_model."),
    "qwen3_vl": Layout(
        "Qwen3VLForConditionalGeneration", dict(head_dim=64), qwen3_vl,
        text_type="qwen3_vl_text", prefix="model.language_model."),
    "qwen3_vl_moe": Layout(
        "Qwen3VLMoeForConditionalGeneration",
        dict(head_dim=64, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=128,
             decoder_sparse_step=1, mlp_only_layers=[], norm_topk_prob=True), qwen3_vl_moe,
        text_type="qwen3_vl_moe_text", prefix="model.language_model."),
}


def layer_tensors(config):
    """(name, shape) of everything between the embedding and the last norm; None for families that
    have no layout here."""
    layout = LAYOUTS.get(config["model_type"])
    if layout is None:
        return None
    tensors = [(f"model.layers.{layer}.{name}", shape)
               for layer in range(config["num_hidden_layers"])
               for name, shape in layout.layer(config, layer)]
    return tensors + (layout.behind(config) if layout.behind else [])


def seeing_tensors(config, language_model):
    """Of a model that also sees: the language model's (name, shape) under its prefix, and some more."""
    prefix = LAYOUTS[config["model_type"]].prefix
    model, head = (f"{prefix}model.", f"{prefix}lm_head.") if prefix == "language_model." else (
        prefix, "lm_head.")
    vision = "model.visual." if prefix.startswith("model.") else "vision_tower."
    return [(name.replace("lm_head.", head) if name.startswith("lm_head.")
             else name.replace("model.", model, 1), shape) for name, shape in language_model] + [
        (f"{vision}blocks.0.attn.qkv.weight", (192, 64)), (f"{vision}blocks.0.attn.qkv.bias", (192,))]
