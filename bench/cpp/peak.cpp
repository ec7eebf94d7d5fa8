#include "peak.hpp"

#include <immintrin.h>

#include <stdexcept>

namespace raxe_fast::bench {
namespace {

// In assembler, since a compiler would see that nobody reads the sums. Twelve accumulators: more
// than latency times throughput of any core so far.
std::uint64_t vectors_512(std::uint64_t rounds) {
  for (std::uint64_t i = 0; i < rounds; ++i) {
    __asm__ volatile(
        "vpdpbusd %%zmm31, %%zmm30, %%zmm0\n\tvpdpbusd %%zmm31, %%zmm30, %%zmm1\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm2\n\tvpdpbusd %%zmm31, %%zmm30, %%zmm3\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm4\n\tvpdpbusd %%zmm31, %%zmm30, %%zmm5\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm6\n\tvpdpbusd %%zmm31, %%zmm30, %%zmm7\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm8\n\tvpdpbusd %%zmm31, %%zmm30, %%zmm9\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm10\n\tvpdpbusd %%zmm31, %%zmm30, %%zmm11" ::
            : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
              "xmm10", "xmm11");
  }
  __asm__ volatile("vzeroupper");
  return rounds * 12 * 64;
}

// Four accumulators of two steps each: the products of a step need registers of their own.
std::uint64_t vectors_256(std::uint64_t rounds) {
#define RAXE_STEP(a, b, sum)                                                                 \
  "vpmaddubsw %%ymm15, %%ymm14, %%ymm" #a "\n\tvpmaddubsw %%ymm15, %%ymm14, %%ymm" #b "\n\t" \
  "vpaddw %%ymm" #a ", %%ymm" #b ", %%ymm" #a "\n\tvpmaddwd %%ymm13, %%ymm" #a ", %%ymm" #a  \
  "\n\tvpaddd %%ymm" #a ", %%ymm" #sum ", %%ymm" #sum "\n\t"
  for (std::uint64_t i = 0; i < rounds; ++i) {
    __asm__ volatile(RAXE_STEP(0, 1, 8) RAXE_STEP(2, 3, 9) RAXE_STEP(4, 5, 10) RAXE_STEP(6, 7, 11)
                     ::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                         "xmm9", "xmm10", "xmm11");
  }
#undef RAXE_STEP
  __asm__ volatile("vzeroupper");
  return rounds * 4 * 64;
}

struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

__attribute__((target("amx-tile,amx-int8"))) std::uint64_t tiles(std::uint64_t rounds) {
  static constexpr TileConfig kConfig;
  _tile_loadconfig(&kConfig);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (std::uint64_t i = 0; i < rounds; ++i) {
    _tile_dpbusd(0, 4, 6);
    _tile_dpbusd(1, 4, 7);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
  }
  _tile_release();
  return rounds * 4 * 16 * 16 * 64;
}

}  // namespace

std::uint64_t multiply_in_registers(Isa isa, std::uint64_t rounds) {
  switch (isa) {
    case Isa::amx:
      return tiles(rounds);
    case Isa::avx512:
      return vectors_512(rounds);
    case Isa::avx2:
      return vectors_256(rounds);
    default:
      throw std::invalid_argument("no peak of scalar code is worth knowing");
  }
}

}  // namespace raxe_fast::bench
