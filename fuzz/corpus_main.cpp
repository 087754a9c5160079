// For compilers without libFuzzer: runs a fuzz target once over every file of its corpus, then over
// mutations of them, blindly, for some seconds. What CI runs under sanitizers; hunting is the fuzz
// preset's business.
//
//   TARGET [-seconds=S] [-runs=N] FILE_OR_FOLDER...
//
// The sequence of mutations follows from SLUICE_TEST_SEED alone, which is printed.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Bytes = std::vector<std::uint8_t>;
using Random = std::mt19937_64;

void run(const Bytes& input) {
  // A copy of exactly this size lets the address sanitizer see the first byte read past the end.
  const Bytes copy(input.begin(), input.end());
  LLVMFuzzerTestOneInput(copy.data(), copy.size());
}

Bytes read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return Bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
}

// Numbers at which arithmetic on sizes goes wrong, as binary and as text.
constexpr std::uint64_t kEdges[] = {
    0,          1,          0x7f,        0x80,       0xff,       0x7fff,     0xffff,    0x7fffffff,
    0x80000000, 0xffffffff, 0x100000000, 1ull << 53, 1ull << 62, 1ull << 63, ~0ull - 7, ~0ull};
constexpr std::string_view kWords[] = {"-1",
                                       "0",
                                       "1e400",
                                       "-0.0",
                                       "1e-320",
                                       "18446744073709551615",
                                       "9223372036854775808",
                                       "null",
                                       "true",
                                       "{}",
                                       "[]",
                                       "\"\"",
                                       "\\u0000",
                                       "{",
                                       "}",
                                       "[",
                                       "]",
                                       ",",
                                       ":",
                                       "\"",
                                       "\n"};

void mutate(Bytes& bytes, const std::vector<Bytes>& corpus, Random& random) {
  const auto below = [&](std::size_t limit) { return limit == 0 ? 0 : random() % limit; };
  const std::size_t at = below(bytes.size() + 1);
  const auto place = bytes.begin() + static_cast<std::ptrdiff_t>(at);
  switch (random() % 8) {
    case 0:  // a bit
      if (at < bytes.size()) bytes[at] ^= static_cast<std::uint8_t>(1u << (random() % 8));
      break;
    case 1:  // a byte
      if (at < bytes.size()) bytes[at] = static_cast<std::uint8_t>(random());
      break;
    case 2:  // cut out
      bytes.erase(place, place + static_cast<std::ptrdiff_t>(below(bytes.size() - at + 1)));
      break;
    case 3: {  // repeat
      const Bytes part(place, place + static_cast<std::ptrdiff_t>(below(
                                          std::min<std::size_t>(bytes.size() - at, 256) + 1)));
      bytes.insert(place, part.begin(), part.end());
      break;
    }
    case 4: {  // an edge of 1, 2, 4 or 8 bytes
      const std::uint64_t edge = kEdges[below(std::size(kEdges))];
      for (std::size_t i = 0; i < (std::size_t{1} << (random() % 4)) && at + i < bytes.size(); ++i)
        bytes[at + i] = static_cast<std::uint8_t>(edge >> (8 * i));
      break;
    }
    case 5: {  // a word, in place of a run of digits where there is one
      const std::string_view word = kWords[below(std::size(kWords))];
      auto first = std::find_if(place, bytes.end(), [](auto c) { return c >= '0' && c <= '9'; });
      const auto last = std::find_if(first, bytes.end(), [](auto c) { return c < '0' || c > '9'; });
      first = bytes.erase(first, last);
      bytes.insert(first, word.begin(), word.end());
      break;
    }
    case 6:  // truncate
      bytes.resize(at);
      break;
    default: {  // the rest of another one
      const Bytes& other = corpus[below(corpus.size())];
      const std::size_t from = below(other.size() + 1);
      bytes.resize(at);
      bytes.insert(bytes.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = 0;
  std::uint64_t runs_max = UINT64_MAX;
  std::vector<std::filesystem::path> paths;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.starts_with("-seconds=")) {
      seconds = std::atof(argv[i] + 9);
    } else if (argument.starts_with("-runs=")) {
      runs_max = std::strtoull(argv[i] + 6, nullptr, 10);
    } else if (std::filesystem::is_directory(argument)) {
      for (const auto& entry : std::filesystem::recursive_directory_iterator(argument))
        if (entry.is_regular_file()) paths.push_back(entry.path());
    } else {
      paths.emplace_back(argument);
    }
  }
  std::ranges::sort(paths);
  std::vector<Bytes> corpus = {Bytes()};
  for (const auto& path : paths) corpus.push_back(read_file(path));
  for (const Bytes& input : corpus) run(input);

  const char* text = std::getenv("SLUICE_TEST_SEED");
  const std::uint64_t seed = text != nullptr ? std::strtoull(text, nullptr, 10) : 1;
  std::printf("SLUICE_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  Random random(seed);
  std::uint64_t runs = 0;
  const auto start = std::chrono::steady_clock::now();
  const auto left = [&] {
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    return passed.count() < seconds;
  };
  for (; runs < runs_max && left(); ++runs) {
    Bytes input = corpus[random() % corpus.size()];
    for (std::uint64_t changes = 1 + random() % 4; changes > 0; --changes)
      mutate(input, corpus, random);
    run(input);
  }
  std::printf("ran %zu corpus inputs and %llu mutations\n", corpus.size(),
              static_cast<unsigned long long>(runs));
  return 0;
}
