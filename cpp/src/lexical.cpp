#include "raxe_fast/lexical.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "raxe_fast/normalize.hpp"

namespace raxe_fast {
namespace {

constexpr std::uint32_t kOffset = 2166136261U, kPrime = 16777619U;  // FNV-1a, 32 bits
constexpr std::uint32_t kSaltCharacters = 0x9E3779B9U, kSaltWord = 0x85EBCA6BU,
                        kSaltPair = 0xC2B2AE35U;
constexpr std::size_t kShortest = 3, kLongest = 5;
// Table rows are asked for this many n-grams ahead: after an encoder call they are far away.
constexpr std::size_t kAhead = 16;

// Spreads what FNV leaves in the high bits (the finaliser of MurmurHash3).
std::uint32_t finalise(std::uint32_t h) noexcept {
  h ^= h >> 16;
  h *= 0x85EBCA6BU;
  h ^= h >> 13;
  h *= 0xC2B2AE35U;
  return h ^ (h >> 16);
}

std::uint32_t step(std::uint32_t h, char32_t c) noexcept {
  return (h ^ static_cast<std::uint32_t>(c)) * kPrime;
}

void read(TextView text, std::size_t begin, std::size_t end, std::u32string& out) {
  out.assign(1, U' ');
  for (std::size_t i = begin; i < end; ++i) {
    const char32_t c = text[i];
    const Mapped mapped = map_code_point(c);
    for (std::size_t k = 0; k < mapped.count; ++k) {
      const char32_t unit = mapped.chars == nullptr ? c : mapped.chars[k];
      if (unit != U' ' || out.back() != U' ') out.push_back(unit);
    }
  }
  if (out.back() != U' ') out.push_back(U' ');
}

}  // namespace

void ngram_hashes(TextView text, std::size_t begin, std::size_t end, std::u32string& scratch,
                  std::vector<std::uint32_t>& out) {
  read(text, begin, std::min(end, text.length), scratch);
  std::uint32_t word = kOffset, before = 0;
  bool inside = false, some = false;
  const auto close = [&] {
    if (!inside) return;
    out.push_back(finalise(word ^ kSaltWord));
    if (some) out.push_back(finalise((before * kPrime ^ word) ^ kSaltPair));
    before = word;
    some = true;
    inside = false;
    word = kOffset;
  };
  const std::size_t size = scratch.size();
  for (std::size_t i = 0; i < size; ++i) {
    const char32_t c = scratch[i];
    const CharClass kind = char_class(c);
    if (kind != CharClass::word) close();
    if (kind != CharClass::separator) {
      word = step(word, c);
      inside = true;
      if (kind == CharClass::unspaced) close();
    }
    std::uint32_t h = kOffset;
    const std::size_t longest = std::min(kLongest, i + 1);
    for (std::size_t n = 1; n <= longest; ++n) {
      h = step(h, scratch[i + 1 - n]);
      if (n >= kShortest) {
        out.push_back(finalise(h ^ (kSaltCharacters * static_cast<std::uint32_t>(n))));
      }
    }
  }
  close();
}

LexicalModel::LexicalModel(const std::vector<std::int8_t>& table, unsigned bits,
                           const std::vector<float>& scale, const std::vector<float>& bias)
    : table_(settle(table)), scale_(scale), bias_(bias), mask_(0) {
  const auto bad = [](const char* what) { throw std::invalid_argument(what); };
  if (bits < 1 || bits > 24) bad("lexical model: bits must be from 1 to 24");
  if (scale.empty() || scale.size() != bias.size()) bad("lexical model: scale and bias differ");
  if (table.size() != (std::size_t{1} << bits) * scale.size()) {
    bad("lexical model: the table has another size");
  }
  for (std::size_t k = 0; k < scale.size(); ++k) {
    if (!std::isfinite(scale[k]) || !std::isfinite(bias[k])) {
      bad("lexical model: a value is not finite");
    }
  }
  mask_ = (1U << bits) - 1U;
}

void LexicalModel::operator()(const std::vector<std::uint32_t>& hashes, LexicalScratch& scratch,
                              float* out) const {
  const std::size_t n = hashes.size(), width = scale_.size();
  const std::int8_t* const table = table_.data();
  std::vector<std::uint64_t>& seen = scratch.seen;
  if (seen.size() * 64 < std::size_t{mask_} + 1) seen.resize((std::size_t{mask_} >> 6) + 1, 0);

  std::fill(out, out + width, 0.0F);
  std::size_t rows = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (i + kAhead < n) __builtin_prefetch(table + (hashes[i + kAhead] & mask_) * width);
    const std::uint32_t row = hashes[i] & mask_;
    const std::uint64_t bit = std::uint64_t{1} << (row & 63U);
    if ((seen[row >> 6] & bit) != 0) continue;
    seen[row >> 6] |= bit;
    ++rows;
    // Sums of int8 are exact in float32 for the first 2^17 rows.
    const std::int8_t* const values = table + row * width;
    for (std::size_t k = 0; k < width; ++k) out[k] += static_cast<float>(values[k]);
  }
  for (const std::uint32_t hash : hashes) seen[(hash & mask_) >> 6] = 0;

  const float norm = rows == 0 ? 0.0F : 1.0F / std::sqrt(static_cast<float>(rows));
  for (std::size_t k = 0; k < width; ++k) out[k] = scale_[k] * out[k] * norm + bias_[k];
}

}  // namespace raxe_fast
