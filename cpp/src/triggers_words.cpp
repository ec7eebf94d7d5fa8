#include "triggers_words.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace raxe_fast {
namespace {

constexpr std::size_t kHead = 4;  // units of a record before its spelling

}  // namespace

WordTable::WordTable(const std::vector<Word>& words) {
  // At most 5 of 8 buckets are taken: few searches leave their cache line.
  mask_ = std::bit_ceil(words.size() * 8 / 5 + 2) - 1;
  buckets_.resize(mask_ + 1);
  prefixes_.resize(std::size_t{1} << (kPrefixBits - 6));
  std::vector<std::uint16_t> records{0};  // 0 means an empty bucket
  for (const Word& word : words) {
    std::uint64_t hash = kEmptyWord;
    std::vector<std::uint8_t> spelling(word.text.size() * kMaxSpelling);
    std::size_t bytes = 0;
    for (const char32_t c : word.text) {
      hash = hash_letter(hash, c);
      bytes += spell(c, spelling.data() + bytes);
    }
    longest_ = std::max(longest_, word.text.size());
    if (word.prefix) {
      longest_prefix_ = std::max(longest_prefix_, word.text.size());
      const std::uint64_t bit = hash >> (64 - kPrefixBits);
      prefixes_[bit / 64] |= std::uint64_t{1} << (bit % 64);
    }

    std::vector<std::uint16_t> blocks;
    std::size_t head = 0;
    for (const std::uint32_t entry : word.entries) {
      const auto upper = static_cast<std::uint16_t>(entry >> 16);
      if (blocks.empty() || blocks[head] != upper) {
        head = blocks.size();
        blocks.insert(blocks.end(), {upper, 0});
      } else {
        ++blocks[head + 1];
      }
      blocks.push_back(static_cast<std::uint16_t>(entry & 0xFFFF));
    }

    const std::size_t size = kHead + (bytes + 1) / 2 + blocks.size();
    // A record that fits into a line must not lie across two.
    const std::size_t at_line = records.size() % kLine;
    if (size <= kLine && at_line + size > kLine) {
      records.resize(records.size() + kLine - at_line);
    }
    const std::size_t begin = records.size();
    if (begin + size > std::numeric_limits<std::uint32_t>::max() ||
        bytes > std::numeric_limits<std::uint16_t>::max()) {
      throw std::invalid_argument("triggers: too many words, or one too long");
    }
    const std::uint64_t sought = key(hash, word.prefix);
    std::size_t at = home(sought);
    while (buckets_[at].record != 0) {
      at = (at + 1) & mask_;
    }
    const std::size_t lines = (begin % kLine + size - 1) / kLine;
    buckets_[at] = {tag(sought), static_cast<std::uint16_t>(std::min<std::size_t>(lines, 255)),
                    static_cast<std::uint32_t>(begin)};
    const std::size_t count = blocks.size();
    records.insert(records.end(),
                   {static_cast<std::uint16_t>(bytes), static_cast<std::uint16_t>(word.prefix),
                    static_cast<std::uint16_t>(count & 0xFFFF),
                    static_cast<std::uint16_t>(count >> 16)});
    records.resize(begin + kHead + (bytes + 1) / 2);
    std::memcpy(records.data() + begin + kHead, spelling.data(), bytes);
    records.insert(records.end(), blocks.begin(), blocks.end());
  }
  records_ = settle(records);
}

bool WordTable::find(std::uint64_t key, std::uint32_t bucket, const std::uint8_t* spelling,
                     std::size_t bytes, bool prefix, Entries& entries) const noexcept {
  for (std::size_t at = bucket; buckets_[at].record != 0; at = (at + 1) & mask_) {
    if (buckets_[at].tag != tag(key)) {
      continue;
    }
    const std::uint16_t* const record = records_.data() + buckets_[at].record;
    if (record[0] == bytes && (record[1] != 0) == prefix &&
        std::memcmp(record + kHead, spelling, bytes) == 0) {
      entries = {record + kHead + (bytes + 1) / 2, record[2] + (std::size_t{record[3]} << 16)};
      return true;
    }
  }
  return false;
}

void WordTable::prefetch() const noexcept {
  for (std::size_t i = 0; i < prefixes_.size(); i += 8) {
    __builtin_prefetch(prefixes_.data() + i);
  }
}

}  // namespace raxe_fast
