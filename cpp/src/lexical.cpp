#include "raxe_fast/lexical.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "raxe_fast/cpu.hpp"
#include "raxe_fast/normalize.hpp"

namespace raxe_fast {
namespace {

constexpr std::uint32_t kOffset = 2166136261U, kPrime = 16777619U;  // FNV-1a, 32 bits
constexpr std::uint32_t kSaltCharacters = 0x9E3779B9U, kSaltWord = 0x85EBCA6BU,
                        kSaltPair = 0xC2B2AE35U;
constexpr std::size_t kShortest = 3, kLongest = 5, kKinds = kLongest - kShortest + 1;
// Characters whose n-grams are hashed together.
constexpr std::size_t kTogether = 16;

// Spreads what FNV leaves in the high bits (the finaliser of MurmurHash3). `Hash` is one or many.
template <typename Hash>
[[gnu::always_inline]] inline void spread(Hash& h) noexcept {
  h ^= h >> 16;
  h *= 0x85EBCA6BU;
  h ^= h >> 13;
  h *= 0xC2B2AE35U;
  h ^= h >> 16;
}

std::uint32_t finalise(std::uint32_t h) noexcept {
  spread(h);
  return h;
}

std::uint32_t step(std::uint32_t h, char32_t c) noexcept {
  return (h ^ static_cast<std::uint32_t>(c)) * kPrime;
}

// What the normaliser makes of ASCII, and the classes of what it makes.
struct Ascii {
  char32_t mapped;
  CharClass kind;  // of `mapped`
};

constexpr std::array<Ascii, 128> make_ascii() {
  std::array<Ascii, 128> out{};
  for (char32_t c = 0; c < 128; ++c) {
    char32_t m = c;
    if (c < 0x20 || c == 0x7F) m = U' ';
    if (c >= U'A' && c <= U'Z') m = c + 32;
    const bool word = (m >= U'a' && m <= U'z') || (m >= U'0' && m <= U'9') || m == U'_';
    out[c] = {m, word ? CharClass::word : CharClass::separator};
  }
  return out;
}

constexpr std::array<Ascii, 128> kAscii = make_ascii();

CharClass class_of(char32_t c) noexcept { return c < 128 ? kAscii[c].kind : char_class(c); }

// The text to be read, between as many characters as the hashing may look at before and behind it.
constexpr std::size_t kBefore = kLongest - 1, kBehind = kTogether;

// Returns its length; it begins at out[kBefore].
template <typename Unit>
std::size_t read(const Unit* text, std::size_t begin, std::size_t end, std::u32string& out) {
  const auto room = [&](std::size_t at, std::size_t more) {
    const std::size_t need = at + more + 1 + kBehind;
    if (out.size() < need) out.resize(std::max(need, out.size() + out.size() / 2));
  };
  std::size_t at = kBefore;
  room(at + 1, end > begin ? end - begin : 0);
  std::fill(out.begin(), out.begin() + kBefore, U'\0');
  out[at++] = U' ';
  const auto write = [&](char32_t unit) {
    out[at] = unit;
    at += static_cast<std::size_t>(unit != U' ' || out[at - 1] != U' ');
  };
  for (std::size_t i = begin; i < end; ++i) {
    const auto c = static_cast<char32_t>(text[i]);
    if (c < 128) {
      write(kAscii[c].mapped);
      continue;
    }
    const Mapped mapped = map_code_point(c);
    room(at + mapped.count, end - i - 1);
    for (std::size_t k = 0; k < mapped.count; ++k) {
      write(mapped.chars == nullptr ? c : mapped.chars[k]);
    }
  }
  write(U' ');
  std::fill_n(out.begin() + static_cast<std::ptrdiff_t>(at), kBehind, U'\0');
  return at - kBefore;
}

std::size_t read(TextView text, std::size_t begin, std::size_t end, std::u32string& out) {
  switch (text.width) {
    case 1:
      return read(static_cast<const std::uint8_t*>(text.data), begin, end, out);
    case 2:
      return read(static_cast<const std::uint16_t*>(text.data), begin, end, out);
    default:
      return read(static_cast<const std::uint32_t*>(text.data), begin, end, out);
  }
}

// Hashes of the character n-grams that end at chars[0, kTogether): by length, then by end.
struct Hashes {
  std::uint32_t of[kKinds][kTogether];
};

[[gnu::always_inline]] inline void hash_together(const char32_t* chars, Hashes& out) {
  using Many = std::uint32_t __attribute__((vector_size(kTogether * sizeof(std::uint32_t))));
  Many h = Many{} + kOffset;
  for (std::size_t n = 1; n <= kLongest; ++n) {
    Many c;
    std::memcpy(&c, chars + 1 - n, sizeof c);
    h = (h ^ c) * kPrime;
    if (n < kShortest) continue;
    Many done = h ^ (kSaltCharacters * static_cast<std::uint32_t>(n));
    spread(done);
    std::memcpy(out.of[n - kShortest], &done, sizeof done);
  }
}

using HashKernel = void (*)(const char32_t*, Hashes&);

void hash_scalar(const char32_t* chars, Hashes& out) { hash_together(chars, out); }

// Indexed by vector_level().
#if defined(__x86_64__)
[[gnu::target("avx2")]] void hash_avx2(const char32_t* chars, Hashes& out) {
  hash_together(chars, out);
}
[[gnu::target("avx512f")]] void hash_avx512(const char32_t* chars, Hashes& out) {
  hash_together(chars, out);
}
constexpr std::array<HashKernel, 3> kHash{hash_scalar, hash_avx2, hash_avx512};
#else
constexpr std::array<HashKernel, 3> kHash{hash_scalar, hash_scalar, hash_scalar};
#endif

// Adds up columns [0, Chunks * 16) of the rows. Sums of 256 values of int8 fit into int16.
template <std::size_t Chunks>
[[gnu::always_inline]] inline void add_columns(const std::int8_t* table, std::size_t stride,
                                               const std::uint32_t* rows, std::size_t count,
                                               std::int32_t* sums) {
  using Bytes = std::int8_t __attribute__((vector_size(16)));
  using Words = std::int16_t __attribute__((vector_size(32)));
  for (std::size_t begin = 0; begin < count; begin += 256) {
    const std::size_t end = std::min(count, begin + 256);
    Words part[Chunks] = {};
    for (std::size_t i = begin; i < end; ++i) {
      const std::int8_t* const row = table + rows[i] * stride;
      for (std::size_t c = 0; c < Chunks; ++c) {
        Bytes values;
        std::memcpy(&values, row + c * 16, sizeof values);
        part[c] += __builtin_convertvector(values, Words);
      }
    }
    for (std::size_t k = 0; k < Chunks * 16; ++k) sums[k] += part[k / 16][k % 16];
  }
}

using AddKernel = void (*)(const std::int8_t*, std::size_t, const std::uint32_t*, std::size_t,
                           std::int32_t*);

template <std::size_t Chunks>
void add_scalar(const std::int8_t* table, std::size_t stride, const std::uint32_t* rows,
                std::size_t count, std::int32_t* sums) {
  add_columns<Chunks>(table, stride, rows, count, sums);
}

// Indexed by chunks - 1. AVX-512 would have nothing to add: a chunk fills a register of AVX2.
using AddKernels = std::array<AddKernel, 4>;
constexpr AddKernels kAddScalar{add_scalar<1>, add_scalar<2>, add_scalar<3>, add_scalar<4>};
#if defined(__x86_64__)
template <std::size_t Chunks>
[[gnu::target("avx2")]] void add_avx2(const std::int8_t* table, std::size_t stride,
                                      const std::uint32_t* rows, std::size_t count,
                                      std::int32_t* sums) {
  add_columns<Chunks>(table, stride, rows, count, sums);
}
constexpr AddKernels kAddAvx2{add_avx2<1>, add_avx2<2>, add_avx2<3>, add_avx2<4>};
const AddKernels& add_kernels() noexcept {
  return active_isa() == Isa::scalar ? kAddScalar : kAddAvx2;
}
#else
const AddKernels& add_kernels() noexcept { return kAddScalar; }
#endif

constexpr std::size_t kLine = 64;

// 16, 32, or whole lines; narrower rows stay as they are.
std::size_t stride_of(std::size_t width) noexcept {
  if (width < 16) return width;
  if (width <= 32) return width <= 16 ? 16 : 32;
  return (width + kLine - 1) / kLine * kLine;
}

}  // namespace

void ngram_hashes(TextView text, std::size_t begin, std::size_t end, std::u32string& scratch,
                  std::vector<std::uint32_t>& out) {
  const std::size_t size = read(text, begin, std::min(end, text.length), scratch);
  const char32_t* const chars = scratch.data() + kBefore;
  const HashKernel hash = kHash[vector_level()];
  const std::size_t before_all = out.size();
  // At most a word and a pair for each character, and one n-gram of each length.
  out.resize(before_all + size * (kKinds + 2));
  std::uint32_t* next = out.data() + before_all;

  std::uint32_t word = kOffset, before = 0;
  bool inside = false, some = false;
  const auto close = [&] {
    if (!inside) return;
    *next++ = finalise(word ^ kSaltWord);
    if (some) *next++ = finalise((before * kPrime ^ word) ^ kSaltPair);
    before = word;
    some = true;
    inside = false;
    word = kOffset;
  };
  Hashes together;
  for (std::size_t i = 0; i < size; ++i) {
    if (i % kTogether == 0) hash(chars + i, together);
    const char32_t c = chars[i];
    const CharClass kind = class_of(c);
    if (kind != CharClass::word) close();
    if (kind != CharClass::separator) {
      word = step(word, c);
      inside = true;
      if (kind == CharClass::unspaced) close();
    }
    // The first characters end no n-gram that is longer than the text before them.
    const std::size_t kinds = i + 1 < kShortest ? 0 : std::min(kKinds, i + 2 - kShortest);
    for (std::size_t n = 0; n < kinds; ++n) *next++ = together.of[n][i % kTogether];
  }
  close();
  out.resize(static_cast<std::size_t>(next - out.data()));
}

LexicalModel::LexicalModel(const std::vector<std::int8_t>& table, unsigned bits,
                           const std::vector<float>& scale, const std::vector<float>& bias)
    : stride_(stride_of(scale.size())), scale_(scale), bias_(bias), mask_(0) {
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
  const std::size_t width = scale.size();
  table_.assign((std::size_t{mask_} + 1) * stride_, 0);
  for (std::size_t row = 0; row <= mask_; ++row) {
    std::copy_n(table.data() + row * width, width, table_.data() + row * stride_);
  }
}

void LexicalModel::operator()(const std::vector<std::uint32_t>& hashes, LexicalScratch& scratch,
                              float* out) const {
  const std::size_t width = scale_.size();
  const std::int8_t* const table = table_.data();
  std::vector<std::uint64_t>& seen = scratch.seen;
  if (seen.size() * 64 < std::size_t{mask_} + 1) seen.resize((std::size_t{mask_} >> 6) + 1, 0);
  scratch.rows.resize(hashes.size());
  std::uint32_t* const rows = scratch.rows.data();

  // Every row is asked for as soon as it is known: after an encoder call they are far away.
  std::size_t count = 0;
  for (const std::uint32_t hash : hashes) {
    const std::uint32_t row = hash & mask_, bit = row & 63U;
    __builtin_prefetch(table + row * stride_);
    std::uint64_t& word = seen[row >> 6];
    rows[count] = row;
    count += 1U - (word >> bit & 1U);  // a branch would be foretold badly
    word |= std::uint64_t{1} << bit;
  }
  for (std::size_t i = 0; i < count; ++i) seen[rows[i] >> 6] = 0;

  const float norm = count == 0 ? 0.0F : 1.0F / std::sqrt(static_cast<float>(count));
  const auto put = [&](std::size_t k, std::int32_t sum) {
    out[k] = scale_[k] * static_cast<float>(sum) * norm + bias_[k];
  };
  if (stride_ < 16) {
    for (std::size_t k = 0; k < width; ++k) {
      std::int32_t sum = 0;
      for (std::size_t i = 0; i < count; ++i) sum += table[rows[i] * stride_ + k];
      put(k, sum);
    }
    return;
  }
  const AddKernels& add = add_kernels();
  for (std::size_t begin = 0; begin < width; begin += kLine) {
    std::int32_t sums[kLine] = {};
    const std::size_t columns = std::min(kLine, width - begin);
    add[(columns - 1) / 16](table + begin, stride_, rows, count, sums);
    for (std::size_t k = 0; k < columns; ++k) put(begin + k, sums[k]);
  }
}

}  // namespace raxe_fast
