#include "raxe_fast/surface.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "raxe_fast/normalize.hpp"

namespace raxe_fast {
namespace {

enum Kind : std::uint8_t { other, capital, small, digit, space, punctuation, control };

constexpr std::array<Kind, 128> make_kinds() {
  std::array<Kind, 128> kinds{};
  for (std::size_t c = 0; c < 128; ++c) {
    if (c == ' ' || (c >= '\t' && c <= '\r')) {
      kinds[c] = space;
    } else if (c < 0x20 || c == 0x7F) {
      kinds[c] = control;
    } else if (c >= 'A' && c <= 'Z') {
      kinds[c] = capital;
    } else if (c >= 'a' && c <= 'z') {
      kinds[c] = small;
    } else if (c >= '0' && c <= '9') {
      kinds[c] = digit;
    } else {
      kinds[c] = punctuation;
    }
  }
  return kinds;
}

constexpr std::array<Kind, 128> kKinds = make_kinds();

// White space beyond ASCII is what the normaliser turns into a space.
Kind kind_of(char32_t c) noexcept {
  if (c < 128) return kKinds[c];
  const Mapped mapped = map_code_point(c);
  if (mapped.ignorable) return control;
  const bool blank = mapped.count == 1 && mapped.chars != nullptr && mapped.chars[0] == U' ';
  return blank ? space : other;
}

}  // namespace

void surface_statistics(TextView text, std::size_t begin, std::size_t end, float* out) noexcept {
  std::fill(out, out + kSurface, 0.0F);
  end = std::min(end, text.length);
  if (begin >= end) return;

  std::array<std::uint64_t, 128> histogram{};
  std::array<std::uint64_t, 7> count{};
  std::uint64_t beyond_ascii = 0;
  std::size_t run = 0, longest = 0, runs = 0, inside = 0;
  for (std::size_t i = begin; i < end; ++i) {
    const char32_t c = text[i];
    const Kind kind = kind_of(c);
    ++histogram[c & 127U];
    ++count[kind];
    beyond_ascii += c >= 128;
    if (kind == space) {
      run = 0;
      continue;
    }
    runs += run == 0;
    longest = std::max(longest, ++run);
    ++inside;
  }

  const auto size = static_cast<double>(end - begin);
  const auto share = [&](std::uint64_t n) {
    return static_cast<float>(static_cast<double>(n) / size);
  };
  const std::uint64_t letters = count[capital] + count[small];
  double entropy = 0.0;
  for (const std::uint64_t n : histogram) {
    if (n == 0) continue;
    const double part = static_cast<double>(n) / size;
    entropy -= part * std::log2(part);
  }
  out[0] = static_cast<float>(std::log1p(size));
  out[1] = letters == 0 ? 0.0F : static_cast<float>(count[capital]) / static_cast<float>(letters);
  out[2] = share(count[digit]);
  out[3] = share(beyond_ascii);
  out[4] = share(count[space]);
  out[5] = share(count[punctuation]);
  out[6] = share(count[control]);
  out[7] = static_cast<float>(entropy);
  out[8] = static_cast<float>(std::log1p(static_cast<double>(longest)));
  out[9] = runs == 0 ? 0.0F : static_cast<float>(inside) / static_cast<float>(runs);
}

}  // namespace raxe_fast
