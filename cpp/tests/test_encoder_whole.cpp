// The whole encoder against a naive BERT in doubles, on random weights.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <thread>
#include <vector>

#include "isa_levels.hpp"
#include "random_encoder.hpp"
#include "raxe_fast/encoder.hpp"

using namespace raxe_fast;
using raxe_fast::test::on_every_isa;

namespace {

using Shape = raxe_fast::test::EncoderShape;
using Random = raxe_fast::test::RandomEncoder;

constexpr std::size_t kVocabulary = Shape{}.vocabulary;
constexpr std::size_t kPositions = Shape{}.positions;

using Rows = std::vector<std::vector<double>>;

Rows project(const Rows& x, const LinearWeights& l) {
  Rows out;
  for (const auto& row : x) {
    auto& y = out.emplace_back(l.outputs);
    for (std::size_t n = 0; n < l.outputs; ++n) {
      double sum = 0.0;
      for (std::size_t k = 0; k < l.inputs; ++k) sum += row[k] * l.weight[k * l.outputs + n];
      y[n] = sum * double{l.scale[n]} + double{l.bias[n]};
    }
  }
  return out;
}

Rows normalise(Rows x, const Rows* residual, const NormWeights& norm, double epsilon) {
  for (std::size_t r = 0; r < x.size(); ++r) {
    auto& row = x[r];
    double mean = 0.0;
    double variance = 0.0;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (residual != nullptr) row[i] += (*residual)[r][i];
      mean += row[i] / static_cast<double>(row.size());
    }
    for (const double a : row) {
      variance += (a - mean) * (a - mean) / static_cast<double>(row.size());
    }
    for (std::size_t i = 0; i < row.size(); ++i) {
      row[i] = (row[i] - mean) / std::sqrt(variance + epsilon) * double{norm.gamma[i]} +
               double{norm.beta[i]};
    }
  }
  return x;
}

// The slow, obvious twin.
Rows reference(const EncoderWeights& w, const std::vector<std::int64_t>& ids) {
  Rows h;
  for (std::size_t r = 0; r < ids.size(); ++r) {
    auto& row = h.emplace_back(w.hidden);
    const auto id = static_cast<std::size_t>(ids[r]);
    for (std::size_t i = 0; i < w.hidden; ++i) {
      row[i] = w.words[id * w.hidden + i] * double{w.word_scale[id]} +
               double{w.position[r * w.hidden + i]};
    }
    if (w.pair_rows > 0) {
      // Written out in other words than the encoder's.
      const std::int64_t before = r == 0 ? 0 : ids[r - 1];
      const std::int64_t hash = (1000003 * before + 7919 * ids[r]) % ((std::int64_t{1} << 31) - 1);
      const auto pair = static_cast<std::size_t>(hash % static_cast<std::int64_t>(w.pair_rows));
      for (std::size_t i = 0; i < w.hidden; ++i) {
        row[i] += w.pairs[pair * w.hidden + i] * double{w.pair_scale[pair]};
      }
    }
  }
  h = normalise(h, nullptr, w.norm, double{w.epsilon});
  for (const EncoderLayerWeights& layer : w.layers) {
    const Rows q = project(h, layer.query), k = project(h, layer.key), v = project(h, layer.value);
    const std::size_t size = layer.query.outputs / w.heads;
    Rows context(h.size(), std::vector<double>(layer.query.outputs));
    for (std::size_t head = 0; head < w.heads; ++head) {
      for (std::size_t i = 0; i < h.size(); ++i) {
        std::vector<double> weight(h.size());
        double total = 0.0;
        for (std::size_t j = 0; j < h.size(); ++j) {
          double score = 0.0;
          for (std::size_t d = head * size; d < (head + 1) * size; ++d) {
            score += q[i][d] * k[j][d];
          }
          total += weight[j] = std::exp(score / std::sqrt(static_cast<double>(size)));
        }
        for (std::size_t j = 0; j < h.size(); ++j) {
          for (std::size_t d = head * size; d < (head + 1) * size; ++d) {
            context[i][d] += weight[j] / total * v[j][d];
          }
        }
      }
    }
    h = normalise(project(context, layer.attention_out), &h, layer.attention_norm,
                  double{w.epsilon});
    Rows inner = project(h, layer.intermediate);
    for (auto& row : inner) {
      for (double& x : row) x = 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    }
    h = normalise(project(inner, layer.output), &h, layer.output_norm, double{w.epsilon});
  }
  return h;
}

std::vector<std::int64_t> some_ids(std::size_t n) {
  std::vector<std::int64_t> ids(n);
  for (std::size_t i = 0; i < n; ++i) {
    ids[i] = static_cast<std::int64_t>((i * 37 + 11) % kVocabulary);
  }
  return ids;
}

std::vector<float> encode(const NativeEncoder& encoder, const std::vector<std::int64_t>& ids,
                          std::size_t batch = 1) {
  std::vector<float> out(ids.size() * encoder.hidden(), -7.0F);
  encoder.encode(ids.data(), batch, ids.size() / batch, out.data());
  return out;
}

double cosine(const float* a, const std::vector<double>& b) {
  double ab = 0.0, aa = 0.0, bb = 0.0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    ab += double{a[i]} * b[i];
    aa += double{a[i]} * double{a[i]};
    bb += b[i] * b[i];
  }
  return ab / std::sqrt(aa * bb);
}

constexpr Shape kShapes[] = {
    {32, 4, 32, 128, 2},    // heads of 8
    {64, 2, 64, 96, 1},     // inner width smaller than usual
    {96, 3, 96, 384, 2},    // heads of 32
    {128, 1, 128, 160, 1},  // one head of 128
    {160, 4, 96, 320, 1},   // attention narrower than hidden, heads of 24
    {384, 12, 384, 1536, 2},
    // Screening: few layers, narrow.
    {128, 2, 128, 256, 2},
    {128, 4, 128, 512, 2},
    {192, 6, 192, 768, 1},
    {256, 4, 256, 1024, 1},
    {256, 6, 192, 512, 1},
    // With rows for pairs of tokens.
    {128, 4, 128, 256, 1, 1000},
    {96, 3, 96, 384, 2, 7},
};

}  // namespace

TEST_CASE("encoder all: whole encoders are close to doubles and the same on every machine") {
  for (const Shape& shape : kShapes) {
    const Random random(shape);
    for (const std::size_t tokens : {1U, 2U, 7U, 33U, 80U}) {
      if (shape.hidden == 384 && tokens > 40) continue;
      const auto ids = some_ids(tokens);
      const Rows expected = reference(random.w, ids);
      force_isa(Isa::scalar);
      const auto scalar = encode(NativeEncoder(random.w), ids);
      double lowest = 1.0;
      for (std::size_t r = 0; r < tokens; ++r) {
        lowest = std::fmin(lowest, cosine(scalar.data() + r * shape.hidden, expected[r]));
      }
      CAPTURE(shape.hidden);
      CAPTURE(tokens);
      CHECK(lowest > 0.999);
      on_every_isa([&] { CHECK(encode(NativeEncoder(random.w), ids) == scalar); });
    }
  }
}

TEST_CASE("encoder unit: rows of pairs") {
  CHECK(pair_row(0, 0, 5) == 0);
  CHECK(pair_row(101, 2054, 65536) == 22025);
  CHECK(pair_row(30521, 30521, 65536) == 57904);  // the sum is larger than the modulus
  CHECK(pair_row(30521, 30521, 7) == 6);
  CHECK(pair_row(1, 2, 65536) != pair_row(2, 1, 65536));
  CHECK(pair_row(2147483646, 2147483646, 1) == 0);
}

TEST_CASE("encoder rules: a text does not depend on its batch, a call not on those before") {
  const Random random({96, 3, 96, 384, 2, 40});
  const NativeEncoder encoder(random.w);
  const auto one = some_ids(20);
  std::vector<std::int64_t> three = one;
  for (std::int64_t i = 0; i < 20; ++i) three.push_back(i);
  three.insert(three.end(), one.begin(), one.end());
  const auto alone = encode(encoder, one);
  encode(encoder, some_ids(80));
  const auto together = encode(encoder, three, 3);
  CHECK(std::vector<float>(together.begin(), together.begin() + 20 * 96) == alone);
  CHECK(std::vector<float>(together.end() - 20 * 96, together.end()) == alone);
  CHECK(encode(encoder, one) == alone);
}

TEST_CASE("encoder rules: an encoder keeps the kernels it was packed for") {
  const Random random({32, 4, 32, 128, 1});
  force_isa(Isa::scalar);
  const NativeEncoder scalar(random.w);
  force_isa(detected_isa());
  const NativeEncoder best(random.w);
  CHECK(scalar.kernels() == "scalar");
  CHECK((best.kernels() == "scalar") == (detected_isa() == Isa::scalar));
  CHECK(encode(scalar, some_ids(9)) == encode(best, some_ids(9)));
  CHECK(best.bytes() > 32 * 32 * 4);
}

TEST_CASE("encoder safety: many threads at once, of several encoders") {
  const Random small({32, 4, 32, 128, 1});
  const Random large({96, 3, 96, 384, 1});
  const NativeEncoder first(small.w);
  const NativeEncoder second(large.w);
  const auto ids = some_ids(33);
  const auto one = encode(first, ids);
  const auto two = encode(second, ids);
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 10; ++i) {
        wrong[t] += encode(first, ids) == one ? 0 : 1;
        wrong[t] += encode(second, ids) == two ? 0 : 1;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4, 0));
}

TEST_CASE("encoder safety: ids and lengths out of range are refused, the edges are not") {
  const Random random({32, 4, 32, 128, 1});
  const NativeEncoder encoder(random.w);
  CHECK_THROWS_AS(encode(encoder, {0, -1}), std::invalid_argument);
  CHECK_THROWS_AS(encode(encoder, {0, kVocabulary}), std::invalid_argument);
  CHECK_THROWS_AS(encode(encoder, {std::numeric_limits<std::int64_t>::min()}),
                  std::invalid_argument);
  CHECK_THROWS_AS(encode(encoder, {std::int64_t{1} << 32}), std::invalid_argument);
  CHECK_THROWS_AS(encode(encoder, some_ids(kPositions + 1)), std::invalid_argument);
  CHECK_THROWS_AS(encode(encoder, {}), std::invalid_argument);
  CHECK_NOTHROW(encode(encoder, some_ids(kPositions)));
  CHECK_NOTHROW(encode(encoder, {0, kVocabulary - 1}));
}

TEST_CASE("encoder safety: weights that do not fit are refused") {
  const Shape shape{64, 2, 64, 96, 2, 96};
  const Random random(shape);
  const EncoderWeights& good = random.w;
  const auto refused = [&good](auto change) {
    EncoderWeights bad = good;
    change(bad);
    CHECK_THROWS_AS(NativeEncoder{bad}, std::invalid_argument);
  };
  CHECK_NOTHROW(NativeEncoder{good});
  refused([](auto& w) { w.hidden = 0; });
  refused([](auto& w) { w.hidden = 48; });
  refused([](auto& w) { w.hidden = 2048; });
  refused([](auto& w) { w.heads = 0; });
  refused([](auto& w) { w.heads = 3; });
  refused([](auto& w) { w.positions = 0; });
  refused([](auto& w) { w.positions = 5000; });
  refused([](auto& w) { w.vocabulary = 0; });
  refused([](auto& w) { w.layers.clear(); });
  refused([](auto& w) { w.words = nullptr; });
  refused([](auto& w) { w.position = nullptr; });
  refused([](auto& w) { w.pairs = nullptr; });
  refused([](auto& w) { w.pair_scale = nullptr; });
  refused([](auto& w) { w.pair_rows = NativeEncoder::kMaxPairRows + 1; });
  refused([](auto& w) { w.epsilon = -1.0F; });
  refused([](auto& w) { w.epsilon = std::numeric_limits<float>::quiet_NaN(); });
  refused([](auto& w) { w.layers[1].query.outputs = 32; });
  refused([](auto& w) { w.layers[1].key.inputs = 32; });
  refused([](auto& w) { w.layers[0].intermediate.outputs = 64; });
  refused([](auto& w) { w.layers[0].output.bias = nullptr; });
  refused([](auto& w) { w.layers[0].attention_norm.gamma = nullptr; });

  std::vector<float> not_finite(96, 1.0F);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity()}) {
    not_finite[63] = bad;
    refused([&](auto& w) { w.layers[1].output.scale = not_finite.data(); });
    refused([&](auto& w) { w.layers[1].value.bias = not_finite.data(); });
    refused([&](auto& w) { w.norm.beta = not_finite.data(); });
    refused([&](auto& w) { w.word_scale = not_finite.data() + 20; });
    refused([&](auto& w) { w.pair_scale = not_finite.data(); });
  }
  std::vector<std::int8_t> large(64 * 96, 64);
  EncoderWeights edge = good;
  edge.layers[0].intermediate.weight = large.data();
  CHECK_NOTHROW(NativeEncoder{edge});
  for (const int w : {65, 127, -65, -128}) {
    large.back() = static_cast<std::int8_t>(w);
    refused([&](auto& bad) { bad.layers[0].intermediate.weight = large.data(); });
  }
}

TEST_CASE("encoder safety: weights with which activations might overflow are refused") {
  const auto refused = [](auto spoil) {
    Random random({32, 4, 32, 128, 2});
    spoil(random, random.w.layers[0]);
    CHECK_THROWS_AS(NativeEncoder{random.w}, std::invalid_argument);
  };
  refused([](auto& r, auto& l) { l.output.bias = r.floats(32, 3e38F, 1e37F); });
  refused([](auto& r, auto& l) { l.query.scale = r.floats(32, 3e38F, 1e37F); });
  refused([](auto& r, auto& l) { l.key.bias = r.floats(32, 2e15F, 1.0F); });
  refused([](auto& r, auto& l) { l.intermediate.scale = r.floats(128, 1e13F, 1.0F); });
  refused([](auto& r, auto& l) { l.output_norm.gamma = r.floats(32, 1e15F, 1.0F); });
  refused([](auto& r, auto&) { r.w.norm.beta = r.floats(32, 1e15F, 1.0F); });
  refused([](auto& r, auto&) { r.w.epsilon = 0.0F; });
}

TEST_CASE("encoder safety: the largest weights that are let in give finite values, the same everywhere") {
  Random random({32, 4, 32, 128, 2});
  auto& layer = random.w.layers[0];
  // Scores of some 1e22 before softmax: one key takes all, on every level.
  layer.query.scale = random.floats(32, 1e9F, 1e8F);
  layer.key.scale = random.floats(32, 1e9F, 1e8F);
  layer.intermediate.scale = random.floats(128, 1e4F, 1e3F);
  std::vector<float> first;
  on_every_isa([&] {
    const std::vector<float> found = encode(NativeEncoder(random.w), some_ids(17));
    for (const float x : found) CHECK(std::isfinite(x));
    if (first.empty()) first = found;
    CHECK(std::memcmp(first.data(), found.data(), found.size() * sizeof(float)) == 0);
  });
}
