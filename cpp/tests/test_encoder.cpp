// The encoder's kernels against naive doubles, and each other to the last bit.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "encoder_kernels.hpp"
#include "encoder_pack.hpp"
#include "isa_levels.hpp"
#include "raxe_fast/cpu.hpp"

using namespace raxe_fast;
using raxe_fast::detail::EncoderKernels;
using raxe_fast::detail::HeadScratch;
using raxe_fast::detail::HeadShape;
using raxe_fast::detail::Norm;
using raxe_fast::detail::PackedStore;
using raxe_fast::detail::QuantizedRows;
using raxe_fast::test::on_every_isa;

namespace {

const EncoderKernels& kernels() { return detail::encoder_kernels(active_isa()); }

// Every bit, NaN and signed zeros included.
bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

struct Bytes {
  std::vector<std::uint8_t> values;
  std::vector<float> scale, low;

  // With what tiles read beyond.
  Bytes(std::size_t rows, std::size_t width)
      : values((rows + detail::kTileRows - 1) / detail::kTileRows * detail::kTileRows * width +
                   detail::kTileInputs,
               7), scale(rows, -7.0F), low(rows, -7.0F) {}
  QuantizedRows view() { return {values.data(), scale.data(), low.data()}; }
  bool operator==(const Bytes& other) const {
    return values == other.values && same_bits(scale, other.scale) && same_bits(low, other.low);
  }
};

std::vector<float> normals(std::size_t n, float deviation, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0F, deviation);
  std::vector<float> values(n);
  for (float& value : values) value = normal(random);
  return values;
}

// Runs `body`, which returns what a kernel made, on every instruction set: all alike. Returns it.
template <typename Body>
auto alike(Body body) {
  force_isa(Isa::scalar);
  const auto expected = body();
  on_every_isa([&] { CHECK(body() == expected); });
  return expected;
}

// Floats by their bits, so that == is equality of bits.
std::vector<std::uint32_t> bits(const std::vector<float>& values) {
  std::vector<std::uint32_t> out(values.size());
  std::memcpy(out.data(), values.data(), values.size() * sizeof(float));
  return out;
}

std::vector<float> floats(const std::vector<std::uint32_t>& values) {
  std::vector<float> out(values.size());
  std::memcpy(out.data(), values.data(), values.size() * sizeof(float));
  return out;
}

double exact_gelu(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }

}  // namespace

TEST_CASE("encoder unit: quantisation of a row, literals") {
  on_every_isa([] {
    std::vector<float> row(32, 0.0F);
    row[0] = -1.0F;
    row[1] = 254.0F;
    row[2] = 100.4F;
    row[31] = 254.0F;
    Bytes out(1, 32);
    kernels().quantize(row.data(), 1, 32, out.view());
    CHECK(out.scale[0] == 1.0F);
    CHECK(out.low[0] == -1.0F);
    CHECK(out.values[0] == 0);
    CHECK(out.values[1] == 255);
    CHECK(out.values[2] == 101);
    CHECK(out.values[3] == 1);
    CHECK(out.values[31] == 255);
  });
}

TEST_CASE("encoder rules: quantised rows are within half a step; constant rows are exact") {
  std::mt19937 random(1);
  for (const std::size_t width : {32U, 96U, 384U, 1536U}) {
    for (const float scale : {1e-3F, 1.0F, 1e4F}) {
      const auto rows = normals(5 * width, scale, random);
      on_every_isa([&] {
        Bytes out(5, width);
        kernels().quantize(rows.data(), 5, width, out.view());
        double worst = 0.0;
        for (std::size_t i = 0; i < rows.size(); ++i) {
          const double step = double{out.scale[i / width]};
          const double back = step * out.values[i] + double{out.low[i / width]};
          worst = std::fmax(worst, std::abs(back - double{rows[i]}) / step);
        }
        CHECK(worst < 0.501);
      });
    }
  }
  for (const float value : {0.0F, -3.5F, 1e-30F, 7e5F}) {
    const std::vector<float> row(64, value);
    on_every_isa([&] {
      Bytes out(1, 64);
      kernels().quantize(row.data(), 1, 64, out.view());
      CHECK(out.low[0] == value);
      CHECK(std::all_of(out.values.begin(), out.values.begin() + 64, [](int v) { return v == 0; }));
    });
  }
}

TEST_CASE("encoder safety: what is not finite is quantised to something") {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity(), 3e38F}) {
    on_every_isa([&] {
      std::vector<float> row(64, 1.0F);
      row[40] = bad;
      row[41] = -bad;
      Bytes out(1, 64);
      kernels().quantize(row.data(), 1, 64, out.view());
      kernels().gelu(row.data(), 1, 64, out.view());
      const std::vector<float> ones(64, 1.0F);
      const Norm norm{ones.data(), ones.data(), 1e-12F};
      kernels().norm(row.data(), nullptr, norm, 1, 64, row.data(), out.view());
      if (std::abs(bad) < 3.1e38F) return;
      CHECK(std::all_of(row.begin(), row.end(), [](float x) { return std::isnan(x); }));
    });
  }
}

TEST_CASE("encoder all: gelu is within 1e-4 everywhere, and the same everywhere") {
  constexpr std::size_t kWidth = 32 * 4096;
  std::vector<float> x(kWidth);
  for (std::size_t i = 0; i < kWidth; ++i) {
    x[i] = -16.0F + 32.0F * static_cast<float>(i) / static_cast<float>(kWidth - 1);
  }
  const auto out = alike([&x] {
    std::vector<float> y = x;
    Bytes quantized(1, kWidth);
    kernels().gelu(y.data(), 1, kWidth, quantized.view());
    for (const std::uint8_t value : quantized.values) y.push_back(value);
    return bits(y);
  });
  const auto y = floats(out);
  double worst = 0.0;
  for (std::size_t i = 0; i < kWidth; ++i) {
    worst = std::fmax(worst, std::abs(double{y[i]} - exact_gelu(double{x[i]})));
  }
  CHECK(worst < 1e-4);
}

TEST_CASE("encoder all: norm equals doubles, with and without residual, in place") {
  std::mt19937 random(2);
  for (const std::size_t width : {32U, 64U, 96U, 384U, 768U, 1024U}) {
    const std::size_t rows = 3;
    auto x = normals(rows * width, 2.0F, random);
    for (std::size_t i = 0; i < width; ++i) x[i] += 30.0F;
    const auto residual = normals(rows * width, 1.0F, random);
    const auto gamma = normals(width, 1.0F, random);
    const auto beta = normals(width, 1.0F, random);
    const Norm norm{gamma.data(), beta.data(), 1e-5F};
    for (const bool with : {false, true}) {
      const auto out = floats(alike([&] {
        auto y = with ? residual : x;
        Bytes quantized(rows, width);
        kernels().norm(x.data(), with ? y.data() : nullptr, norm, rows, width, y.data(),
                       quantized.view());
        Bytes again(rows, width);
        kernels().quantize(y.data(), rows, width, again.view());
        CHECK(quantized == again);
        std::vector<float> plain(rows * width);
        kernels().norm(x.data(), with ? residual.data() : nullptr, norm, rows, width,
                       plain.data(), QuantizedRows{});
        CHECK(same_bits(plain, y));
        return bits(y);
      }));
      for (std::size_t r = 0; r < rows; ++r) {
        std::vector<double> v(width);
        double mean = 0.0;
        for (std::size_t i = 0; i < width; ++i) {
          v[i] = double{x[r * width + i]} + (with ? double{residual[r * width + i]} : 0.0);
          mean += v[i] / static_cast<double>(width);
        }
        double variance = 0.0;
        for (const double a : v) variance += (a - mean) * (a - mean) / static_cast<double>(width);
        double worst = 0.0;
        for (std::size_t i = 0; i < width; ++i) {
          const double y =
              (v[i] - mean) / std::sqrt(variance + 1e-5) * double{gamma[i]} + double{beta[i]};
          worst = std::fmax(worst, std::abs(y - double{out[r * width + i]}));
        }
        CHECK(worst < 1e-4);
      }
    }
  }
}

TEST_CASE("encoder all: embeddings are words plus positions, normalised") {
  std::mt19937 random(3);
  const std::size_t width = 96;
  std::vector<std::int8_t> words(20 * width);
  for (auto& w : words) w = static_cast<std::int8_t>(static_cast<int>(random() % 255) - 127);
  const auto scale = normals(20, 0.01F, random);
  const auto position = normals(10 * width, 0.1F, random);
  std::vector<std::int8_t> pairs(9 * width);
  for (auto& p : pairs) p = static_cast<std::int8_t>(static_cast<int>(random() % 255) - 127);
  const auto pair_scale = normals(9, 0.01F, random);
  const std::vector<float> gamma(width, 1.0F);
  const std::vector<float> beta(width, 0.0F);
  const Norm norm{gamma.data(), beta.data(), 1e-12F};
  const std::vector<std::int64_t> ids{19, 0, 7};
  const std::vector<std::uint32_t> pair_rows{8, 3, 0};
  for (const bool paired : {false, true}) {
    const auto out = floats(alike([&] {
      std::vector<float> hidden(3 * width);
      Bytes quantized(3, width);
      kernels().embed({words.data(), scale.data(), position.data(),
                       paired ? pairs.data() : nullptr, pair_scale.data()},
                      norm, ids.data(), paired ? pair_rows.data() : nullptr, 2, 3, width,
                      hidden.data(), quantized.view());
      return bits(hidden);
    }));
    std::vector<float> sums(3 * width);
    for (std::size_t r = 0; r < 3; ++r) {
      for (std::size_t i = 0; i < width; ++i) {
        const auto id = static_cast<std::size_t>(ids[r]);
        sums[r * width + i] = static_cast<float>(words[id * width + i]) * scale[id] +
                              position[(2 + r) * width + i];
        if (paired) {
          sums[r * width + i] += static_cast<float>(pairs[pair_rows[r] * width + i]) *
                                 pair_scale[pair_rows[r]];
        }
      }
    }
    std::vector<float> expected(3 * width);
    kernels().norm(sums.data(), nullptr, norm, 3, width, expected.data(), QuantizedRows{});
    for (std::size_t i = 0; i < out.size(); ++i) {
      CHECK(out[i] == doctest::Approx(double{expected[i]}).epsilon(1e-4));
    }
  }
}

TEST_CASE("encoder all: linear layers equal doubles at every number of rows and columns") {
  std::mt19937 random(4);
  for (const std::size_t inputs : {32U, 64U, 160U, 384U, 1536U}) {
    for (const std::size_t outputs : {16U, 32U, 48U, 64U, 96U, 112U, 384U}) {
      // 0: random weights; 1: the largest of one sign; 2: of both.
      for (const int kind : {0, 1, 2}) {
        detail::Columns columns;
        columns.inputs = inputs;
        columns.weight.resize(inputs * outputs);
        for (auto& w : columns.weight) {
          const int any = static_cast<int>(random() % 129) - 64;
          const int extreme = kind == 1 ? 64 : (random() % 2 == 0 ? 64 : -64);
          w = static_cast<std::int8_t>(kind == 0 ? any : extreme);
        }
        columns.scale = normals(outputs, 0.01F, random);
        columns.bias = normals(outputs, 1.0F, random);
        for (const std::size_t rows : {1U, 2U, 3U, 5U, 7U, 8U, 9U, 13U, 33U}) {
          if (outputs > 96 && rows > 5) continue;
          Bytes x(rows, inputs);
          for (auto& v : x.values) {
            v = static_cast<std::uint8_t>(kind == 0 ? random() % 256 : 255);
          }
          x.scale = normals(rows, 0.1F, random);
          x.low = normals(rows, 1.0F, random);
          const auto out = floats(alike([&] {
            const PackedStore packed(columns, kernels());
            std::vector<float> y(rows * outputs, -7.0F);
            kernels().linear(packed.layer(), x.view(), rows, y.data());
            return bits(y);
          }));
          double worst = 0.0;
          for (std::size_t r = 0; r < rows; ++r) {
            for (std::size_t n = 0; n < outputs; ++n) {
              double sum = 0.0;
              double size = 1.0;
              for (std::size_t k = 0; k < inputs; ++k) {
                const double w =
                    columns.weight[n * inputs + k] * static_cast<double>(columns.scale[n]);
                const double v = x.values[r * inputs + k] * static_cast<double>(x.scale[r]);
                const double low = static_cast<double>(x.low[r]);
                sum += w * (v + low);
                size += std::abs(w) * (std::abs(v) + std::abs(low));
              }
              const double y = sum + static_cast<double>(columns.bias[n]);
              worst = std::fmax(worst,
                                std::abs(y - static_cast<double>(out[r * outputs + n])) / size);
            }
          }
          CAPTURE(inputs);
          CAPTURE(outputs);
          CAPTURE(rows);
          CAPTURE(kind);
          CHECK(worst < 1e-6);
        }
      }
    }
  }
}

TEST_CASE("encoder all: gelu of a linear layer is what both in turn give, to the bit") {
  std::mt19937 random(11);
  constexpr std::size_t kIn = 96;
  for (const std::size_t outputs : {32U, 96U, 160U}) {
    detail::Columns columns;
    columns.inputs = kIn;
    columns.weight.resize(kIn * outputs);
    for (auto& w : columns.weight) w = static_cast<std::int8_t>(static_cast<int>(random() % 129) - 64);
    columns.scale = normals(outputs, 0.001F, random);
    columns.bias = normals(outputs, 1.0F, random);
    for (const std::size_t rows : {1U, 7U, 16U, 17U, 31U, 32U}) {
      CAPTURE(outputs);
      CAPTURE(rows);
      Bytes x(rows, kIn);
      for (auto& v : x.values) v = static_cast<std::uint8_t>(random() % 256);
      x.scale = normals(rows, 0.1F, random);
      x.low = normals(rows, 1.0F, random);
      (void)alike([&] {
        const PackedStore packed(columns, kernels());
        std::vector<float> y(rows * outputs);
        Bytes apart(rows, outputs);
        kernels().linear(packed.layer(), x.view(), rows, y.data());
        kernels().gelu(y.data(), rows, outputs, apart.view());
        std::vector<float> floats_(rows * outputs);
        Bytes fused(rows, outputs);
        kernels().linear_gelu(packed.layer(), x.view(), rows, floats_.data(), fused.view());
        CHECK(fused.values == apart.values);
        CHECK(bits(fused.scale) == bits(apart.scale));
        CHECK(bits(fused.low) == bits(apart.low));
        return bits(fused.scale);
      });
    }
  }
}

TEST_CASE("encoder unit: what could overflow int16 is moved to the end, and only that") {
  if (detected_isa() < Isa::avx2) return;
  force_isa(Isa::avx2);
  detail::Columns columns;
  columns.inputs = 32;
  columns.weight.assign(16 * 32, 1);
  columns.scale.assign(16, 1.0F);
  columns.bias.assign(16, 0.0F);
  CHECK(PackedStore(columns, kernels()).late() == 0);
  // 64 + 64 of one step and 64 of the next: too much; of both signs: not.
  auto* const w = columns.weight.data() + 3 * 32;
  w[8] = w[9] = w[12] = 64;
  w[13] = 0;
  CHECK(PackedStore(columns, kernels()).late() == 1);
  w[12] = -64;
  CHECK(PackedStore(columns, kernels()).late() == 0);
  // Two of them in one step count once; halves of a step are apart.
  w[12] = w[14] = w[15] = w[10] = 64;
  CHECK(PackedStore(columns, kernels()).late() == 1);
  w[12] = w[8] = 0;
  CHECK(PackedStore(columns, kernels()).late() == 1);
  w[15] = w[11] = 0;
  CHECK(PackedStore(columns, kernels()).late() == 0);
  force_isa(detected_isa());
}

namespace {

struct HeadCase {
  std::size_t tokens, head;
  [[nodiscard]] std::size_t padded() const { return (head + 31) / 32 * 32; }
};

std::vector<float> attend(const std::vector<float>& rows, const HeadCase& c, std::size_t stride) {
  const std::size_t even = (c.tokens + 15) / 16 * 16;
  // Exact sizes: AddressSanitizer sees one element too many.
  std::vector<std::int16_t> query(even * c.padded()), key(even * c.padded()),
      value(even * c.padded()), weight(detail::kScoreRows * even);
  std::vector<float> score(detail::kScoreRows * even);
  std::vector<float> out((c.tokens - 1) * stride + c.head, -7.0F);
  const HeadShape shape{c.tokens, c.head, c.padded()};
  kernels().attend(rows.data(), shape, 1.0F / std::sqrt(static_cast<float>(c.head)),
                   HeadScratch{query.data(), key.data(), value.data(), score.data(), weight.data()},
                   out.data(), stride);
  return out;
}

}  // namespace

TEST_CASE("encoder all: attention equals doubles at every length and head size") {
  std::mt19937 random(5);
  for (const std::size_t head : {8U, 12U, 20U, 32U, 40U, 64U, 96U, 128U}) {
    for (const std::size_t tokens : {1U, 2U, 3U, 7U, 8U, 9U, 15U, 16U, 17U, 31U, 33U, 50U, 127U}) {
      const HeadCase c{tokens, head};
      const std::size_t width = 3 * c.padded();
      std::vector<float> rows(tokens * width, 0.0F);
      for (std::size_t i = 0; i < 3 * tokens; ++i) {
        const auto part = normals(head, i % 3 == 2 ? 0.5F : 1.2F, random);
        std::copy(part.begin(), part.end(),
                  rows.begin() + static_cast<std::ptrdiff_t>(i * c.padded()));
      }
      const std::size_t stride = head + 5;
      const auto out = floats(alike([&] { return bits(attend(rows, c, stride)); }));
      double peak = 0.0;
      for (const float x : rows) peak = std::fmax(peak, std::abs(double{x}));
      double worst = 0.0;
      for (std::size_t i = 0; i < tokens; ++i) {
        std::vector<double> weight(tokens);
        double highest = -1e300;
        for (std::size_t k = 0; k < tokens; ++k) {
          for (std::size_t d = 0; d < head; ++d) {
            weight[k] += double{rows[i * width + d]} * double{rows[k * width + c.padded() + d]};
          }
          weight[k] /= std::sqrt(static_cast<double>(head));
          highest = std::fmax(highest, weight[k]);
        }
        double total = 0.0;
        for (double& w : weight) total += w = std::exp(w - highest);
        for (std::size_t d = 0; d < head; ++d) {
          double y = 0.0;
          for (std::size_t k = 0; k < tokens; ++k) {
            y += weight[k] / total * double{rows[k * width + 2 * c.padded() + d]};
          }
          worst = std::fmax(worst, std::abs(y - double{out[i * stride + d]}));
        }
        for (std::size_t d = head; d < stride && i + 1 < tokens; ++d) {
          CHECK(out[i * stride + d] == -7.0F);
        }
      }
      CAPTURE(head);
      CAPTURE(tokens);
      // 8 bits of queries, keys, values and weights; the variants agree to the bit.
      CHECK(worst < 2e-2 * peak);
    }
  }
}

TEST_CASE("encoder safety: attention at the edges of its integers") {
  // Many tokens at full levels, all products of one sign.
  for (const float sign : {1.0F, -1.0F}) {
    for (const std::size_t head : {32U, 128U}) {
      const HeadCase c{512, head};
      std::vector<float> rows(512 * 3 * head, 1.0F);
      for (std::size_t i = 0; i < rows.size(); ++i) {
        if (i / head % 3 != 0) rows[i] = sign;
      }
      const auto out = floats(alike([&] { return bits(attend(rows, c, head)); }));
      CHECK(std::all_of(out.begin(), out.end(), [sign](float x) {
        return std::abs(x - sign) < 1e-5F;
      }));
    }
  }
  // Nothing at all: the mean of values that are zero, also with a tail of masked keys.
  const std::vector<float> nothing(19 * 96, 0.0F);
  on_every_isa([&] { CHECK(attend(nothing, {19, 32}, 32) == std::vector<float>(19 * 32, 0.0F)); });
  // Queries and keys of zero weigh all tokens alike, those beyond the end not at all.
  std::vector<float> rows(19 * 96, 0.0F);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = i / 32 % 3 == 2 ? 1.0F : 0.0F;
  on_every_isa([&] {
    for (const float x : attend(rows, {19, 32}, 32)) CHECK(x == doctest::Approx(1.0).epsilon(1e-5));
  });
}
