// What one core can do at most: products of bytes a second, from registers alone.
#pragma once

#include <cstdint>

#include "raxe_fast/cpu.hpp"

namespace raxe_fast::bench {

// Multiplies and adds pairs of bytes, `rounds` times through every accumulator that the registers
// have room for, by the instructions that the encoder's kernels of `isa` use: tiles, vpdpbusd of
// 512 bits, or on AVX2 two vpmaddubsw whose int16 sums are added before they are widened (five
// instructions for 64 products). Returns how many products that were. Memory is not touched.
// `isa` must be at most detected_isa(), and avx2 or more; avx512 needs detected_vnni().
std::uint64_t multiply_in_registers(Isa isa, std::uint64_t rounds);

}  // namespace raxe_fast::bench
