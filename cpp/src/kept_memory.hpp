// Scratch memory that is kept between texts, but not what an unusual one has taken.
#pragma once

#include <cstddef>

namespace raxe_fast::detail {

inline constexpr std::size_t kKeptBytes = std::size_t{1} << 20;

// Empties a vector or string that holds more memory than is worth keeping.
template <typename Container>
void give_back(Container& scratch) {
  if (scratch.capacity() * sizeof(typename Container::value_type) > kKeptBytes) scratch = {};
}

}  // namespace raxe_fast::detail
