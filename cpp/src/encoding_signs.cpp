#include "raxe_fast/encoding_signs.hpp"

#include <algorithm>
#include <array>
#include <cstdint>

#include "encoding_kinds.hpp"
#include "encoding_lists.hpp"
#include "encoding_runs.hpp"
#include "encoding_words.hpp"

namespace raxe_fast {
namespace {

// What decoders ask for at least.
constexpr std::size_t kShortRun = 10;  // base-N characters before a =
constexpr std::size_t kLongRun = 16;   // and without
constexpr std::size_t kMinEscapes = 6;
constexpr std::size_t kMinOctals = 8;
constexpr std::size_t kMinLeetPairs = 3;
constexpr std::size_t kMinTags = 4;
constexpr std::size_t kMinSelectors = 4;
constexpr std::size_t kMinChanged = 5;  // letters in other styles, or marks
constexpr std::size_t kMarkPile = 3;    // accents that are as good as one mark

constexpr bool is_between(char32_t c, char32_t first, char32_t last) noexcept {
  return c >= first && c <= last;
}
constexpr bool is_octal(char32_t c) noexcept { return is_between(c, U'0', U'7'); }
constexpr bool is_digit(char32_t c) noexcept { return is_between(c, U'0', U'9'); }
constexpr bool is_alpha(char32_t c) noexcept {
  return is_between(c, U'a', U'z') || is_between(c, U'A', U'Z');
}
constexpr bool is_hex(char32_t c) noexcept {
  return is_digit(c) || is_between(c, U'a', U'f') || is_between(c, U'A', U'F');
}

// The signs of single characters and their neighbours.
template <typename Unit>
class CharSigns {
 public:
  // Of these, or of what stands right behind one, `note` is to be told; of the end, too.
  static constexpr Kind kNoteworthy = kSeparator | kLeetSign | kDot | kDash | kEscape | kBeyond;

  CharSigns(const Unit* text, std::size_t size) noexcept : text_(text), size_(size) {}

  void note(std::size_t i, Kind kind, Kind before) noexcept {
    if ((kind & kLetter) != 0) {
      leet_pairs_ += (before & kLeetSign) != 0;
      beside_letters_ |= before;
    } else if ((before & kLetter) != 0) {
      beside_letters_ |= kind;
    }
    if (((kind | before) & kDash) != 0 && ((kind | before) & kDot) != 0) morse_ = true;
    if ((kind & kSeparator) != 0) note_separator(i);
    if ((kind & kEscape) != 0) note_escape(i);
    if ((kind & kSelector) == 0) selectors_ = 0;
    if ((kind & kCombining) == 0) pile_ = 0;
    if ((kind & kBeyond) != 0) note_beyond(kind);
  }

  // Base-N characters [begin, end) between others.
  void run(std::size_t begin, std::size_t end) noexcept {
    const bool is_padded = at(end) == U'=';
    if (end - begin < (is_padded ? kShortRun : kLongRun) || (signs_ & kSignBaseN) != 0) return;
    if (!is_padded && is_alpha(at(begin)) &&
        std::all_of(text_ + begin + 1, text_ + end,
                    [](Unit c) { return is_between(c, U'a', U'z'); })) {
      return;  // a long word
    }
    if (at(begin) == U'0' && to_lower(at(begin + 1)) == U'x') begin += 2;
    std::array<char, kRunSample> sample{};
    const std::size_t size = std::min(end - begin, kRunSample);
    std::transform(text_ + begin, text_ + begin + size, sample.begin(),
                   [](Unit c) { return static_cast<char>(c); });
    if (may_be_encoded(sample.data(), size)) signs_ |= kSignBaseN;
  }

  // Characters of lists of codes [begin, end) between others.
  void list(std::size_t begin, std::size_t end) noexcept {
    if (end - begin < kMinList || (signs_ & kSignCodeList) != 0) return;
    if (may_be_codes(text_, begin, end)) signs_ |= kSignCodeList;
  }

  [[nodiscard]] std::uint32_t signs(std::size_t limit) const noexcept {
    // Only where this sign stands can the lower case of something beyond ASCII be ASCII.
    if ((seen_ & kKelvin) != 0) return kAllSigns;
    std::uint32_t signs = signs_;
    if (octals_ >= kMinOctals) signs |= kSignCodeList;
    if (std::max({percents_, entities_, escapes_}) >= kMinEscapes) signs |= kSignEscapes;
    if (morse_ && may_be_morse(text_, size_)) signs |= kSignMorse;
    if (tags_ >= kMinTags) signs |= kSignHidden;
    if (may_be_folded(limit)) signs |= kSignFolded;
    return signs;
  }
  [[nodiscard]] bool has_leet_pairs() const noexcept { return leet_pairs_ >= kMinLeetPairs; }

 private:
  [[nodiscard]] char32_t at(std::size_t i) const noexcept { return i < size_ ? text_[i] : U'\0'; }

  // The pattern of decode_spelling: a letter between each two of three equal separators.
  void note_separator(std::size_t i) noexcept {
    const char32_t c = at(i);
    if (at(i + 2) == c && at(i + 4) == c && is_alpha(at(i + 1)) && is_alpha(at(i + 3))) {
      signs_ |= kSignSpacing;
    }
  }

  void note_escape(std::size_t i) noexcept {
    const char32_t next = at(i + 1);
    if (at(i) == U'%') {
      percents_ += is_hex(next) && is_hex(at(i + 2));
    } else if (at(i) == U'&') {
      entities_ += is_entity(i + 1);
    } else {
      escapes_ += next == U'u' || next == U'x' || next == U'U';
      octals_ += is_octal(next) && is_octal(at(i + 2)) && is_octal(at(i + 3));
    }
  }

  // A name or a number of at most 10 characters, and a semicolon.
  [[nodiscard]] bool is_entity(std::size_t i) const noexcept {
    std::size_t end = i + (at(i) == U'#');
    while (end < i + 11 && (is_alpha(at(end)) || is_digit(at(end)))) ++end;
    return at(end) == U';' && end > i;
  }

  void note_beyond(Kind kind) noexcept {
    seen_ |= kind;
    ++beyond_;
    styled_ += (kind & kStyled) != 0;
    tags_ += (kind & kTag) != 0;
    marks_ += (kind & kMark) != 0;
    if ((kind & kSelector) != 0 && ++selectors_ == kMinSelectors) signs_ |= kSignHidden;
    if ((kind & kCombining) != 0 && ++pile_ == kMarkPile) {
      ++marks_;
      pile_ = 0;
    }
  }

  [[nodiscard]] bool may_be_folded(std::size_t limit) const noexcept {
    if (styled_ >= kMinChanged || marks_ >= kMinChanged) return true;
    if ((beside_letters_ & (kIgnorable | kForeign)) != 0) return true;
    if ((seen_ & kForeign) == 0) return false;
    // Of a text that is too long a part is judged. Else prose in another script is left alone.
    if (size_ > limit) return true;
    const auto latin = static_cast<std::size_t>(std::count_if(
        text_, text_ + size_, [](Unit c) { return is_alpha(c); }));
    return 2 * latin >= beyond_;
  }

  const Unit* text_;
  std::size_t size_;
  Kind seen_ = 0;            // beyond ASCII
  Kind beside_letters_ = 0;  // right before or after one
  std::size_t beyond_ = 0, styled_ = 0, marks_ = 0, pile_ = 0, tags_ = 0, selectors_ = 0;
  std::size_t percents_ = 0, entities_ = 0, escapes_ = 0, octals_ = 0, leet_pairs_ = 0;
  bool morse_ = false;
  std::uint32_t signs_ = 0;
};

}  // namespace

EncodingSigns::EncodingSigns(const Parts& parts)
    : coded_(parts.coded), leet_(folded(parts.common)), in_ay_(listed(parts.in_ay)) {}

std::vector<PackedWords::Item> EncodingSigns::listed(const std::vector<std::u32string>& words) {
  std::vector<PackedWords::Item> items;
  items.reserve(words.size());
  for (const std::u32string& word : words) items.push_back({word, 0});
  return items;
}

std::vector<PackedWords::Item> EncodingSigns::folded(const std::vector<std::u32string>& words) {
  std::vector<std::u32string> all(words);
  for (std::u32string& word : all) std::replace(word.begin(), word.end(), U'l', U'i');
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return listed(all);
}

template <typename Unit>
std::uint32_t EncodingSigns::look(const Unit* text, std::size_t size,
                                  std::size_t limit) const noexcept {
  CharSigns<Unit> chars(text, size);
  WordSigns<Unit> words(text, size, coded_, leet_, in_ay_);
  std::size_t run = 0, list = 0;
  Kind before = kSpace;
  for (std::size_t i = 0; i < size; ++i) {
    const Kind kind = kind_of(text[i]);
    if ((kind & kAlphabet) != 0) {
      ++run;
    } else {
      if (run >= kShortRun) chars.run(i - run, i);
      run = 0;
    }
    if ((kind & kListed) != 0) {
      ++list;
    } else {
      if (list >= kMinList) chars.list(i - list, i);
      list = 0;
    }
    if ((kind & kSpace) != 0) {
      words.space(i);
    } else {
      words.add(text[i], kind);
    }
    if (((kind | before) & CharSigns<Unit>::kNoteworthy) != 0) chars.note(i, kind, before);
    before = kind;
  }
  if (run != 0) chars.run(size - run, size);
  if (list != 0) chars.list(size - list, size);
  words.space(size);
  const std::uint32_t signs = chars.signs(limit) | words.signs();
  return chars.has_leet_pairs() || signs == kAllSigns ? signs : signs & ~std::uint32_t{kSignLeet};
}

std::uint32_t EncodingSigns::operator()(TextView text, std::size_t limit) const noexcept {
  switch (text.width) {
    case 1:
      return look(static_cast<const std::uint8_t*>(text.data), text.length, limit);
    case 2:
      return look(static_cast<const std::uint16_t*>(text.data), text.length, limit);
    default:
      return look(static_cast<const std::uint32_t*>(text.data), text.length, limit);
  }
}

}  // namespace raxe_fast
