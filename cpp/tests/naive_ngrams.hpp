// The n-grams of lexical.hpp the slow way: every one cut out as a string and hashed on its own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "raxe_fast/normalize.hpp"
#include "raxe_fast/text.hpp"

namespace raxe_fast::naive {

inline std::uint32_t fnv1a(const std::u32string& units) {
  std::uint32_t h = 2166136261U;
  for (const char32_t c : units) {
    h ^= static_cast<std::uint32_t>(c);
    h *= 16777619U;
  }
  return h;
}

// fmix32 of MurmurHash3.
inline std::uint32_t fmix(std::uint32_t h) {
  h ^= h >> 16;
  h *= 0x85EBCA6BU;
  h ^= h >> 13;
  h *= 0xC2B2AE35U;
  h ^= h >> 16;
  return h;
}

// The normalised code points [begin, end) between two spaces, runs of spaces as one.
inline std::u32string padded(TextView text, std::size_t begin, std::size_t end) {
  std::u32string window;
  for (std::size_t i = begin; i < end && i < text.length; ++i) window.push_back(text[i]);
  // Appended, not joined with +: gcc 12 warns of the insertion at the front (its bug 105651).
  std::u32string normal(1, U' ');
  normal += normalize({window.data(), window.size(), 4}, Ignorables::drop).chars;
  normal += U' ';
  std::u32string out;
  for (const char32_t c : normal) {
    if (c == U' ' && !out.empty() && out.back() == U' ') continue;
    out.push_back(c);
  }
  return out;
}

inline std::vector<std::u32string> words(const std::u32string& text) {
  std::vector<std::u32string> out;
  std::u32string word;
  const auto flush = [&] {
    if (!word.empty()) out.push_back(word);
    word.clear();
  };
  for (const char32_t c : text) {
    const CharClass kind = char_class(c);
    if (kind != CharClass::word) flush();
    if (kind != CharClass::separator) word.push_back(c);
    if (kind == CharClass::unspaced) flush();
  }
  flush();
  return out;
}

// Sorted, repeats kept.
inline std::vector<std::uint32_t> hashes(TextView text, std::size_t begin, std::size_t end) {
  const std::u32string all = padded(text, begin, end);
  std::vector<std::uint32_t> out;
  for (std::uint32_t n = 3; n <= 5; ++n) {
    for (std::size_t i = 0; i + n <= all.size(); ++i) {
      std::u32string gram = all.substr(i, n);
      std::reverse(gram.begin(), gram.end());  // read backwards from its end
      out.push_back(fmix(fnv1a(gram) ^ (0x9E3779B9U * n)));
    }
  }
  const std::vector<std::u32string> list = words(all);
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::uint32_t here = fnv1a(list[i]);
    out.push_back(fmix(here ^ 0x85EBCA6BU));
    if (i == 0) continue;
    out.push_back(fmix((fnv1a(list[i - 1]) * 16777619U) ^ here ^ 0xC2B2AE35U));
  }
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace raxe_fast::naive
