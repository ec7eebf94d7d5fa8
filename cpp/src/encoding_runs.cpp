#include "encoding_runs.hpp"

namespace raxe_fast {
namespace {

constexpr std::uint8_t kNoDigit = 255;

// The value of a character in an alphabet, kNoDigit where it is not in it.
using Digits = std::array<std::uint8_t, 128>;

constexpr Digits make_base64() {
  Digits digits{};
  digits.fill(kNoDigit);
  for (std::uint8_t i = 0; i < 26; ++i) {
    digits[static_cast<std::size_t>('A' + i)] = i;
    digits[static_cast<std::size_t>('a' + i)] = static_cast<std::uint8_t>(26 + i);
  }
  for (std::uint8_t i = 0; i < 10; ++i) {
    digits[static_cast<std::size_t>('0' + i)] = static_cast<std::uint8_t>(52 + i);
  }
  digits['+'] = digits['-'] = 62;
  digits['/'] = digits['_'] = 63;
  return digits;
}

constexpr Digits make_base32() {
  Digits digits{};
  digits.fill(kNoDigit);
  for (std::uint8_t i = 0; i < 26; ++i) digits[static_cast<std::size_t>('A' + i)] = i;
  for (std::uint8_t i = 0; i < 6; ++i) {
    digits[static_cast<std::size_t>('2' + i)] = static_cast<std::uint8_t>(26 + i);
  }
  return digits;
}

constexpr Digits make_hex() {
  Digits digits{};
  digits.fill(kNoDigit);
  for (std::uint8_t i = 0; i < 10; ++i) digits[static_cast<std::size_t>('0' + i)] = i;
  for (std::uint8_t i = 0; i < 6; ++i) {
    digits[static_cast<std::size_t>('a' + i)] = static_cast<std::uint8_t>(10 + i);
    digits[static_cast<std::size_t>('A' + i)] = static_cast<std::uint8_t>(10 + i);
  }
  return digits;
}

constexpr Digits kBase64 = make_base64();
constexpr Digits kBase32 = make_base32();
constexpr Digits kHex = make_hex();

// Whether bytes could begin a text in UTF-8. The last character may be cut off; overlong forms and
// surrogates pass, for they are rare.
bool begins_utf8(const std::uint8_t* bytes, std::size_t size) noexcept {
  std::size_t i = 0;
  while (i < size) {
    const std::uint8_t lead = bytes[i++];
    if (lead < 0x80) continue;
    if (lead < 0xC2 || lead > 0xF4) return false;
    const std::size_t more = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    for (std::size_t k = 0; k < more && i < size; ++k, ++i) {
      if ((bytes[i] & 0xC0U) != 0x80) return false;
    }
  }
  return true;
}

// Latin letters in UTF-16: every second byte is 0.
bool begins_utf16(const std::uint8_t* bytes, std::size_t size) noexcept {
  for (std::size_t i = 1; i < size; i += 2) {
    if (bytes[i] != 0) return false;
  }
  return true;
}

// The whole bytes of the characters, `bits` each, or no text where one is not in the alphabet.
bool says_text(const char* chars, std::size_t size, const Digits& digits, unsigned bits) noexcept {
  std::array<std::uint8_t, kRunSample> bytes{};
  std::size_t filled = 0;
  std::uint32_t held = 0;
  unsigned n_held = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const std::uint8_t digit = digits[static_cast<unsigned char>(chars[i]) & 127U];
    if (digit == kNoDigit) return false;
    held = (held << bits) | digit;
    n_held += bits;
    if (n_held >= 8) {
      n_held -= 8;
      bytes[filled++] = static_cast<std::uint8_t>(held >> n_held);
    }
  }
  return begins_utf8(bytes.data(), filled) || begins_utf16(bytes.data(), filled);
}

}  // namespace

bool may_be_encoded(const char* chars, std::size_t size) noexcept {
  size = std::min(size, kRunSample);
  if (std::all_of(chars, chars + size, [](char c) { return c == '0' || c == '1'; })) return true;
  // Whole groups alone: what is left over may be filled up from the next line.
  return says_text(chars, size & ~std::size_t{3}, kBase64, 6) ||
         says_text(chars, size & ~std::size_t{7}, kBase32, 5) ||
         says_text(chars, size & ~std::size_t{1}, kHex, 4);
}

}  // namespace raxe_fast
