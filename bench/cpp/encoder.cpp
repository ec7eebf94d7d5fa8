// The native encoder's share of what one core can do, for each instruction set and length of text.
//
// Weights are random, of the shape of all-MiniLM-L6-v2: time does not depend on them. Products are
// those of the linear layers and of attention; the time is that of the whole call, embeddings,
// softmax, GELU and norms included. Each sample times the encoder and, right after it, the same
// core's instructions from registers alone, so that a neighbour or a change of clock meets both;
// the share is the ratio of the medians.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "peak.hpp"
#include "random_encoder.hpp"
#include "raxe_fast/cpu.hpp"
#include "raxe_fast/encoder.hpp"

namespace {

using namespace raxe_fast;
using Clock = std::chrono::steady_clock;

constexpr test::EncoderShape kShape{384, 12, 384, 1536, 6, 0, 30522, 512};

// Products of bytes for one text: linear layers, then scores and sums of attention.
double products(std::size_t tokens) {
  const auto n = static_cast<double>(tokens), h = static_cast<double>(kShape.hidden);
  const double linear = n * (4.0 * h * h + 2.0 * h * static_cast<double>(kShape.inner));
  return static_cast<double>(kShape.layers) * (linear + 2.0 * n * n * h);
}

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void measure(const NativeEncoder& encoder, Isa isa, std::size_t tokens, int samples) {
  std::vector<std::int64_t> ids(tokens);
  std::mt19937 random(2);
  for (auto& id : ids) id = static_cast<std::int64_t>(random() % kShape.vocabulary);
  std::vector<float> out(tokens * kShape.hidden);
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
  const double rate = products(tokens) / time;
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
  const test::RandomEncoder random(kShape);
  std::printf("%-10s %6s %10s %10s %10s %10s\n", "kernels", "tokens", "ms", "GMAC/s", "peak",
              "share");
  for (const Isa isa : {Isa::avx2, Isa::avx512, Isa::amx}) {
    if (static_cast<int>(isa) > static_cast<int>(detected_isa())) break;
    if (isa == Isa::avx512 && !detected_vnni()) continue;  // runs the kernels of AVX2
    force_isa(isa);
    const NativeEncoder encoder(random.w);
    for (const std::size_t tokens : {16U, 32U, 64U, 128U, 256U, 512U}) {
      measure(encoder, isa, tokens, samples);
    }
  }
  return 0;
}
