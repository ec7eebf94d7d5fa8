// Differential fuzzing of TriggerSet against the naive matcher: the input bytes choose the patterns
// and the text.
//
//   clang++ -fsanitize=fuzzer,address,undefined ... fuzz_triggers.cpp
//   g++ -DRAXE_FAST_FUZZ_MAIN ... fuzz_triggers.cpp; ./a.out [runs [seed]], or ./a.out FILE...
#include <cstdio>
#include <cstdlib>

#include "../tests/naive_triggers.hpp"

namespace {

using namespace raxe_fast;

void print(const char* title, const std::vector<TriggerMatch>& matches) {
  std::fprintf(stderr, "%s:", title);
  for (const TriggerMatch& m : matches) {
    std::fprintf(stderr, " %u[%u,%u)", m.trigger, m.begin, m.end);
  }
  std::fprintf(stderr, "\n");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::size_t used = 0;
  const naive::Draw draw = [&](std::uint32_t n) {
    return used < size ? data[used++] % n : 0U;
  };
  const naive::Case made = naive::random_case(draw);
  const TextView text{made.text.data(), made.text.size(), 4};
  static TriggerScratch scratch;
  const TriggerSet set(made.specs);
  std::vector<TriggerMatch> found;
  set.match(text, scratch, found);
  const std::vector<TriggerMatch> expected = naive::match(made.specs, text);
  if (found != expected) {
    print("expected", expected);
    print("found", found);
    std::abort();
  }
  return 0;
}

#ifdef RAXE_FAST_FUZZ_MAIN
#include <fstream>
#include <iterator>
#include <random>

int main(int argc, char** argv) {
  char* rest = nullptr;
  const unsigned long runs = argc > 1 ? std::strtoul(argv[1], &rest, 10) : 20000;
  if (rest != nullptr && *rest != '\0') {
    for (int i = 1; i < argc; ++i) {
      std::ifstream file(argv[i], std::ios::binary);
      const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
      LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
    }
    return 0;
  }
  std::mt19937_64 random(argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 1);
  std::vector<std::uint8_t> bytes;
  for (unsigned long run = 0; run < runs; ++run) {
    bytes.resize(random() % 400);
    for (std::uint8_t& byte : bytes) {
      byte = static_cast<std::uint8_t>(random());
    }
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("%lu inputs agree\n", runs);
  return 0;
}
#endif
