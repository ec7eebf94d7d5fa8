// Manual sampling around Google Benchmark: every iteration is timed on its own, so that the table
// can show quantiles, and the caches can be emptied between iterations without being timed.
#pragma once

#include <benchmark/benchmark.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace raxe_fast::bench {

enum class Cache : int {
  hot = 0,       // nothing between iterations
  cold_l2 = 1,   // everything out of L1 and L2; what fits stays in L3
  cold_dram = 2  // everything out of L3 too
};

inline const char* cache_name(Cache cache) {
  switch (cache) {
    case Cache::hot:
      return "hot";
    case Cache::cold_l2:
      return "cold_l2";
    default:
      return "cold_dram";
  }
}

// Streams a buffer several times the size of the cache to be emptied: written once (so that pages
// are mapped) and read line by line.
class Evictor {
 public:
  static Evictor& instance() {
    static Evictor evictor;
    return evictor;
  }

  void evict(Cache cache) {
    if (cache == Cache::hot) return;
    const std::size_t bytes = cache == Cache::cold_l2 ? l2_bytes_ : buffer_.size();
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < bytes; i += 64) sum += buffer_[i]++;
    benchmark::DoNotOptimize(sum);
  }

 private:
  Evictor() {
    const std::size_t l2 = size_of(_SC_LEVEL2_CACHE_SIZE, std::size_t{1} << 20);
    const std::size_t l3 = size_of(_SC_LEVEL3_CACHE_SIZE, std::size_t{32} << 20);
    l2_bytes_ = 4 * l2;
    buffer_.resize(std::max(3 * l3, l2_bytes_), std::uint8_t{1});
  }

  // Virtual machines may report nothing or a host's whole L3: fall back, and bound.
  static std::size_t size_of(int name, std::size_t fallback) {
    const long value = sysconf(name);
    if (value <= 0) return fallback;
    return std::min(static_cast<std::size_t>(value), std::size_t{128} << 20);
  }

  std::vector<std::uint8_t> buffer_;
  std::size_t l2_bytes_ = 0;
};

// Runs `body(i)` once per iteration under manual time and adds p50/p95/p99 counters, in
// nanoseconds, net of nothing: the two clock reads (some 20 ns each) are inside every sample.
template <typename Body>
void sample(benchmark::State& state, Cache cache, Body&& body) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> samples;
  samples.reserve(std::size_t{1} << 16);
  std::size_t i = 0;
  for (auto _ : state) {
    Evictor::instance().evict(cache);
    const auto begin = Clock::now();
    body(i);
    benchmark::ClobberMemory();
    const std::chrono::duration<double> elapsed = Clock::now() - begin;
    state.SetIterationTime(elapsed.count());
    samples.push_back(elapsed.count() * 1e9);
    ++i;
  }
  if (samples.empty()) return;
  std::sort(samples.begin(), samples.end());
  const auto quantile = [&](double q) {
    return samples[static_cast<std::size_t>(q * static_cast<double>(samples.size() - 1) + 0.5)];
  };
  state.counters["p50_ns"] = quantile(0.50);
  state.counters["p95_ns"] = quantile(0.95);
  state.counters["p99_ns"] = quantile(0.99);
}

// Hot loops get a fixed minimum time by Google Benchmark; evicting costs milliseconds a time, so
// cold ones get a fixed count.
inline void configure(benchmark::internal::Benchmark* benchmark, Cache cache) {
  benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
  if (cache == Cache::hot) {
    benchmark->Iterations(5000);
  } else {
    benchmark->Iterations(cache == Cache::cold_l2 ? 1000 : 300);
  }
}

}  // namespace raxe_fast::bench
