#include <algorithm>
#include <bit>
#include <stdexcept>

#include "raxe_fast/encoding_signs.hpp"

namespace raxe_fast {
namespace {

constexpr std::uint64_t kSpread = 0x9E3779B97F4A7C15U;  // 2^64 over the golden ratio
constexpr std::size_t kLeast = 8;

std::uint64_t packed(const std::u32string& word) {
  if (word.empty() || word.size() > kMaxPacked) {
    throw std::invalid_argument("words: one is not of 1 to 12 letters");
  }
  std::uint64_t out = 0;
  for (const char32_t c : word) {
    if (c < U'a' || c > U'z') throw std::invalid_argument("words: one is not all letters a to z");
    out = pack_letter(out, c);
  }
  return out;
}

}  // namespace

PackedWords::PackedWords(const std::vector<Item>& items) {
  // At most half full, so that a search ends soon.
  const std::size_t size = std::bit_ceil(std::max(kLeast, 2 * items.size()));
  shift_ = 64U - static_cast<unsigned>(std::countr_zero(size));
  words_.resize(size);
  values_.resize(size);
  for (const Item& item : items) {
    const std::uint64_t word = packed(item.word);
    std::size_t place = static_cast<std::size_t>((word * kSpread) >> shift_);
    while (words_[place] != 0) {
      if (words_[place] == word) throw std::invalid_argument("words: one appears twice");
      place = (place + 1) & (size - 1);
    }
    words_[place] = word;
    values_[place] = item.value;
  }
}

std::size_t PackedWords::find(std::uint64_t word) const noexcept {
  if (word == 0) return kNone;
  std::size_t place = static_cast<std::size_t>((word * kSpread) >> shift_);
  while (words_[place] != word) {
    if (words_[place] == 0) return kNone;
    place = (place + 1) & (words_.size() - 1);
  }
  return place;
}

}  // namespace raxe_fast
