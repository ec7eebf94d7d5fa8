// Run-time choice of instruction set for the dispatched kernels (pooling, clusters, encoder).
#pragma once

#include <cstddef>
#include <string_view>

namespace raxe_fast {

// amx: tiles of bytes (AMX-INT8) besides AVX-512 with VNNI. Each level can do what those below can.
enum class Isa : int { scalar = 0, avx2 = 1, avx512 = 2, amx = 3 };
inline constexpr int kIsaLevels = 4;

// Best instruction set of this machine (cpuid and OS support), ignoring any forced level. The first
// call asks the system for the use of tiles, which is granted to the process for good.
[[nodiscard]] Isa detected_isa() noexcept;

// Whether this machine has AVX-512 VNNI (dot products of bytes) besides Isa::avx512.
[[nodiscard]] bool detected_vnni() noexcept;

// The level in use: min(detected, forced).
[[nodiscard]] Isa active_isa() noexcept;

// That level as an index of scalar, AVX2 and AVX-512 kernels: tiles help in the encoder alone.
[[nodiscard]] std::size_t vector_level() noexcept;

// For tests and benchmarks: use `isa` from now on, process-wide. Throws std::invalid_argument if
// the machine lacks it. Not synchronised with calls in flight (each call reads the level once).
void force_isa(Isa isa);

[[nodiscard]] std::string_view isa_name(Isa isa) noexcept;  // "scalar", "avx2", "avx512", "amx"

}  // namespace raxe_fast
