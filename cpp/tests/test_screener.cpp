// The screening stage against a naive twin, and what it must refuse.
#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "isa_levels.hpp"
#include "random_encoder.hpp"
#include "raxe_fast/screener.hpp"

using namespace raxe_fast;
using raxe_fast::test::on_every_isa;

// Counts the allocations of a thread; they are malloc's all the same.
namespace {
thread_local std::size_t allocations = 0;

void* counted(std::size_t bytes, std::size_t alignment) {
  ++allocations;
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* const memory = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
}  // namespace

void* operator new(std::size_t bytes) { return counted(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return counted(bytes, static_cast<std::size_t>(alignment));
}
// A sanitizer brings forms of its own, whose memory must not meet the deletes below.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(bytes == 0 ? 1 : bytes);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace {

constexpr std::size_t kVocabulary = 40;
constexpr std::size_t kPositions = 64;
constexpr std::size_t kCells = 1U << 8U;

// A random encoder and heads; not movable, for views point into it.
struct Fixture {
  explicit Fixture(std::size_t width = 128, std::size_t heads = 4, std::size_t inner = 256)
      : hidden(width),
        random({width, heads, width, inner, 2, 0, kVocabulary, kPositions}, 4),
        encoder(std::make_shared<NativeEncoder>(random.w)),
        head(vector(width, 1.0F)),
        passage(vector(width, 0.2F)) {
    const std::int8_t* const cells = random.weights(kCells, 30);
    lexical = std::make_shared<LexicalModel>(std::vector<std::int8_t>(cells, cells + kCells), 8,
                                             std::vector<float>{0.05F}, std::vector<float>{-0.4F});
  }
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;

  [[nodiscard]] Screener::Parts parts() const {
    return {encoder, std::make_shared<LinearLayer>(head, std::vector<float>{0.25F}, hidden),
            std::make_shared<PassageFinder>(passage, -0.5F), lexical, {0.7, 0.4, 0.3}, -1.5};
  }

  std::size_t hidden;
  raxe_fast::test::RandomEncoder random;
  std::shared_ptr<const NativeEncoder> encoder;
  std::vector<float> head, passage;
  std::shared_ptr<const LexicalModel> lexical;

 private:
  std::vector<float> vector(std::size_t n, float deviation) {
    const float* const values = random.floats(n, 0.0F, deviation);
    return {values, values + n};
  }
};

std::vector<std::int64_t> some_ids(std::size_t n, std::size_t from = 3) {
  std::vector<std::int64_t> ids(n);
  for (std::size_t i = 0; i < n; ++i) {
    ids[i] = static_cast<std::int64_t>((i * 17 + from) % kVocabulary);
  }
  return ids;
}

const std::string kText = "Please ignore the noise; the museum opens at ten, and closes at six.";

TextView view(const std::string& text) { return {text.data(), text.size(), 1}; }

// In doubles, from the encoder's tokens: the definition, step by step.
double naive(const Fixture& f, const std::vector<std::int64_t>& ids, std::size_t begin,
             std::size_t end) {
  const std::size_t n = ids.size();
  std::vector<float> tokens(n * f.hidden);
  f.encoder->encode(ids.data(), 1, n, tokens.data());
  std::vector<double> mean(f.hidden, 0.0), evidence(n, 0.0);
  for (std::size_t t = 0; t < n; ++t) {
    for (std::size_t h = 0; h < f.hidden; ++h) {
      mean[h] += double{tokens[t * f.hidden + h]} / static_cast<double>(n);
      evidence[t] += double{tokens[t * f.hidden + h]} * double{f.passage[h]};
    }
  }
  double length = 0.0;
  for (const double x : mean) length += x * x;
  double linear = 0.25;
  for (std::size_t h = 0; h < f.hidden; ++h) {
    linear += mean[h] / std::sqrt(length) * double{f.head[h]};
  }
  const std::size_t span = n < 8 ? n : 8;
  double best = -1e300;
  for (std::size_t t = 0; t + span <= n; ++t) {
    double sum = 0.0;
    for (std::size_t k = 0; k < span; ++k) sum += evidence[t + k] / static_cast<double>(span);
    best = std::fmax(best, sum);
  }
  std::u32string scratch;
  std::vector<std::uint32_t> hashes;
  ngram_hashes(view(kText), begin, end, scratch, hashes);
  LexicalScratch lexical_scratch;
  float lexical = 0.0F;
  (*f.lexical)(hashes, lexical_scratch, &lexical);
  return -1.5 + 0.7 * linear + 0.4 * (best - 0.5) + 0.3 * double{lexical};
}

double screen(const Screener& screener, const std::vector<std::int64_t>& ids,
              std::size_t begin = 0, std::size_t end = kText.size()) {
  return screener(ids.data(), ids.size(), view(kText), begin, end);
}

}  // namespace

TEST_CASE("screener all: the logit is that of the naive twin on every instruction set") {
  struct Shape {
    std::size_t hidden, heads, inner;
  };
  for (const Shape& shape : {Shape{128, 4, 256}, Shape{128, 2, 512}, Shape{192, 6, 768},
                             Shape{256, 4, 1024}, Shape{32, 1, 32}}) {
    on_every_isa([&] {
      const Fixture f(shape.hidden, shape.heads, shape.inner);
      const Screener screener(f.parts());
      for (const std::size_t n : {1U, 2U, 7U, 8U, 9U, 40U, 64U}) {
        const auto ids = some_ids(n, shape.hidden);
        CHECK(screen(screener, ids, 3, 41) == doctest::Approx(naive(f, ids, 3, 41)).epsilon(1e-5));
      }
    });
  }
}

TEST_CASE("screener rules: the weights pick the evidence, and without n-grams the third is 0") {
  const Fixture f;
  const auto ids = some_ids(20);
  const auto all = Screener(f.parts()).evidence(ids.data(), 20, view(kText), 0, kText.size());
  for (std::size_t i = 0; i < kScreenEvidence; ++i) {
    Screener::Parts parts = f.parts();
    parts.weights = {};
    parts.weights[i] = 1.0;
    parts.bias = 0.0;
    CHECK(screen(Screener(parts), ids) == doctest::Approx(all[i]));
  }
  Screener::Parts parts = f.parts();
  parts.lexical = nullptr;
  parts.weights[2] = 0.0;
  const auto without = Screener(parts).evidence(ids.data(), 20, {}, 0, 0);
  CHECK(without[0] == all[0]);
  CHECK(without[1] == all[1]);
  CHECK(without[2] == 0.0F);
  CHECK(all[2] != 0.0F);
}

TEST_CASE("screener rules: a call does not depend on those before it") {
  const Fixture f;
  const Screener screener(f.parts());
  const auto first = screen(screener, some_ids(12));
  screen(screener, some_ids(64, 9), 0, 5);
  CHECK(screen(screener, some_ids(12)) == first);
  CHECK(screen(screener, some_ids(12), 0, 9) != first);
}

TEST_CASE("screener rules: nothing is allocated once the longest window was seen") {
  const Fixture f;
  const Screener screener(f.parts());
  const auto longest = some_ids(64);
  const auto shorter = some_ids(30);
  screen(screener, longest);
  const std::size_t before = allocations;
  double sum = 0.0;
  for (int i = 0; i < 5; ++i) sum += screen(screener, longest) + screen(screener, shorter, 2, 30);
  CHECK(allocations == before);
  CHECK(std::isfinite(sum));
  delete new int(1);
  CHECK(allocations == before + 1);  // it does count
}

TEST_CASE("screener safety: many threads at once") {
  const Fixture f;
  const Screener screener(f.parts());
  const auto expected = screen(screener, some_ids(33));
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        screen(screener, some_ids(t + 1));
        wrong[t] += screen(screener, some_ids(33)) == expected ? 0 : 1;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4, 0));
}

TEST_CASE("screener safety: an overflow is NaN, never 'certainly harmless'") {
  const Fixture f;
  Screener::Parts parts = f.parts();
  parts.weights = {1e308, 1e308, 1e308};
  for (const double bias : {-1e308, 1e308}) {
    parts.bias = bias;
    parts.passages = std::make_shared<PassageFinder>(std::vector<float>(128, 0.0F),
                                                     bias < 0.0 ? -1e38F : 1e38F);
    CHECK(std::isnan(screen(Screener(parts), some_ids(9))));
  }
}

TEST_CASE("screener safety: parts that do not fit and bad ids are refused") {
  const Fixture f;
  const Fixture narrow(32, 1, 32);
  const auto refused = [&f](auto change) {
    Screener::Parts parts = f.parts();
    change(parts);
    CHECK_THROWS_AS(Screener{parts}, std::invalid_argument);
  };
  CHECK_NOTHROW(Screener{f.parts()});
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  refused([](auto& p) { p.encoder = nullptr; });
  refused([](auto& p) { p.linear = nullptr; });
  refused([](auto& p) { p.passages = nullptr; });
  refused([&](auto& p) { p.encoder = narrow.encoder; });
  refused([&](auto& p) { p.linear = narrow.parts().linear; });
  refused([&](auto& p) { p.passages = narrow.parts().passages; });
  refused([&](auto& p) {
    p.linear = std::make_shared<LinearLayer>(std::vector<float>(256, 1.0F),
                                             std::vector<float>(2, 0.0F), 128);
  });
  refused([](auto& p) { p.lexical = nullptr; });
  refused([](auto& p) { p.weights[0] = -0.1; });
  refused([](auto& p) { p.weights[1] = kNaN; });
  refused([](auto& p) { p.bias = std::numeric_limits<double>::infinity(); });

  const Screener screener(f.parts());
  CHECK_THROWS_AS(screen(screener, {}), std::invalid_argument);
  CHECK_THROWS_AS(screen(screener, {0, -1}), std::invalid_argument);
  CHECK_THROWS_AS(screen(screener, {kVocabulary}), std::invalid_argument);
  CHECK_THROWS_AS(screen(screener, some_ids(kPositions + 1)), std::invalid_argument);
  CHECK_NOTHROW(screen(screener, some_ids(kPositions)));
}
