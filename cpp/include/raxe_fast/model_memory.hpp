// Memory for the tables of models: line-aligned, packed into huge pages where the system has them.
//
// An encoder call pushes the model out of the caches and its pages out of the TLB, and a miss there
// costs as much as one for the data: spread over 4 KiB pages, the three forests took 23 us after an
// encoder call, in huge pages 20 us.
#pragma once

#include <cstddef>
#include <vector>

namespace raxe_fast {

inline constexpr std::size_t kModelAlignment = 64;

// Thread-safe. Throws std::bad_alloc. Memory goes back to the system region by region.
[[nodiscard]] void* model_allocate(std::size_t bytes);
void model_free(void* memory) noexcept;

// Asks the C library to give the system what it holds of freed memory: loading a model frees several
// times what an allocator keeps for later. It goes through all that the process has freed: a
// millisecond where that is little. Does nothing without glibc.
void release_freed_memory() noexcept;

template <class T>
struct ModelAllocator {
  using value_type = T;
  static_assert(alignof(T) <= kModelAlignment);

  ModelAllocator() = default;
  template <class U>
  ModelAllocator(const ModelAllocator<U>&) noexcept {}

  [[nodiscard]] T* allocate(std::size_t n) {
    return static_cast<T*>(model_allocate(n * sizeof(T)));
  }
  void deallocate(T* memory, std::size_t) noexcept { model_free(memory); }
  friend bool operator==(ModelAllocator, ModelAllocator) noexcept { return true; }
};

// For tables of final size: what a growing vector leaves behind is reused only when all other
// tables of its region are gone.
template <class T>
using ModelVector = std::vector<T, ModelAllocator<T>>;

// A table that has been built, where it belongs.
template <class T>
[[nodiscard]] ModelVector<T> settle(const std::vector<T>& built) {
  return ModelVector<T>(built.begin(), built.end());
}

}  // namespace raxe_fast
