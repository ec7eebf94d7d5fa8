// A borrowed view of Unicode text, one fixed-width unit per code point.
//
// CPython stores a str as 1, 2 or 4 bytes per code point (PEP 393). The core reads that storage
// in place, so no text is transcoded, spans are code-point offsets of the original str, and lone
// surrogates are ordinary (if unassigned) values.
#pragma once

#include <cstddef>
#include <cstdint>

namespace raxe_fast {

struct TextView {
  const void* data = nullptr;  // borrowed; must outlive every call that gets the view
  std::size_t length = 0;      // code points
  std::uint8_t width = 1;      // bytes per code point: 1, 2 or 4

  [[nodiscard]] char32_t operator[](std::size_t i) const noexcept {
    switch (width) {
      case 1:
        return static_cast<const std::uint8_t*>(data)[i];
      case 2:
        return static_cast<const std::uint16_t*>(data)[i];
      default:
        return static_cast<char32_t>(static_cast<const std::uint32_t*>(data)[i]);
    }
  }
};

}  // namespace raxe_fast
