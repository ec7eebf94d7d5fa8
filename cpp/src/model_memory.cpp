#include "raxe_fast/model_memory.hpp"

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <new>

#if defined(__GLIBC__)
#include <malloc.h>
#endif
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
#include <pthread.h>
#include <sys/mman.h>
#define RAXE_FAST_MODEL_REGIONS 1
#else
// Elsewhere, and where a sanitizer watches the bounds of each allocation.
#define RAXE_FAST_MODEL_REGIONS 0
#endif

namespace raxe_fast {

#if RAXE_FAST_MODEL_REGIONS

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kRegion = 4 * kHugePage;  // address space; pages come when written to

constexpr std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

struct Region {
  std::byte* begin = nullptr;
  std::size_t size = 0, used = 0, live = 0;
};

class Regions {
 public:
  void* allocate(std::size_t bytes) {
    if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
    const std::size_t size = round_up(std::max<std::size_t>(bytes, 1), kModelAlignment);
    const std::lock_guard lock(mutex_);
    auto region = std::ranges::find_if(
        regions_, [size](const Region& r) { return r.size - r.used >= size; });
    if (region == regions_.end()) {
      regions_.reserve(regions_.size() + 1);
      regions_.push_back(map(round_up(std::max(size, kRegion), kHugePage)));
      region = regions_.end() - 1;
    }
    void* const memory = region->begin + region->used;
    region->used += size;
    ++region->live;
    return memory;
  }

  void free(void* memory) noexcept {
    if (memory == nullptr) return;
    const auto* const at = static_cast<std::byte*>(memory);
    const std::lock_guard lock(mutex_);
    const auto region = std::ranges::find_if(
        regions_, [at](const Region& r) { return at >= r.begin && at < r.begin + r.size; });
    if (--region->live == 0) {
      munmap(region->begin, region->size);
      regions_.erase(region);
    }
  }

  // Around fork(): a child must not inherit a mutex that another thread holds.
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  static Region map(std::size_t size) {
    // One page more, to cut an aligned piece out of it.
    void* const mapped = mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    auto* const first = static_cast<std::byte*>(mapped);
    const std::size_t before =
        round_up(reinterpret_cast<std::uintptr_t>(first), kHugePage) -
        reinterpret_cast<std::uintptr_t>(first);
    if (before != 0) munmap(first, before);
    if (before != kHugePage) munmap(first + before + size, kHugePage - before);
    madvise(first + before, size, MADV_HUGEPAGE);  // a wish: small pages serve as well
    return {first + before, size, 0, 0};
  }

  std::mutex mutex_;
  std::vector<Region> regions_;
};

// Never destroyed: tables in static storage may outlive it otherwise.
Regions& regions() {
  static auto* const all = new Regions;
  [[maybe_unused]] static const int watched =
      pthread_atfork([] { all->lock(); }, [] { all->unlock(); }, [] { all->unlock(); });
  return *all;
}

}  // namespace

void* model_allocate(std::size_t bytes) { return regions().allocate(bytes); }
void model_free(void* memory) noexcept { regions().free(memory); }

#else

void* model_allocate(std::size_t bytes) {
  return ::operator new(bytes, std::align_val_t{kModelAlignment});
}
void model_free(void* memory) noexcept {
  ::operator delete(memory, std::align_val_t{kModelAlignment});
}

#endif

void release_freed_memory() noexcept {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

}  // namespace raxe_fast
