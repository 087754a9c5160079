// What a family's forward pass does otherwise than llama's: one file per architecture, each with a
// function that fills in ModelConfig, and the table of them. The readers below are those that
// several families share; label is config.json's, for messages.
#pragma once

#include <string_view>

#include "model/config.h"

namespace sluice::model {

struct Architecture {
  std::string_view family;  // model_type
  // out holds names, sizes, one LayerConfig per layer with sparse set, the scale 1/√head_dim, and
  // for sparse models the number of experts.
  // Errors: kUnsupported for settings that it does not know, kCorrupt for impossible ones.
  Status (*configure)(const Json& config, const std::string& label, ModelConfig& out);
};

// Null for families that have no forward pass.
const Architecture* find_architecture(std::string_view model_type);
// All of them, for messages: "llama, mistral, …".
std::string architecture_names();

extern const Architecture kLlama;
extern const Architecture kMistral;
extern const Architecture kMixtral;
extern const Architecture kQwen2;
extern const Architecture kQwen3;
extern const Architecture kQwen3Moe;
extern const Architecture kDeepseekV2;
extern const Architecture kDeepseekV3;
extern const Architecture kDeepseekV32;
extern const Architecture kGlm4MoeLite;
extern const Architecture kGlmMoeDsa;
extern const Architecture kKimiK2;
extern const Architecture kKimiK25;
extern const Architecture kGptOss;
extern const Architecture kGemma3;
extern const Architecture kGemma3Text;
extern const Architecture kGemma4;
extern const Architecture kNemotronH;
extern const Architecture kLlama4;
extern const Architecture kOlmoe;
extern const Architecture kQwen2Moe;
extern const Architecture kGlm4Moe;
extern const Architecture kMinimaxM2;
extern const Architecture kGranite;
extern const Architecture kGraniteMoe;
extern const Architecture kPhi3;
extern const Architecture kPhimoe;
extern const Architecture kQwen3Next;
extern const Architecture kQwen3_5;
extern const Architecture kQwen3_5Moe;
extern const Architecture kGemma2;
extern const Architecture kQwen3Vl;
extern const Architecture kQwen3VlMoe;
extern const Architecture kMimo;
extern const Architecture kSmollm3;
extern const Architecture kSeedOss;
extern const Architecture kErnie4_5;
extern const Architecture kMistral3;

// ---- single values, or a fallback where the key is missing ----

Result<uint64_t> integer_or(const Json& json, std::string_view key, int64_t low, int64_t high,
                            uint64_t fallback, const std::string& label);
Result<bool> flag_or(const Json& json, std::string_view key, bool fallback,
                     const std::string& label);
// A text that must be this one where it is there.
Status expect_text(const Json& json, std::string_view key, std::string_view expected,
                   const std::string& label);
// Finite, and above zero.
Result<float> factor_or(const Json& json, std::string_view key, float fallback,
                        const std::string& label);

// ---- what decoders have in common ----

// rms_norm_eps, hidden_act (silu), and one rope table. theta_default: where rope_theta is missing;
// share_default: where partial_rotary_factor is.
Status read_decoder(const Json& json, const std::string& label, double theta_default,
                    ModelConfig& out, double share_default = 1);
// The first two of these, for families whose rope tables are of their own.
Status read_norms_and_activation(const Json& json, const std::string& label, ModelConfig& out);
// rms_norm_eps, which must be there where no fallback is given.
Status read_epsilon(const Json& json, const std::string& label, std::optional<double> fallback,
                    ModelConfig& out);
// Appends the rope table of the configuration's own keys.
Status read_rope_table(const Json& json, const std::string& label, double theta_default,
                       ModelConfig& out, double share_default = 1);
// The layers that layer_types calls sliding_attention see window tokens; where there is no such
// list, the layers from first on do.
Status read_windows(const Json& json, const std::string& label, uint32_t window, uint64_t first,
                    ModelConfig& out);
// The layers that no_rope_layers marks with 1 rotate, whatever its name says; without such a list
// all but every interval-th do.
Status read_rope_layers(const Json& json, const std::string& label, uint64_t interval,
                        ModelConfig& out);
// sliding_window; 0 where it is missing.
Result<uint32_t> read_window(const Json& json, const std::string& label);
// num_experts_per_tok, into router.top_k; nothing for dense models.
Status read_experts_per_token(const Json& json, const std::string& label, ModelConfig& out);

}  // namespace sluice::model
