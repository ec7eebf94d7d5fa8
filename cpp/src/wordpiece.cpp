#include "raxe_fast/wordpiece.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <stdexcept>
#include <string_view>

#include "kept_memory.hpp"
#include "raxe_fast/model_memory.hpp"
#include "wordpiece_tables.hpp"
#include "wordpiece_trie.hpp"

namespace raxe_fast {
namespace wordpiece {
namespace {

constexpr std::size_t kAscii = 128;
constexpr std::size_t kBlock = 64;
constexpr std::uint32_t kSyllableBase = 0xAC00, kLeadBase = 0x1100, kVowelBase = 0x1161,
                        kTrailBase = 0x11A7, kVowels = 21, kTrails = 28;

std::uint16_t entry_of(char32_t c) noexcept {
  if (c < kLimit) return kBlocks[kIndex[c / kBlock] * kBlock + c % kBlock];
  bool removed = false;
  for (const std::uint32_t bound : kRemovedBounds) removed ^= c >= bound;
  return removed ? kRemoved : kWord;
}

std::uint32_t rank_of(std::uint32_t element) noexcept { return element >> kRankShift & kRankMask; }
ElementKind kind_of(std::uint32_t element) noexcept {
  return static_cast<ElementKind>(element >> kKindShift);
}

// A mark that waits for the end of its run, to be put in the order of combining classes.
struct Mark {
  std::uint32_t element;
  std::uint32_t origin;
  bool first;  // of the elements of its origin
};

struct Scratch {
  std::vector<Token> tokens;
  std::vector<Symbol> symbols;          // of the current word
  std::vector<std::uint32_t> origins;   // of its characters
  std::vector<Mark> run, sorted;

  // After an unusual text, its memory is given back.
  void trim() {
    detail::give_back(tokens);
    detail::give_back(run);
    detail::give_back(sorted);
  }
};

}  // namespace
}  // namespace wordpiece

using namespace wordpiece;

// What the words of a vocabulary are made of and what they are; may be shared.
struct WordPiece::Vocabulary {
  struct Ascii {
    std::uint8_t entry = kRemoved;
    Symbol symbol = kNoSymbol;  // of its lower case
  };

  std::size_t size = 0;
  std::uint16_t unknown = 0;
  std::size_t max_word = 0;
  std::array<Ascii, kAscii> ascii{};
  ModelVector<std::uint16_t> symbol_index;  // by block of code points; past its end: no symbol
  ModelVector<Symbol> symbol_blocks;
  std::size_t symbol_count = 1;  // kNoSymbol included
  Trie start, rest;  // tokens that begin a word, and tokens that continue it

  [[nodiscard]] Symbol symbol_of(char32_t c) const noexcept {
    const std::size_t block = c / kBlock;
    if (block >= symbol_index.size()) return kNoSymbol;
    return symbol_blocks[symbol_index[block] * kBlock + c % kBlock];
  }
  [[nodiscard]] std::u16string symbols_of(std::u32string_view text) const {
    std::u16string symbols;
    for (const char32_t c : text) symbols.push_back(symbol_of(c));
    return symbols;
  }
  void number_symbols(const std::vector<std::u32string>& vocabulary,
                      const std::vector<std::u32string>& words);
  void build_tries(const std::vector<std::u32string>& vocabulary);
  void fill_ascii();
};

// Frequent characters get small numbers, so that the children of a node lie close together.
void WordPiece::Vocabulary::number_symbols(const std::vector<std::u32string>& vocabulary,
                                           const std::vector<std::u32string>& words) {
  const auto each_character = [&](auto take) {
    for (const auto* const strings : {&vocabulary, &words}) {
      for (const std::u32string& string : *strings) std::ranges::for_each(string, take);
    }
  };
  char32_t top = 0;
  each_character([&top](char32_t c) { top = std::max(top, c); });
  if (top > 0x10FFFF) throw std::invalid_argument("vocabulary: not a code point");
  std::vector<std::uint32_t> counts(top + 1);
  each_character([&counts](char32_t c) { ++counts[c]; });
  std::vector<std::pair<char32_t, std::uint32_t>> order;
  for (char32_t c = 0; c <= top; ++c) {
    if (counts[c] != 0) order.emplace_back(c, counts[c]);
  }
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  if (order.size() >= std::numeric_limits<Symbol>::max()) {
    throw std::invalid_argument("vocabulary: too many different characters");
  }
  symbol_count = order.size() + 1;
  std::vector<Symbol> blocks(kBlock, kNoSymbol);
  std::vector<std::uint16_t> index(top / kBlock + 1, 0);
  for (std::size_t i = 0; i < order.size(); ++i) {
    const char32_t c = order[i].first;
    std::uint16_t& block = index[c / kBlock];
    if (block == 0) {
      block = static_cast<std::uint16_t>(blocks.size() / kBlock);
      blocks.resize(blocks.size() + kBlock, kNoSymbol);
    }
    blocks[block * kBlock + c % kBlock] = static_cast<Symbol>(i + 1);
  }
  symbol_index = settle(index);
  symbol_blocks = settle(blocks);
}

void WordPiece::Vocabulary::build_tries(const std::vector<std::u32string>& vocabulary) {
  std::vector<Trie::Key> starts, rests;
  for (std::size_t id = 0; id < vocabulary.size(); ++id) {
    const std::u32string& token = vocabulary[id];
    const bool continues = token.size() > 2 && token[0] == U'#' && token[1] == U'#';
    std::u16string symbols = symbols_of(std::u32string_view(token).substr(continues ? 2 : 0));
    if (symbols.empty()) continue;
    (continues ? rests : starts).emplace_back(std::move(symbols), static_cast<std::uint16_t>(id));
  }
  start = Trie(std::move(starts), symbol_count);
  rest = Trie(std::move(rests), symbol_count);
}

void WordPiece::Vocabulary::fill_ascii() {
  for (char32_t c = 0; c < kAscii; ++c) {
    const std::uint16_t entry = entry_of(c);
    if (entry < kFirstSequence) {
      ascii[c] = {static_cast<std::uint8_t>(entry), symbol_of(c)};
    } else {  // a capital
      const std::uint32_t element = kPool[kSequences[entry - kFirstSequence] >> 3];
      ascii[c] = {kWord, symbol_of(element & kCodePointMask)};
    }
  }
}

WordPiece::WordPiece(const std::vector<std::u32string>& vocabulary, std::size_t unknown,
                     std::size_t max_word, std::size_t chunk,
                     const std::vector<std::u32string>& left_out) {
  if (vocabulary.empty() || vocabulary.size() > kMaxVocabulary) {
    throw std::invalid_argument("vocabulary: must have from 1 to 65535 tokens");
  }
  if (unknown >= vocabulary.size()) throw std::invalid_argument("unknown: not in the vocabulary");
  if (max_word > kMaxWord) throw std::invalid_argument("max_word: more than 1000");
  auto words = std::make_shared<Vocabulary>();
  words->size = vocabulary.size();
  words->unknown = static_cast<std::uint16_t>(unknown);
  words->max_word = max_word;
  words->number_symbols(vocabulary, left_out);
  words->build_tries(vocabulary);
  words->fill_ascii();
  vocabulary_ = std::move(words);
  chunk_ = chunk;
  leave_out(left_out);
}

WordPiece::WordPiece(const WordPiece& other, std::size_t chunk,
                     const std::vector<std::u32string>& left_out)
    : vocabulary_(other.vocabulary_), chunk_(chunk) {
  for (const std::u32string& word : left_out) {
    if (vocabulary_->symbols_of(word).find(kNoSymbol) != std::u16string::npos) {
      throw std::invalid_argument("left_out: a character that is in no token");
    }
  }
  leave_out(left_out);
}

WordPiece::~WordPiece() = default;

// A word longer than the pieces that words are cut into would be seen in parts only.
void WordPiece::leave_out(const std::vector<std::u32string>& words) {
  if (words.empty()) return;
  const std::size_t max_word = vocabulary_->max_word;
  const std::size_t room = chunk_ == 0 ? max_word : std::min(chunk_, max_word);
  std::vector<Trie::Key> keys;
  for (const std::u32string& word : words) {
    if (word.empty() || word.size() > room) {
      throw std::invalid_argument("left_out: a word is empty, or longer than max_word or chunk");
    }
    longest_left_out_ = std::max(longest_left_out_, word.size());
    keys.emplace_back(vocabulary_->symbols_of(word), std::uint16_t{0});
  }
  left_out_ = std::make_unique<const Trie>(std::move(keys), vocabulary_->symbol_count);
}

std::size_t WordPiece::vocabulary_size() const noexcept { return vocabulary_->size; }

std::size_t WordPiece::bytes() const noexcept {
  const Vocabulary& words = *vocabulary_;
  return words.start.bytes() + words.rest.bytes() +
         2 * (words.symbol_index.size() + words.symbol_blocks.size()) + sizeof(Vocabulary) +
         (left_out_ == nullptr ? 0 : left_out_->bytes());
}

namespace {

// One pass over one text.
template <typename Vocabulary>
class Pass {
 public:
  Pass(const Vocabulary& words, std::size_t chunk, const Trie* left_out,
       std::size_t longest_left_out, Scratch& scratch)
      : words_(words),
        chunk_(chunk),
        left_out_(left_out),
        longest_left_out_(longest_left_out),
        scratch_(scratch) {
    scratch.tokens.clear();
    scratch.run.clear();
    if (scratch.symbols.size() < words.max_word) {
      scratch.symbols.resize(words.max_word);
      scratch.origins.resize(words.max_word);
    }
    symbols_ = scratch.symbols.data();
    origins_ = scratch.origins.data();
  }

  template <typename Unit>
  void read(const Unit* text, std::size_t length) {
    for (std::size_t i = 0; i < length; ++i) {
      const char32_t c = text[i];
      if (c >= kAscii) {
        read_other(c, static_cast<std::uint32_t>(i));
        continue;
      }
      const auto ascii = words_.ascii[c];
      if (ascii.entry == kRemoved) continue;
      if (!scratch_.run.empty()) end_run();
      origin_ = static_cast<std::uint32_t>(i);
      if (ascii.entry == kWord) {
        if (count_ == 0) {
          i = read_word(text, i, length);
        } else {
          push(ascii.symbol, origin_);
        }
      } else {
        end_word();
        if (ascii.entry == kPunctuation) single(ascii.symbol, origin_);
      }
    }
    end_run();
    end_word();
  }

 private:
  // A word of ASCII characters from `first` on. Returns the position of its last character read.
  template <typename Unit>
  std::size_t read_word(const Unit* text, std::size_t first, std::size_t length) {
    const std::size_t room = chunk_ == 0 ? words_.max_word : std::min(chunk_, words_.max_word);
    const std::size_t stop = std::min(length, first + room);
    std::size_t i = first;
    while (i < stop && text[i] < kAscii && words_.ascii[text[i]].entry == kWord) {
      symbols_[i - first] = words_.ascii[text[i]].symbol;
      ++i;
    }
    const std::size_t count = i - first;
    const auto begin = static_cast<std::uint32_t>(first);
    if (count != 0 && (i == length || (text[i] < kAscii && words_.ascii[text[i]].entry != kRemoved &&
                                       words_.ascii[text[i]].entry != kWord))) {
      if (!left_out(symbols_, count)) {
        match(count, [begin](std::size_t k) { return begin + static_cast<std::uint32_t>(k); });
      }
      origin_ = static_cast<std::uint32_t>(i - 1);
      return i - 1;
    }
    // The word may go on.
    if (count == 0) {  // no room at all
      push(words_.ascii[text[first]].symbol, begin);
      return first;
    }
    for (std::size_t k = 0; k < count; ++k) origins_[k] = begin + static_cast<std::uint32_t>(k);
    count_ = count;
    first_ = begin;
    last_ = origin_ = static_cast<std::uint32_t>(i - 1);
    return i - 1;
  }

  void read_other(char32_t c, std::uint32_t i) {
    const std::uint16_t entry = entry_of(c);
    if (entry == kRemoved) return;
    if (entry >= kFirstSequence) {
      const std::uint32_t span = kSequences[entry - kFirstSequence];
      const std::uint32_t* const elements = kPool + (span >> 3);
      for (std::uint32_t k = 0; k < (span & 7); ++k) read_element(elements[k], i, k == 0);
      return;
    }
    if (!scratch_.run.empty()) end_run();
    origin_ = i;
    switch (entry) {
      case kWord:
        push(words_.symbol_of(c), i);
        break;
      case kSyllable: {
        const auto index = static_cast<std::uint32_t>(c) - kSyllableBase;
        push(words_.symbol_of(kLeadBase + index / (kVowels * kTrails)), i);
        push(words_.symbol_of(kVowelBase + index / kTrails % kVowels), i);
        if (index % kTrails != 0) push(words_.symbol_of(kTrailBase + index % kTrails), i);
        break;
      }
      default:
        end_word();
        if (entry != kSpace) single(words_.symbol_of(c), i);
    }
  }

  void read_element(std::uint32_t element, std::uint32_t origin, bool first) {
    if (rank_of(element) != 0) {
      scratch_.run.push_back({element, origin, first});
      return;
    }
    if (!scratch_.run.empty()) end_run();
    origin_ = origin;
    place(element, origin);
  }

  void place(std::uint32_t element, std::uint32_t origin) {
    const ElementKind kind = kind_of(element);
    if (kind == ElementKind::dropped) return;
    const Symbol symbol = words_.symbol_of(element & kCodePointMask);
    if (kind == ElementKind::word) {
      push(symbol, origin);
      return;
    }
    end_word();
    if (kind == ElementKind::punctuation) single(symbol, origin);
  }

  // Puts the waiting marks in the order of their classes. The library counts off the characters of
  // the text in that order: the first element of a decomposition takes the next, all others stay
  // where the one before them is, whatever they came from.
  void end_run() {
    std::vector<Mark>& run = scratch_.run;
    const auto stays = [](const Mark& m) { return kind_of(m.element) != ElementKind::dropped; };
    if (std::any_of(run.begin(), run.end(), stays)) {
      std::array<std::size_t, kRanks + 2> starts{};
      for (const Mark& m : run) ++starts[rank_of(m.element) + 1];
      for (std::size_t r = 1; r < starts.size(); ++r) starts[r] += starts[r - 1];
      scratch_.sorted.resize(run.size());
      for (const Mark& m : run) scratch_.sorted[starts[rank_of(m.element)]++] = m;
      std::size_t next = 0;
      for (const Mark& m : scratch_.sorted) {
        if (m.first) {
          while (!run[next].first) ++next;
          origin_ = run[next++].origin;
        }
        place(m.element, origin_);
      }
    }
    if (!run.empty()) {
      origin_ = run.back().origin;
      run.clear();
    }
  }

  void push(Symbol symbol, std::uint32_t origin) {
    if (count_ == chunk_ && count_ != 0) {
      end_piece();
      cut_ = true;
    }
    if (count_ < words_.max_word) {
      symbols_[count_] = symbol;
      origins_[count_] = origin;
    }
    if (count_ == 0) first_ = origin;
    last_ = origin;
    ++count_;
  }

  void end_word() {
    if (count_ == 0) return;
    if (!cut_ && left_out(symbols_, count_)) {
      count_ = 0;
      return;
    }
    end_piece();
    cut_ = false;
  }

  // The tokens of the characters so far: a word, or a piece that it was cut into.
  void end_piece() {
    const std::size_t count = count_;
    count_ = 0;
    if (count > words_.max_word) {
      scratch_.tokens.push_back({words_.unknown, first_, last_ + 1});
    } else {
      match(count, [this](std::size_t k) { return origins_[k]; });
    }
  }

  // Whether a word makes no token.
  [[nodiscard]] bool left_out(const Symbol* symbols, std::size_t count) const {
    if (count > longest_left_out_) return false;
    Trie::Node node = Trie::kRoot;
    for (std::size_t k = 0; k < count; ++k) {
      node = left_out_->step(node, symbols[k]);
      if (node == Trie::kRoot) return false;
    }
    return left_out_->value(node) != Trie::kNoValue;
  }

  // A word of one character.
  void single(Symbol symbol, std::uint32_t origin) {
    if (left_out(&symbol, 1)) return;
    std::uint16_t id = Trie::kNoValue;
    if (words_.max_word != 0) {
      const Trie::Node node = words_.start.step(Trie::kRoot, symbol);
      if (node != Trie::kRoot) id = words_.start.value(node);
    }
    scratch_.tokens.push_back({id == Trie::kNoValue ? words_.unknown : id, origin, origin + 1});
  }

  template <typename Origin>
  void match(std::size_t count, Origin origin) {
    std::vector<Token>& tokens = scratch_.tokens;
    const std::size_t before = tokens.size();
    const Trie* trie = &words_.start;
    for (std::size_t begin = 0; begin < count;) {
      std::uint16_t id = Trie::kNoValue;
      std::size_t end = begin;
      Trie::Node node = Trie::kRoot;
      for (std::size_t k = begin; k < count; ++k) {
        node = trie->step(node, symbols_[k]);
        if (node == Trie::kRoot) break;
        const std::uint16_t value = trie->value(node);
        if (value != Trie::kNoValue) {
          id = value;
          end = k + 1;
        }
      }
      if (id == Trie::kNoValue) {
        tokens.resize(before);
        tokens.push_back({words_.unknown, origin(0), origin(count - 1) + 1});
        return;
      }
      tokens.push_back({id, origin(begin), origin(end - 1) + 1});
      begin = end;
      trie = &words_.rest;
    }
  }

  const Vocabulary& words_;
  const std::size_t chunk_;             // 0: none
  const Trie* const left_out_;          // words that make no token
  const std::size_t longest_left_out_;  // characters; 0: there are none
  Scratch& scratch_;
  Symbol* symbols_ = nullptr;
  std::uint32_t* origins_ = nullptr;
  std::size_t count_ = 0;  // characters of the word so far; those past max_word are not kept
  std::uint32_t first_ = 0, last_ = 0;  // their first and last origin
  bool cut_ = false;  // the characters are not the first piece of their word
  std::uint32_t origin_ = 0;            // the last character of the text that was taken
};

}  // namespace

std::vector<Token> WordPiece::encode(TextView text) const {
  if (text.length > std::numeric_limits<std::uint32_t>::max()) {
    throw std::length_error("a text of 2^32 code points or more");
  }
  thread_local Scratch scratch;
  Pass<Vocabulary> pass(*vocabulary_, chunk_, left_out_.get(), longest_left_out_, scratch);
  switch (text.width) {
    case 1:
      pass.read(static_cast<const std::uint8_t*>(text.data), text.length);
      break;
    case 2:
      pass.read(static_cast<const std::uint16_t*>(text.data), text.length);
      break;
    default:
      pass.read(static_cast<const std::uint32_t*>(text.data), text.length);
  }
  std::vector<Token> tokens(scratch.tokens.begin(), scratch.tokens.end());
  scratch.trim();
  return tokens;
}

}  // namespace raxe_fast
