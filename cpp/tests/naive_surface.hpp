// The statistics of surface.hpp the slow way: one pass over the text for each of them.
#pragma once

#include <cmath>
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "raxe_fast/normalize.hpp"

namespace raxe_fast::naive {

inline bool is_space(char32_t c) {
  if (c < 128) return std::u32string_view(U" \t\n\v\f\r").find(c) != std::u32string_view::npos;
  return normalize({&c, 1, 4}, Ignorables::drop).chars == U" ";
}

inline bool is_control(char32_t c) {
  if (c < 128) return (c < 0x20 || c == 0x7F) && !is_space(c);
  return normalize({&c, 1, 4}, Ignorables::drop).had_ignorable;
}

inline std::vector<double> surface(const std::u32string& text) {
  if (text.empty()) return std::vector<double>(10, 0.0);
  const auto size = static_cast<double>(text.size());
  const auto number = [&](const std::function<bool(char32_t)>& test) {
    double n = 0.0;
    for (const char32_t c : text) n += test(c) ? 1.0 : 0.0;
    return n;
  };
  const auto capital = [](char32_t c) { return c >= U'A' && c <= U'Z'; };
  const auto small = [](char32_t c) { return c >= U'a' && c <= U'z'; };
  const auto digit = [](char32_t c) { return c >= U'0' && c <= U'9'; };
  const auto punctuation = [&](char32_t c) {
    return c > U' ' && c < 0x7F && !capital(c) && !small(c) && !digit(c);
  };
  const double capitals = number(capital), letters = capitals + number(small);

  std::map<char32_t, double> low;
  for (const char32_t c : text) low[c % 128] += 1.0;
  double entropy = 0.0;
  for (const auto& [unit, n] : low) entropy += n / size * std::log2(size / n);

  std::vector<double> runs{0.0};
  for (const char32_t c : text) {
    if (!is_space(c)) {
      runs.back() += 1.0;
    } else if (runs.back() > 0.0) {
      runs.push_back(0.0);
    }
  }
  if (runs.back() == 0.0) runs.pop_back();
  double longest = 0.0, sum = 0.0;
  for (const double run : runs) {
    longest = std::fmax(longest, run);
    sum += run;
  }
  return {std::log(1.0 + size),
          letters == 0.0 ? 0.0 : capitals / letters,
          number(digit) / size,
          number([](char32_t c) { return c > 127; }) / size,
          number(is_space) / size,
          number(punctuation) / size,
          number(is_control) / size,
          entropy,
          std::log(1.0 + longest),
          runs.empty() ? 0.0 : sum / static_cast<double>(runs.size())};
}

}  // namespace raxe_fast::naive
