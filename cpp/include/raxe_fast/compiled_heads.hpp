// The forests compiled into this library. cmake/generate_heads.py writes the registry; a build
// without a model links an empty one (compiled_heads_empty.cpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace raxe_fast {

// More trees than this are refused when the code is generated: their leaf rows lie on the stack.
inline constexpr std::size_t kMaxCompiledTrees = 1024;

struct CompiledHead {
  std::string_view sha256;  // of the Treelite file, 64 lower-case hex digits
  std::size_t n_features;
  std::size_t n_outputs;
  std::size_t n_trees;  // 1 .. kMaxCompiledTrees
  // Row of leaf_values that each tree arrives at. x: n_features floats; row: n_trees, overwritten.
  void (*leaf_rows)(const float* x, std::uint32_t* row);
  const double* leaf_values;  // rows of n_outputs
};

[[nodiscard]] std::span<const CompiledHead> compiled_head_registry() noexcept;

}  // namespace raxe_fast
