// The words and word prefixes of all phrases, as one hash table made for a cold cache.
//
// After an encoder call every new cache line costs a trip to memory (0.1 us and more), so what
// counts is the number of lines touched one after another. A trie costs one for nearly each letter;
// here a word costs two: its bucket and its record. Both can be asked for before they are needed,
// so the lines of many words arrive together. With the filter of triggers_literals.hpp and the
// batches of triggers_scratch.hpp, a text of 64 tokens after an encoder call takes 12 to 16 us
// instead of 46 to 66. A record holds the spelling too: no answer rests on a hash.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "raxe_fast/model_memory.hpp"

namespace raxe_fast {

// Spelling of a word: ASCII as it is, any other code point as kWideChar and its four bytes.
inline constexpr std::size_t kMaxSpelling = 5;  // bytes per code point

inline std::size_t spell(char32_t c, std::uint8_t* out) noexcept {
  if (c < 128) {
    out[0] = static_cast<std::uint8_t>(c);
    return 1;
  }
  out[0] = 0xFF;
  for (std::size_t i = 0; i < 4; ++i) {
    out[i + 1] = static_cast<std::uint8_t>(c >> (8 * i));
  }
  return kMaxSpelling;
}

// Hash of a word, letter by letter; the upper bits are the good ones.
inline constexpr std::uint64_t kEmptyWord = 0xCBF29CE484222325;

constexpr std::uint64_t hash_letter(std::uint64_t hash, char32_t c) noexcept {
  return (hash ^ c) * 0x9E3779B97F4A7C15;
}

class WordTable {
 public:
  struct Word {
    std::u32string text;
    bool prefix = false;                 // stands for every word that starts with it
    std::vector<std::uint32_t> entries;  // what find() gives; ascending
  };

  WordTable() = default;
  // (text, prefix) must be unique.
  explicit WordTable(const std::vector<Word>& words);

  // Code points of the longest word or prefix; what lies beyond needs no spelling.
  [[nodiscard]] std::size_t longest() const noexcept { return longest_; }
  [[nodiscard]] std::size_t longest_prefix() const noexcept { return longest_prefix_; }

  // False: no prefix has this hash. One word in some 40 letters passes for nothing.
  [[nodiscard]] bool may_be_prefix(std::uint64_t hash) const noexcept {
    const std::uint64_t bit = hash >> (64 - kPrefixBits);
    return (prefixes_[bit / 64] >> (bit % 64) & 1) != 0;
  }

  // The entries of a word, ascending, in blocks of equal upper halves: what is not stored needs no
  // cache, and words have up to hundreds of entries.
  class Entries {
   public:
    Entries() = default;
    Entries(const std::uint16_t* first, std::size_t units) : at_(first), last_(first + units) {}
    // The next block: entries upper + lower[0 .. count); false: no more.
    bool next(std::uint32_t& upper, const std::uint16_t*& lower, std::size_t& count) noexcept {
      if (at_ == last_) {
        return false;
      }
      upper = std::uint32_t{at_[0]} << 16;
      count = at_[1] + std::size_t{1};
      lower = at_ + 2;
      at_ = lower + count;
      return true;
    }

   private:
    const std::uint16_t* at_ = nullptr;
    const std::uint16_t* last_ = nullptr;
  };

  // The key under which a word or prefix with this hash is kept.
  [[nodiscard]] static std::uint64_t key(std::uint64_t hash, bool prefix) noexcept {
    const std::uint64_t mixed = (hash ^ hash >> 32 ^ (prefix ? 0x5555 : 0)) * 0xD6E8FEB86659FD93;
    return mixed ^ mixed >> 32;
  }

  // The three steps of a search. The first two ask for the memory that the next one needs.
  void prefetch(std::uint64_t key) const noexcept { __builtin_prefetch(&buckets_[home(key)]); }
  // First bucket that may hold the key, or an empty one.
  [[nodiscard]] std::uint32_t locate(std::uint64_t key) const noexcept {
    std::size_t at = home(key);
    for (; buckets_[at].record != 0; at = (at + 1) & mask_) {
      if (buckets_[at].tag == tag(key)) {
        const std::uint16_t* const record = records_.data() + buckets_[at].record;
        for (std::size_t line = 0; line <= buckets_[at].lines; ++line) {
          __builtin_prefetch(record + line * kLine);
        }
        break;
      }
    }
    return static_cast<std::uint32_t>(at);
  }
  // Whether a word or prefix of that spelling is there, and its entries.
  [[nodiscard]] bool find(std::uint64_t key, std::uint32_t bucket, const std::uint8_t* spelling,
                          std::size_t bytes, bool prefix,
                          Entries& entries) const noexcept;

  void prefetch() const noexcept;  // the prefix filter: 2 KiB

 private:
  struct Bucket {
    std::uint16_t tag = 0;
    std::uint16_t lines = 0;   // cache lines of the record, less one
    std::uint32_t record = 0;  // 0: empty
  };
  static constexpr std::size_t kLine = 32;  // units of records_ in a cache line
  static constexpr unsigned kPrefixBits = 14;

  [[nodiscard]] std::size_t home(std::uint64_t key) const noexcept { return key & mask_; }
  static constexpr std::uint16_t tag(std::uint64_t key) noexcept {
    return static_cast<std::uint16_t>(key >> 48);
  }

  std::size_t longest_ = 0, longest_prefix_ = 0, mask_ = 0;
  ModelVector<std::uint64_t> prefixes_;
  ModelVector<Bucket> buckets_;
  // A record: bytes of spelling, 1 for a prefix, units of entries (low half first), spelling,
  // entries. A block of entries: upper half, number less one, lower halves.
  ModelVector<std::uint16_t> records_;
};

}  // namespace raxe_fast
