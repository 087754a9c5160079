// Responses and sessions that are kept: what is forgotten, and which names are none.
#include "server/response_store.h"

#include <gtest/gtest.h>

#include "server/session_store.h"

namespace sluice::server {
namespace {

StoredResponse stored(const std::string& text) {
  return {{{"text", text}}, {{.role = chat::Role::kUser, .content = text}}};
}

TEST(ResponseStore, TheOldestAreForgotten) {
  ResponseStore store(3, 1 << 20);
  for (const char* id : {"a", "b", "c", "d"}) store.keep(id, stored(id));
  EXPECT_EQ(store.size(), 3u);
  EXPECT_EQ(store.find("a"), nullptr);
  ASSERT_NE(store.find("d"), nullptr);
  EXPECT_EQ(store.find("d")->conversation.front().content, "d");
  EXPECT_TRUE(store.remove("c"));
  EXPECT_FALSE(store.remove("c"));
  store.keep("b", stored("again"));
  store.keep("e", stored("e"));
  EXPECT_EQ(store.find("b")->response["text"], "again");
  EXPECT_NE(store.find("d"), nullptr);
}

TEST(ResponseStore, BytesAreBounded) {
  ResponseStore store(100, 10'000);
  for (int i = 0; i < 20; ++i) store.keep(std::to_string(i), stored(std::string(900, 'x')));
  EXPECT_LE(store.bytes(), 10'000u);
  EXPECT_NE(store.find("19"), nullptr);
  EXPECT_EQ(store.find("0"), nullptr);
  store.keep("huge", stored(std::string(20'000, 'x')));
  EXPECT_EQ(store.find("huge"), nullptr);
  EXPECT_NE(store.find("19"), nullptr);
  for (int i = 0; i < 20; ++i) store.remove(std::to_string(i));
  EXPECT_EQ(store.bytes(), 0u);
}

TEST(SessionStore, Names) {
  for (const std::string_view name : {"a", "A-1_b.c", "0", "a..b"})
    EXPECT_TRUE(check_session_name(name).has_value()) << name;
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"), std::string("a b"),
        std::string("a\\b"), std::string("a\0b", 3), std::string("ä"), std::string(65, 'a')}) {
    const Status status = check_session_name(name);
    ASSERT_FALSE(status.has_value()) << name;
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace sluice::server
