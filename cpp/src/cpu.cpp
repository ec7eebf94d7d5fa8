#include "raxe_fast/cpu.hpp"

#include <atomic>
#include <stdexcept>
#include <string>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace raxe_fast {
namespace {

// Tiles are 8 KiB of registers that Linux saves for those who asked only.
bool may_use_tiles() noexcept {
#if defined(__x86_64__) && defined(__linux__)
  constexpr unsigned kTileBits = (1U << 24) | (1U << 25);  // AMX-TILE, AMX-INT8
  constexpr long kRequestPermission = 0x1023;              // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kTileBits) != kTileBits) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

Isa detect() noexcept {
#if defined(__x86_64__)
  // These ask the operating system (XGETBV) too, not the CPU alone.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
  const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  if (vnni && may_use_tiles()) return Isa::amx;
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
      detected_isa() >= Isa::avx512 && __builtin_cpu_supports("avx512vnni") != 0;
  return vnni;
#else
  return false;
#endif
}

Isa active_isa() noexcept { return level().load(std::memory_order_relaxed); }

std::size_t vector_level() noexcept {
  const Isa isa = active_isa();
  return static_cast<std::size_t>(isa == Isa::amx ? Isa::avx512 : isa);
}

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
    case Isa::amx:
      return "amx";
  }
  return "unknown";
}

}  // namespace raxe_fast
