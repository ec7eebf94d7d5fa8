// Differential fuzzing against naive twins: of TriggerSet, and of the n-grams and statistics of a
// window of the same text. The input bytes choose the patterns, the text and the window.
//
//   clang++ -fsanitize=fuzzer,address,undefined ... fuzz_triggers.cpp
//   g++ -DRAXE_FAST_FUZZ_MAIN ... fuzz_triggers.cpp; ./a.out [runs [seed]], or ./a.out FILE...
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "../tests/naive_ngrams.hpp"
#include "../tests/naive_surface.hpp"
#include "../tests/naive_triggers.hpp"
#include "raxe_fast/lexical.hpp"
#include "raxe_fast/surface.hpp"

namespace {

using namespace raxe_fast;

void print(const char* title, const std::vector<TriggerMatch>& matches) {
  std::fprintf(stderr, "%s:", title);
  for (const TriggerMatch& m : matches) {
    std::fprintf(stderr, " %u[%u,%u)", m.trigger, m.begin, m.end);
  }
  std::fprintf(stderr, "\n");
}

void check_features(TextView text, std::size_t begin, std::size_t end) {
  static std::u32string scratch;
  std::vector<std::uint32_t> hashes;
  ngram_hashes(text, begin, end, scratch, hashes);
  std::sort(hashes.begin(), hashes.end());
  if (hashes != naive::hashes(text, begin, end)) {
    std::fprintf(stderr, "n-grams of [%zu,%zu) differ\n", begin, end);
    std::abort();
  }
  float found[kSurface];
  surface_statistics(text, begin, end, found);
  std::u32string window;
  for (std::size_t i = begin; i < std::min(end, text.length); ++i) window.push_back(text[i]);
  const std::vector<double> expected = naive::surface(window);
  for (std::size_t k = 0; k < kSurface; ++k) {
    const double error = std::fabs(static_cast<double>(found[k]) - expected[k]);
    if (!(error <= 1e-6 * (1.0 + std::fabs(expected[k])))) {
      std::fprintf(stderr, "statistic %zu of [%zu,%zu) differs\n", k, begin, end);
      std::abort();
    }
  }
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
  const std::size_t begin = draw(32);
  check_features(text, begin, begin + draw(64));
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
