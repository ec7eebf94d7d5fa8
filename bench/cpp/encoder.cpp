// The native encoder's share of what one core can do, for each instruction set and length of text.
//
// Weights are random, of the shape of all-MiniLM-L6-v2: time does not depend on them. Products are
// those of the linear layers and of attention; the time is that of the whole call, embeddings,
// softmax, GELU and norms included. Each sample times the encoder and, right after it, the same
// core's instructions from registers alone, so that a neighbour or a change of clock meets both;
// the share is the ratio of the medians.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <random>
#include <vector>

#include "peak.hpp"
#include "raxe_fast/cpu.hpp"
#include "raxe_fast/encoder.hpp"

namespace {

using namespace raxe_fast;
using Clock = std::chrono::steady_clock;

struct Shape {
  std::size_t vocabulary = 30522, positions = 512, hidden = 384, heads = 12, inner = 1536;
  std::size_t layers = 6;

  // Of one text: linear layers, then scores and sums of attention.
  [[nodiscard]] double products(std::size_t tokens) const {
    const auto n = static_cast<double>(tokens), h = static_cast<double>(hidden);
    const double linear = n * (4.0 * h * h + 2.0 * h * static_cast<double>(inner));
    return static_cast<double>(layers) * (linear + 2.0 * n * n * h);
  }
};

// Random weights, and the memory that they live in.
class RandomEncoder {
 public:
  explicit RandomEncoder(const Shape& shape) {
    weights.vocabulary = shape.vocabulary;
    weights.positions = shape.positions;
    weights.hidden = shape.hidden;
    weights.heads = shape.heads;
    weights.words = bytes(shape.vocabulary * shape.hidden);
    weights.word_scale = floats(shape.vocabulary, 0.001F);
    weights.position = floats(shape.positions * shape.hidden, 0.01F);
    weights.norm = norm(shape.hidden);
    for (std::size_t i = 0; i < shape.layers; ++i) {
      EncoderLayerWeights layer;
      layer.query = linear(shape.hidden, shape.hidden);
      layer.key = linear(shape.hidden, shape.hidden);
      layer.value = linear(shape.hidden, shape.hidden);
      layer.attention_out = linear(shape.hidden, shape.hidden);
      layer.intermediate = linear(shape.hidden, shape.inner);
      layer.output = linear(shape.inner, shape.hidden);
      layer.attention_norm = layer.output_norm = norm(shape.hidden);
      weights.layers.push_back(layer);
    }
  }

  EncoderWeights weights;

 private:
  const std::int8_t* bytes(std::size_t n) {
    auto& values = bytes_.emplace_back(n);
    for (auto& value : values) value = static_cast<std::int8_t>(random_() % 129U) - 64;
    return values.data();
  }
  const float* floats(std::size_t n, float value) {
    return floats_.emplace_back(n, value).data();
  }
  LinearWeights linear(std::size_t inputs, std::size_t outputs) {
    const float scale = 1.0F / (37.0F * std::sqrt(static_cast<float>(inputs)));
    return {bytes(inputs * outputs), floats(outputs, scale), floats(outputs, 0.0F), inputs,
            outputs};
  }
  NormWeights norm(std::size_t width) { return {floats(width, 1.0F), floats(width, 0.0F)}; }

  std::mt19937 random_{1};
  std::deque<std::vector<float>> floats_;
  std::deque<std::vector<std::int8_t>> bytes_;
};

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void measure(const NativeEncoder& encoder, const Shape& shape, Isa isa, std::size_t tokens,
             int samples) {
  std::vector<std::int64_t> ids(tokens);
  std::mt19937 random(2);
  for (auto& id : ids) id = static_cast<std::int64_t>(random() % shape.vocabulary);
  std::vector<float> out(tokens * shape.hidden);
  // About as long as a short text takes: rounds of the peak, found once.
  std::uint64_t rounds = 1000;
  for (double taken = 0.0; taken < 3e-4; rounds *= 2) {
    const auto begin = Clock::now();
    bench::multiply_in_registers(isa, rounds);
    taken = seconds_since(begin);
  }
  std::vector<double> times, rates;
  for (int i = 0; i < samples + 3; ++i) {
    auto begin = Clock::now();
    encoder.encode(ids.data(), 1, tokens, out.data());
    const double encoding = seconds_since(begin);
    begin = Clock::now();
    const auto done = static_cast<double>(bench::multiply_in_registers(isa, rounds));
    const double peak = done / seconds_since(begin);
    if (i < 3) continue;  // what is not warm yet
    times.push_back(encoding);
    rates.push_back(peak);
  }
  const double time = median(times), peak = median(rates);
  const double rate = shape.products(tokens) / time;
  std::printf("%-10s %6zu %10.3f %10.0f %10.0f %8.0f %%\n",
              std::string(encoder.kernels()).c_str(), tokens, time * 1e3, rate / 1e9, peak / 1e9,
              100.0 * rate / peak);
}

}  // namespace

int main(int argc, char** argv) {
  const int samples = argc > 1 ? std::atoi(argv[1]) : 200;
  if (argc > 2 || samples < 1) {
    std::fprintf(stderr, "usage: raxe_fast_encoder_bench [SAMPLES]\n");
    return 2;
  }
  const Shape shape;
  const RandomEncoder random(shape);
  std::printf("%-10s %6s %10s %10s %10s %10s\n", "kernels", "tokens", "ms", "GMAC/s", "peak",
              "share");
  for (const Isa isa : {Isa::avx2, Isa::avx512, Isa::amx}) {
    if (static_cast<int>(isa) > static_cast<int>(detected_isa())) break;
    if (isa == Isa::avx512 && !detected_vnni()) continue;  // runs the kernels of AVX2
    force_isa(isa);
    const NativeEncoder encoder(random.weights);
    for (const std::size_t tokens : {16U, 32U, 64U, 128U, 256U, 512U}) {
      measure(encoder, shape, isa, tokens, samples);
    }
  }
  return 0;
}
