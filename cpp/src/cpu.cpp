#include "raxe_fast/cpu.hpp"

#include <atomic>
#include <stdexcept>
#include <string>

namespace raxe_fast {
namespace {

Isa detect() noexcept {
#if defined(__x86_64__)
  // These ask the operating system (XGETBV) too, not the CPU alone.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
  if (avx512) return Isa::avx512;
  if (avx2) return Isa::avx2;
#endif
  return Isa::scalar;
}

std::atomic<Isa>& level() noexcept {
  static std::atomic<Isa> value{detected_isa()};
  return value;
}

}  // namespace

Isa detected_isa() noexcept {
  static const Isa isa = detect();
  return isa;
}

bool detected_vnni() noexcept {
#if defined(__x86_64__)
  static const bool vnni =
      detected_isa() == Isa::avx512 && __builtin_cpu_supports("avx512vnni") != 0;
  return vnni;
#else
  return false;
#endif
}

Isa active_isa() noexcept { return level().load(std::memory_order_relaxed); }

void force_isa(Isa isa) {
  if (isa < Isa::scalar || isa > detected_isa()) {
    throw std::invalid_argument("this machine lacks " + std::string(isa_name(isa)));
  }
  level().store(isa, std::memory_order_relaxed);
}

std::string_view isa_name(Isa isa) noexcept {
  switch (isa) {
    case Isa::scalar:
      return "scalar";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
  }
  return "unknown";
}

}  // namespace raxe_fast
