#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "isa_levels.hpp"
#include "raxe_fast/pooling.hpp"

using namespace raxe_fast;
using raxe_fast::test::on_every_isa;

namespace {

std::vector<float> pool(const std::vector<float>& tokens, std::size_t hidden,
                        const std::vector<std::uint8_t>* mask = nullptr) {
  std::vector<float> out(hidden, -7.0F);
  mean_pool_l2(tokens.data(), tokens.size() / hidden, hidden,
               mask == nullptr ? nullptr : mask->data(), out.data());
  return out;
}

// The slow, obvious twin.
std::vector<double> reference(const std::vector<float>& tokens, std::size_t hidden,
                              const std::vector<std::uint8_t>* mask) {
  std::vector<double> mean(hidden, 0.0);
  std::size_t used = 0;
  for (std::size_t i = 0; i < tokens.size() / hidden; ++i) {
    if (mask != nullptr && (*mask)[i] == 0) continue;
    ++used;
    for (std::size_t j = 0; j < hidden; ++j) {
      mean[j] += static_cast<double>(tokens[i * hidden + j]);
    }
  }
  double square = 0.0;
  for (double& value : mean) {
    value /= std::fmax(static_cast<double>(used), 1e-9);
    square += value * value;
  }
  for (double& value : mean) value /= std::fmax(std::sqrt(square), 1e-12);
  return mean;
}

}  // namespace

TEST_CASE("pooling unit: literals") {
  on_every_isa([] {
    CHECK(pool({3.0F, 4.0F}, 2) == std::vector<float>{0.6F, 0.8F});
    CHECK(pool({1.0F, 0.0F, 0.0F, 1.0F}, 2) ==
          std::vector<float>{static_cast<float>(std::sqrt(0.5)),
                             static_cast<float>(std::sqrt(0.5))});
    CHECK(pool({-2.0F}, 1) == std::vector<float>{-1.0F});
    CHECK(pool({1.0F, 1.0F, -1.0F, -1.0F}, 2) == std::vector<float>{0.0F, 0.0F});
    const std::vector<std::uint8_t> mask{1, 0, 255};
    CHECK(pool({3.0F, 0.0F, 100.0F, 100.0F, 3.0F, 8.0F}, 2, &mask) ==
          std::vector<float>{0.6F, 0.8F});
  });
}

TEST_CASE("pooling rules: nothing to pool gives zeros") {
  on_every_isa([] {
    const std::vector<std::uint8_t> none{0, 0};
    CHECK(pool(std::vector<float>(2 * 37, 5.0F), 37, &none) == std::vector<float>(37, 0.0F));
    std::vector<float> out(384, 1.0F);
    mean_pool_l2(nullptr, 0, 384, nullptr, out.data());
    CHECK(out == std::vector<float>(384, 0.0F));
    CHECK(pool(std::vector<float>(3 * 20, 0.0F), 20) == std::vector<float>(20, 0.0F));
  });
}

TEST_CASE("pooling rules: a masked token never matters, not even NaN") {
  on_every_isa([] {
    std::vector<float> tokens(3 * 40, 1.0F);
    for (std::size_t j = 40; j < 80; ++j) tokens[j] = std::numeric_limits<float>::quiet_NaN();
    const std::vector<std::uint8_t> mask{1, 0, 1};
    for (const float value : pool(tokens, 40, &mask)) {
      CHECK(value == doctest::Approx(1.0 / std::sqrt(40.0)));
    }
  });
}

TEST_CASE("pooling rules: huge and tiny means keep unit length") {
  on_every_isa([] {
    for (const float scale : {1e30F, 1e-11F}) {
      const auto out = pool(std::vector<float>(2 * 24, scale), 24);
      CHECK(out[23] == doctest::Approx(1.0 / std::sqrt(24.0)).epsilon(1e-6));
    }
    // Below the clamp the vector shrinks with its mean, as in the recipe.
    CHECK(pool({1e-13F}, 1)[0] == doctest::Approx(0.1).epsilon(1e-6));
  });
}

TEST_CASE("pooling safety: NaN and infinity reach the output at every position") {
  on_every_isa([] {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()}) {
      for (std::size_t at = 0; at < 29; ++at) {
        std::vector<float> tokens(2 * 29, 1.0F);
        tokens[29 + at] = bad;
        CHECK(std::isnan(pool(tokens, 29)[at]));
      }
    }
  });
}

TEST_CASE("pooling safety: reads and writes stay inside exact-size buffers, any alignment") {
  on_every_isa([] {
    for (std::size_t hidden = 1; hidden <= 70; ++hidden) {
      for (std::size_t count = 0; count <= 3; ++count) {
        // Heap blocks of the exact size: AddressSanitizer sees one byte too many.
        std::vector<float> tokens(count * hidden, 0.5F);
        const auto out = pool(tokens, hidden);
        CHECK(out.size() == hidden);
        std::vector<float> shifted(count * hidden + 1, 0.5F);
        std::vector<float> again(hidden + 1, 9.0F);
        mean_pool_l2(shifted.data() + 1, count, hidden, nullptr, again.data() + 1);
        CHECK(std::vector<float>(again.begin() + 1, again.end()) == out);
        CHECK(again[0] == 9.0F);
      }
    }
  });
}

TEST_CASE("pooling all: every instruction set agrees with the reference") {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.1F, 1.0F);
  for (const std::size_t hidden : {1U, 7U, 8U, 15U, 16U, 31U, 95U, 97U, 128U, 383U, 384U, 400U,
                                   768U, 773U}) {
    for (const std::size_t count : {1U, 2U, 17U, 64U, 256U}) {
      std::vector<float> tokens(count * hidden);
      for (float& value : tokens) value = normal(random);
      std::vector<std::uint8_t> mask(count);
      for (auto& value : mask) value = static_cast<std::uint8_t>(random() % 3);
      for (const auto* use : {static_cast<const std::vector<std::uint8_t>*>(nullptr),
                              static_cast<const std::vector<std::uint8_t>*>(&mask)}) {
        const auto expected = reference(tokens, hidden, use);
        on_every_isa([&] {
          const auto out = pool(tokens, hidden, use);
          double worst = 0.0;
          for (std::size_t j = 0; j < hidden; ++j) {
            worst = std::fmax(worst, std::abs(static_cast<double>(out[j]) - expected[j]));
          }
          CAPTURE(hidden);
          CAPTURE(count);
          CHECK(worst < 1e-6);
        });
      }
    }
  }
}
