// Opening models: every form that is accepted, and every way in which index, shards and
// configuration can contradict each other.
#include "io/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>

#include "build_files.h"

namespace sluice::io {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::safetensors_file;
using testing::TemporaryFolder;

std::string shard(const std::vector<std::string>& names) {
  std::string json = "{";
  size_t end = 0;
  for (const auto& name : names) {
    if (end != 0) json += ",";
    json += fmt::format(R"("{}":{{"dtype":"F16","shape":[2],"data_offsets":[{},{}]}})", name, end,
                        end + 4);
    end += 4;
  }
  return safetensors_file(json + "}", end);
}

constexpr const char* kShard1 = "model-00001-of-00002.safetensors";
constexpr const char* kShard2 = "model-00002-of-00002.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

void write_indexed(const TemporaryFolder& folder) {
  folder.write("config.json", R"({"model_type":"llama"})");
  folder.write(kShard1, shard({"b", "a"}));
  folder.write(kShard2, shard({"c"}));
  folder.write(kIndex, fmt::format(R"({{"weight_map":{{"a":"{0}","b":"{0}","c":"{1}"}}}})", kShard1,
                                   kShard2));
}

std::vector<std::string> names_of(const Checkpoint& checkpoint) {
  std::vector<std::string> names;
  names.reserve(checkpoint.tensors.size());
  for (const auto& tensor : checkpoint.tensors) names.push_back(tensor.info.name);
  return names;
}

TEST(CheckpointTest, Indexed) {
  const TemporaryFolder folder;
  write_indexed(folder);
  folder.write("tokenizer.json", "{}");
  folder.write("modeling_x.py", "pass");
  folder.write("chat_template.jinja", "{{ x }}");
  folder.write("README.md", "no");
  folder.write("consolidated.safetensors", "not looked at");
  folder.write("generation_config.json", R"({"eos_token_id":7})");
  const auto opened = open_checkpoint(folder.path());
  ASSERT_TRUE(opened) << opened.error().message;
  const Checkpoint& c = **opened;
  EXPECT_EQ(c.kind, SourceKind::kHuggingFace);
  EXPECT_THAT(names_of(c), ElementsAre("a", "b", "c"));
  ASSERT_EQ(c.identity.size(), 2u);
  EXPECT_EQ(c.identity[0].name, kShard1);
  EXPECT_EQ(c.find("c")->file, 1u);
  EXPECT_EQ(c.find("a")->offset, c.find("b")->offset + 4);
  EXPECT_EQ(c.find("absent"), nullptr);
  EXPECT_EQ(c.config["model_type"], "llama");
  EXPECT_EQ(c.generation_config["eos_token_id"], 7);
  std::vector<std::string> sidecars;
  sidecars.reserve(c.sidecars.size());
  for (const auto& sidecar : c.sidecars) sidecars.push_back(sidecar.name);
  EXPECT_THAT(sidecars, ElementsAre("chat_template.jinja", "generation_config.json",
                                    "modeling_x.py", "tokenizer.json"));
}

TEST(CheckpointTest, OtherForms) {
  {
    const TemporaryFolder folder;  // shards alone
    write_indexed(folder);
    std::filesystem::remove(folder.file(kIndex));
    const auto opened = open_checkpoint(folder.path() + "/");
    ASSERT_TRUE(opened) << opened.error().message;
    EXPECT_THAT(names_of(**opened), ElementsAre("a", "b", "c"));
    EXPECT_TRUE((*opened)->generation_config.is_null());
  }
  {
    const TemporaryFolder folder;  // one file of any name, by folder and by file
    folder.write("config.json", "{}");
    folder.write("weights.safetensors", shard({"x"}));
    const auto by_folder = open_checkpoint(folder.path());
    const auto by_file = open_checkpoint(folder.file("weights.safetensors"));
    ASSERT_TRUE(by_folder) << by_folder.error().message;
    ASSERT_TRUE(by_file) << by_file.error().message;
    EXPECT_EQ((*by_folder)->identity_digest(), (*by_file)->identity_digest());
  }
  {
    const TemporaryFolder blobs, folder;  // links out of the folder, as in Hugging Face's cache
    blobs.write("abc", shard({"x"}));
    folder.write("config.json", "{}");
    std::filesystem::create_symlink(blobs.file("abc"), folder.file("model.safetensors"));
    const auto opened = open_checkpoint(folder.path());
    ASSERT_TRUE(opened) << opened.error().message;
    EXPECT_EQ((*opened)->identity[0].name, "model.safetensors");
  }
}

TEST(CheckpointTest, IdentityFollowsHeadersAndConfiguration) {
  const TemporaryFolder folder;
  write_indexed(folder);
  const Digest before = (*open_checkpoint(folder.path()))->identity_digest();
  EXPECT_EQ((*open_checkpoint(folder.path()))->identity_digest(), before);
  folder.write("config.json", R"({"model_type":"qwen2"})");
  EXPECT_NE((*open_checkpoint(folder.path()))->identity_digest(), before);
  write_indexed(folder);
  EXPECT_EQ((*open_checkpoint(folder.path()))->identity_digest(), before);
  folder.write(kShard1, shard({"a", "b"}));
  EXPECT_NE((*open_checkpoint(folder.path()))->identity_digest(), before);
}

TEST(CheckpointTest, ContradictionsAreErrors) {
  struct Case {
    const char* what;
    std::function<void(const TemporaryFolder&)> damage;
    ErrorCode code;
    const char* message;
  };
  const auto index = [](const char* map) {
    return [map](const TemporaryFolder& f) {
      f.write(kIndex, fmt::format(R"({{"weight_map":{{{}}}}})", map));
    };
  };
  const auto remove = [](const char* name) {
    return [name](const TemporaryFolder& f) { std::filesystem::remove(f.file(name)); };
  };
  for (const Case& c : std::vector<Case>{
           {"no config", remove("config.json"), ErrorCode::kNotFound, "config.json"},
           {"a shard missing", remove(kShard2), ErrorCode::kNotFound, kShard2},
           {"config a list", [](auto& f) { f.write("config.json", "[]"); }, ErrorCode::kCorrupt,
            "config.json"},
           {"config damaged", [](auto& f) { f.write("config.json", "{\"a\":"); },
            ErrorCode::kCorrupt, "config.json"},
           {"config nan", [](auto& f) { f.write("config.json", R"({"rms_norm_eps":nan})"); },
            ErrorCode::kCorrupt, "config.json"},
           {"config 1e400", [](auto& f) { f.write("config.json", R"({"rms_norm_eps":1e400})"); },
            ErrorCode::kCorrupt, "config.json"},
           {"config deep",
            [](auto& f) { f.write("config.json", "{\"a\":" + std::string(100'000, '[')); },
            ErrorCode::kCorrupt, "config.json"},
           {"config huge", [](auto& f) { f.write("config.json", std::string(17 << 20, ' ')); },
            ErrorCode::kCorrupt, "config.json"},
           {"generation config damaged", [](auto& f) { f.write("generation_config.json", "nope"); },
            ErrorCode::kCorrupt, "generation_config.json"},
           {"blocks of 8-bit floats without sides",
            [](auto& f) {
              f.write("config.json",
                      R"({"quantization_config":{"quant_method":"fp8","weight_block_size":128}})");
            },
            ErrorCode::kUnsupported, "weight_block_size"},
           {"index damaged", [](auto& f) { f.write(kIndex, "{"); }, ErrorCode::kCorrupt, kIndex},
           {"index climbs out", index(R"("a":"../x.safetensors")"), ErrorCode::kCorrupt,
            "../x.safetensors"},
           {"index names an absolute path", index(R"("a":"/x.safetensors")"), ErrorCode::kCorrupt,
            "/x.safetensors"},
           {"index has a tensor more",
            index(
                R"("a":"model-00001-of-00002.safetensors","b":"model-00001-of-00002.safetensors",)"
                R"("c":"model-00002-of-00002.safetensors","d":"model-00002-of-00002.safetensors")"),
            ErrorCode::kCorrupt, "\"d\""},
           {"index lacks a tensor",
            index(
                R"("a":"model-00001-of-00002.safetensors","c":"model-00002-of-00002.safetensors")"),
            ErrorCode::kCorrupt, "\"b\""},
           {"index names another shard",
            index(
                R"("a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors",)"
                R"("c":"model-00002-of-00002.safetensors")"),
            ErrorCode::kCorrupt, "\"b\""},
           {"tensor in two shards", [](auto& f) { f.write(kShard2, shard({"a", "c"})); },
            ErrorCode::kCorrupt, "\"a\""},
           {"shard truncated",
            [](auto& f) {
              const std::string full = shard({"b", "a"});
              f.write(kShard1, full.substr(0, full.size() - 1));
            },
            ErrorCode::kCorrupt, kShard1},
           {"shard empty", [](auto& f) { f.write(kShard1, ""); }, ErrorCode::kCorrupt, kShard1},
           {"single file beside shards",
            [](auto& f) { f.write("model.safetensors", shard({"z"})); }, ErrorCode::kCorrupt,
            "model.safetensors"},
           {"shards incomplete, no index",
            [&](auto& f) {
              remove(kIndex)(f);
              remove(kShard2)(f);
            },
            ErrorCode::kNotFound, "1 of 2"},
           {"shards of two sets, no index",
            [&](auto& f) {
              remove(kIndex)(f);
              f.write("model-00001-of-00003.safetensors", shard({"z"}));
            },
            ErrorCode::kCorrupt, "does not belong"},
           {"no weights",
            [&](auto& f) {
              remove(kIndex)(f);
              remove(kShard1)(f);
              remove(kShard2)(f);
            },
            ErrorCode::kNotFound, "no .safetensors"},
           {"two files of other names",
            [&](auto& f) {
              remove(kIndex)(f);
              remove(kShard1)(f);
              remove(kShard2)(f);
              f.write("x.safetensors", shard({"x"}));
              f.write("y.safetensors", shard({"y"}));
            },
            ErrorCode::kUnsupported, "unclear"},
           {"no tensors",
            [&](auto& f) {
              remove(kIndex)(f);
              remove(kShard1)(f);
              remove(kShard2)(f);
              f.write("model.safetensors", safetensors_file("{}", 0));
            },
            ErrorCode::kCorrupt, "no tensors"},
       }) {
    const TemporaryFolder folder;
    write_indexed(folder);
    c.damage(folder);
    const auto opened = open_checkpoint(folder.path());
    ASSERT_FALSE(opened) << c.what;
    EXPECT_EQ(opened.error().code, c.code) << c.what << ": " << opened.error().message;
    EXPECT_THAT(opened.error().message, HasSubstr(c.message)) << c.what;
  }
}

TEST(CheckpointTest, OtherPathsAreRefused) {
  const TemporaryFolder folder;
  folder.write("model.bin", "PK");
  folder.write("model.gguf", "not a gguf");
  EXPECT_EQ(open_checkpoint("").error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(open_checkpoint(folder.file("absent")).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(open_checkpoint(folder.file("model.bin")).error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(open_checkpoint(folder.file("model.gguf")).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(open_checkpoint("/dev/null").error().code, ErrorCode::kUnsupported);
}

// A shard cut at any byte must be noticed when the model is opened.
TEST(CheckpointTest, TruncationAtEveryByte) {
  const TemporaryFolder folder;
  write_indexed(folder);
  const std::string full = shard({"c"});
  for (size_t length = 0; length < full.size(); ++length) {
    folder.write(kShard2, full.substr(0, length));
    EXPECT_FALSE(open_checkpoint(folder.path())) << length;
  }
  folder.write(kShard2, full);
  EXPECT_TRUE(open_checkpoint(folder.path()));
}

TEST(CheckpointTest, RealModels) {
  const char* inputs = std::getenv("SLUICE_REAL_INPUTS");
  if (inputs == nullptr) GTEST_SKIP() << "no real-input folder";
  const std::string models = std::string(inputs) + "/models/";
  const auto sharded = open_checkpoint(models + "stories260K/hf-bf16-2shards");
  ASSERT_TRUE(sharded) << sharded.error().message;
  EXPECT_EQ((*sharded)->files.size(), 2u);
  EXPECT_EQ((*sharded)->tensors.size(), 47u);
  const auto moe = open_checkpoint(models + "tiny-qwen3-moe");
  ASSERT_TRUE(moe) << moe.error().message;
  EXPECT_EQ((*moe)->tensors.size(), 633u);
  for (const char* type :
       {"f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k_m"}) {
    const auto gguf = open_checkpoint(models + "stories260K/gguf/stories260K-" + type + ".gguf");
    ASSERT_TRUE(gguf) << gguf.error().message;
    EXPECT_EQ((*gguf)->kind, SourceKind::kGguf);
    EXPECT_EQ((*gguf)->tensors.size(), 47u);
    const auto hf = open_checkpoint(models + "stories260K/hf");
    ASSERT_TRUE(hf);
    for (const auto& [key, value] : (*gguf)->config.items()) {
      if (key == "torch_dtype") continue;
      EXPECT_EQ((*hf)->config[key], value) << key;
    }
  }
  const auto legacy =
      open_checkpoint(models + "stories260K/original/tinyllamas-stories-260k-f32.gguf");
  ASSERT_FALSE(legacy);
  EXPECT_EQ(legacy.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(legacy.error().message, HasSubstr("version 1"));
}

}  // namespace
}  // namespace sluice::io
