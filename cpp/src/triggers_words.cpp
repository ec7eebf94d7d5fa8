#include "triggers_words.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace raxe_fast {
namespace {

constexpr std::size_t kLine = 16;  // entries of records_ in a cache line

}  // namespace

WordTable::WordTable(const std::vector<Word>& words) {
  // At most 5 of 8 buckets are taken: few searches leave their cache line.
  mask_ = std::bit_ceil(words.size() * 8 / 5 + 2) - 1;
  buckets_.assign(mask_ + 1, {});
  records_.assign(1, 0);  // 0 means an empty bucket
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

    const std::size_t units = (bytes + 3) / 4;
    const std::size_t size = 2 + units + word.entries.size();
    // A record that fits into a line must not lie across two. (The vector itself need not start on
    // a line; malloc puts large blocks 16 bytes after one, so records_[12] starts one.)
    const std::size_t at_line = (records_.size() + 4) % kLine;
    if (size <= kLine && at_line + size > kLine) {
      records_.resize(records_.size() + kLine - at_line);
    }
    if (records_.size() + size > std::numeric_limits<std::uint32_t>::max() || bytes >= kIsPrefix) {
      throw std::invalid_argument("triggers: too many words");
    }
    const std::uint64_t sought = key(hash, word.prefix);
    std::size_t at = home(sought);
    while (buckets_[at].record != 0) {
      at = (at + 1) & mask_;
    }
    buckets_[at] = {tag(sought), static_cast<std::uint32_t>(records_.size())};
    records_.push_back(static_cast<std::uint32_t>(bytes) | (word.prefix ? kIsPrefix : 0));
    records_.push_back(static_cast<std::uint32_t>(word.entries.size()));
    const std::size_t begin = records_.size();
    records_.resize(begin + units);
    std::memcpy(records_.data() + begin, spelling.data(), bytes);
    records_.insert(records_.end(), word.entries.begin(), word.entries.end());
  }
}

bool WordTable::find(std::uint64_t key, std::uint32_t bucket, const std::uint8_t* spelling,
                     std::size_t bytes, bool prefix,
                     std::span<const std::uint32_t>& entries) const noexcept {
  const std::uint32_t head = static_cast<std::uint32_t>(bytes) | (prefix ? kIsPrefix : 0);
  for (std::size_t at = bucket; buckets_[at].record != 0; at = (at + 1) & mask_) {
    if (buckets_[at].tag != tag(key)) {
      continue;
    }
    const std::uint32_t* const record = records_.data() + buckets_[at].record;
    if (record[0] == head && std::memcmp(record + 2, spelling, bytes) == 0) {
      entries = {record + 2 + (bytes + 3) / 4, record[1]};
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

std::size_t WordTable::bytes() const noexcept {
  return prefixes_.size() * 8 + buckets_.size() * sizeof(Bucket) + records_.size() * 4;
}

}  // namespace raxe_fast
