// The registry of a build without a model. Heads.cmake defines the macro and adds the real one.
#include "raxe_fast/compiled_heads.hpp"

#ifndef RAXE_FAST_COMPILED_HEADS
namespace raxe_fast {

std::span<const CompiledHead> compiled_head_registry() noexcept { return {}; }

}  // namespace raxe_fast
#endif
