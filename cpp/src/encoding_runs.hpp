// Whether a run of letters and digits could say something in base64, base32, hex or binary, judged
// by what its first characters stand for.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace raxe_fast {

inline constexpr std::size_t kRunSample = 32;

// chars: the first `size` characters of the run, at most kRunSample are looked at; all of them from
// [A-Za-z0-9+/_-]. False only where what any longer run that begins so stands for is neither UTF-8
// nor UTF-16 of Latin letters.
[[nodiscard]] bool may_be_encoded(const char* chars, std::size_t size) noexcept;

}  // namespace raxe_fast
