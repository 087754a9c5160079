// Heads of model cards: what is kept of the source, and damaged ones.
#include "convert/front_matter.h"

#include <gtest/gtest.h>

namespace sluice::convert {
namespace {

constexpr const char* kPlain =
    "---\nlibrary_name: mlx\npipeline_tag: text-generation\ntags:\n- mlx\n- sluice\n"
    "base_model: \"tiny\"\n---\n";

TEST(FrontMatter, WithoutASource) {
  EXPECT_EQ(merged_front_matter("", "tiny"), kPlain);
  EXPECT_EQ(merged_front_matter("# A model\n\ntext\n", "tiny"), kPlain);
}

TEST(FrontMatter, KeepsWhatIsNotOurs) {
  const std::string card = merged_front_matter(
      "---\nlicense: apache-2.0\nlicense_link: https://example.org/LICENSE\n# a comment\n"
      "language:\n- en\n- de\nlibrary_name: transformers\npipeline_tag: other\n"
      "base_model: someone/else\nbase_model_relation: finetune\n"
      "tags:\n  - chat\n  - 'mlx'\nmodel-index:\n- name: x\n  results:\n    - task: y\n"
      "---\n# Body\nlibrary_name: body\n",
      "tiny");
  EXPECT_EQ(card,
            "---\nlicense: apache-2.0\nlicense_link: https://example.org/LICENSE\n"
            "language:\n- en\n- de\nmodel-index:\n- name: x\n  results:\n    - task: y\n"
            "library_name: mlx\npipeline_tag: text-generation\n"
            "tags:\n- chat\n- 'mlx'\n- sluice\nbase_model: \"tiny\"\n---\n");
}

TEST(FrontMatter, TagsInOneLine) {
  for (const char* tags : {"tags: [chat, \"code gen\"]", "tags: [chat,\n  \"code gen\"]"})
    EXPECT_NE(merged_front_matter(std::string("---\n") + tags + "\n---\n", "tiny")
                  .find("tags:\n- chat\n- \"code gen\"\n- mlx\n- sluice\n"),
              std::string::npos)
        << tags;
  EXPECT_NE(merged_front_matter("---\ntags: chat\n---\n", "tiny").find("tags:\n- chat\n- mlx\n"),
            std::string::npos);
}

TEST(FrontMatter, LineEndsAndByteOrderMarks) {
  EXPECT_NE(merged_front_matter("\xef\xbb\xbf---\r\nlicense: mit\r\n---\r\n", "tiny")
                .find("---\nlicense: mit\nlibrary_name"),
            std::string::npos);
}

TEST(FrontMatter, DamagedHeadsContributeNothing) {
  for (const char* readme : {"---\nlicense: mit\n", "---", "---\n- a list\n---\n",
                             "---\nlicense mit\n---\n", "---\n  indented: first\n---\n",
                             "---\n: x\n---\n", "---\n{a: b}\n---\n", "\n---\na: b\n---\n"})
    EXPECT_EQ(merged_front_matter(readme, "tiny"), kPlain) << readme;
}

TEST(FrontMatter, NamesAreQuoted) {
  EXPECT_NE(merged_front_matter("", "a: \"b\"").find("base_model: \"a: \\\"b\\\"\"\n"),
            std::string::npos);
}

}  // namespace
}  // namespace sluice::convert
