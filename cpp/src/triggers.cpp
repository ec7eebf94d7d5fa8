// Matching: one pass over the text (two when it holds ignorable characters).
#include "raxe_fast/triggers.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "raxe_fast/normalize.hpp"
#include "triggers_impl.hpp"

namespace raxe_fast {
namespace {

// The latest match of a phrase up to some element: where its word stands and where it began. Later
// words can only do better, so one is enough; it counts only if written in this pass.
struct Progress {
  std::uint32_t pass = 0;
  std::uint32_t begin = 0;
  std::uint64_t word = 0;
};

// The matches of one trigger in one text with the smallest (end, begin), ascending.
struct Kept {
  std::uint32_t text = 0;  // pass number of the first pass over the text
  std::uint32_t count = 0;
  std::array<std::pair<std::uint32_t, std::uint32_t>, kMaxMatchesPerTrigger> spans{};
};

constexpr std::array<bool, 128> make_ascii_word() {
  std::array<bool, 128> word{};
  for (std::size_t c = 0; c < 128; ++c) {
    const std::size_t lower = c | 0x20;
    word[c] = (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || c == '_';
  }
  return word;
}

constexpr std::array<bool, 128> kAsciiWord = make_ascii_word();

}  // namespace

struct TriggerScratch::State {
  std::uint64_t owner = 0;             // id of the set the rest is sized for
  std::uint32_t pass = 0;              // stamp of the latest reading
  std::uint32_t first_pass = 0;        // over the current text
  std::vector<Progress> progress;      // by element
  std::vector<Kept> kept;              // by trigger
  std::vector<std::uint32_t> touched;  // triggers with matches in this text
  std::vector<std::uint32_t> origins;  // of the last characters; as long as the longest literal
  std::vector<std::uint32_t> counted;  // by trigger, for rule_score

  // Ready for the next text. The first stamp of its passes will be pass + 1.
  void prepare(const CompiledTriggers& compiled) {
    // Stamps of earlier passes must never look current, not even after 2^32 passes.
    if (owner != compiled.id || pass > std::numeric_limits<std::uint32_t>::max() - 4) {
      owner = 0;  // should an allocation below fail, the next call starts over
      progress.assign(compiled.elements.size(), {});
      kept.assign(compiled.weights.size(), {});
      counted.assign(compiled.weights.size(), 0);
      origins.assign(std::bit_ceil(std::max<std::size_t>(compiled.longest_literal, 1)), 0);
      touched.reserve(compiled.weights.size());
      pass = 0;
      owner = compiled.id;
    }
    touched.clear();
    first_pass = pass + 1;
  }

  void keep(std::uint32_t trigger, std::uint32_t begin, std::uint32_t end) {
    Kept& entry = kept[trigger];
    if (entry.text != first_pass) {
      entry.text = first_pass;
      entry.count = 0;
      touched.push_back(trigger);
    }
    const std::pair span{end, begin};
    if (entry.count == kMaxMatchesPerTrigger && span >= entry.spans[entry.count - 1]) {
      return;
    }
    const auto first = entry.spans.begin();
    const auto last = first + entry.count;
    const auto at = std::lower_bound(first, last, span);
    if (at != last && *at == span) {
      return;
    }
    entry.count += entry.count < kMaxMatchesPerTrigger ? 1 : 0;
    std::move_backward(at, first + entry.count - 1, first + entry.count);
    *at = span;
  }

  void end_word(const CompiledTriggers& set, Range answer, std::uint64_t word,
                std::uint32_t begin, std::uint32_t end);
  void end_literal(const CompiledTriggers& set, Automaton::State state, std::size_t fed,
                   std::uint32_t end);

  // One reading of the text; true if it holds ignorable characters.
  bool read(const CompiledTriggers& set, TextView text, Ignorables mode);
  template <bool kLiterals, class Unit>
  bool read(const CompiledTriggers& set, const Unit* text, std::size_t length, Ignorables mode);
};

TriggerScratch::TriggerScratch() : state_(std::make_unique<State>()) {}
TriggerScratch::~TriggerScratch() = default;
TriggerScratch::TriggerScratch(TriggerScratch&&) noexcept = default;
TriggerScratch& TriggerScratch::operator=(TriggerScratch&&) noexcept = default;

// Word number `word` (from 1), begun and ended at these places of the original, matches `answer`.
[[gnu::noinline]] void TriggerScratch::State::end_word(const CompiledTriggers& set, Range answer,
                                                       std::uint64_t word, std::uint32_t begin,
                                                       std::uint32_t end) {
  for (std::uint32_t i = answer.begin; i < answer.end; ++i) {
    const std::uint32_t index = set.matched[i];
    const CompiledElement& element = set.elements[index];
    std::uint32_t from = begin;
    if (element.parent != kNoElement) {
      const Progress& before = progress[element.parent];
      if (before.pass != pass || word - before.word - 1 > element.max_gap) {
        continue;
      }
      from = before.begin;
    }
    progress[index] = {pass, from, word};
    for (std::uint32_t f = element.fires_begin; f < element.fires_end; ++f) {
      keep(set.fires[f], from, end);
    }
  }
}

[[gnu::noinline]] void TriggerScratch::State::end_literal(const CompiledTriggers& set,
                                                          Automaton::State state, std::size_t fed,
                                                          std::uint32_t end) {
  for (; state != 0; state = set.output_link[state]) {
    const Range own = set.own_output[state];
    for (std::uint32_t i = own.begin; i < own.end; ++i) {
      const CompiledLiteral& literal = set.literal[i];
      keep(literal.trigger, origins[(fed - literal.length) & (origins.size() - 1)], end);
    }
  }
}

template <bool kLiterals, class Unit>
bool TriggerScratch::State::read(const CompiledTriggers& set, const Unit* text, std::size_t length,
                                 Ignorables mode) {
  ++pass;
  bool ignorables = false;
  const Automaton::State start = set.words.root();
  Automaton::State word = start;  // never `start` again within a word
  Automaton::State literal = 0;
  std::uint32_t begin = 0, end = 0;
  std::uint64_t words = 0;
  std::size_t fed = 0;
  std::uint32_t* const ring = origins.data();
  const std::size_t mask = origins.size() - 1;

  const auto close_word = [&]() {
    if (word != start) {
      ++words;
      const std::uint32_t answer = set.answer_of[word];
      if (answer != 0) {
        end_word(set, set.answers[answer], words, begin, end);
      }
      word = start;
    }
  };
  const auto after_literal_step = [&](std::uint32_t at) {
    ring[fed++ & mask] = at;
    if (set.has_output[literal] != 0) [[unlikely]] {
      end_literal(set, literal, fed, at + 1);
    }
  };
  const auto feed_ascii = [&](char32_t c, std::uint32_t at) {
    if constexpr (kLiterals) {
      literal = set.literals.step_ascii(literal, c);
      after_literal_step(at);
    }
    if (kAsciiWord[c]) {
      begin = word == start ? at : begin;
      end = at + 1;
      word = set.words.step_ascii(word, c);
    } else {
      close_word();
    }
  };
  const auto feed_other = [&](char32_t c, std::uint32_t at) {
    if constexpr (kLiterals) {
      literal = set.literals.step(literal, c);
      after_literal_step(at);
    }
    const CharClass kind = char_class(c);
    if (kind != CharClass::word) {
      close_word();
    }
    if (kind != CharClass::separator) {
      begin = word == start ? at : begin;
      end = at + 1;
      word = set.words.step(word, c);
    }
    if (kind == CharClass::unspaced) {
      close_word();
    }
  };

  for (std::size_t i = 0; i < length; ++i) {
    const auto c = static_cast<char32_t>(text[i]);
    const auto at = static_cast<std::uint32_t>(i);
    if (c < 128) [[likely]] {
      feed_ascii(c, at);
      continue;
    }
    const Mapped mapped = map_code_point(c);
    if (mapped.ignorable) {
      ignorables = true;
      if (mode == Ignorables::separate) {
        feed_ascii(U' ', at);
      }
    } else if (mapped.chars == nullptr) {
      if (mapped.count != 0) {
        feed_other(c, at);
      }
    } else {
      for (std::size_t k = 0; k < mapped.count; ++k) {
        if (mapped.chars[k] < 128) {
          feed_ascii(mapped.chars[k], at);
        } else {
          feed_other(mapped.chars[k], at);
        }
      }
    }
  }
  close_word();
  return ignorables;
}

bool TriggerScratch::State::read(const CompiledTriggers& set, TextView text, Ignorables mode) {
  const auto with_width = [&]<class Unit>(const Unit* units) {
    return set.longest_literal == 0 ? read<false>(set, units, text.length, mode)
                                    : read<true>(set, units, text.length, mode);
  };
  switch (text.width) {
    case 1:
      return with_width(static_cast<const std::uint8_t*>(text.data));
    case 2:
      return with_width(static_cast<const std::uint16_t*>(text.data));
    default:
      return with_width(static_cast<const std::uint32_t*>(text.data));
  }
}

TriggerSet::TriggerSet(const std::vector<TriggerSpec>& specs)
    : impl_(std::make_unique<Impl>(specs)) {}
TriggerSet::~TriggerSet() = default;
TriggerSet::TriggerSet(TriggerSet&&) noexcept = default;
TriggerSet& TriggerSet::operator=(TriggerSet&&) noexcept = default;

std::size_t TriggerSet::size() const noexcept { return impl_->weights.size(); }

void TriggerSet::match(TextView text, TriggerScratch& scratch,
                       std::vector<TriggerMatch>& out) const {
  if (text.length >= std::numeric_limits<std::uint32_t>::max()) {
    throw std::length_error("text of 2^32 - 1 code points or more");
  }
  TriggerScratch::State& state = *scratch.state_;
  state.prepare(*impl_);
  if (state.read(*impl_, text, Ignorables::drop)) {
    state.read(*impl_, text, Ignorables::separate);
  }
  const auto first = static_cast<std::ptrdiff_t>(out.size());
  for (const std::uint32_t trigger : state.touched) {
    const Kept& kept = state.kept[trigger];
    for (std::uint32_t i = 0; i < kept.count; ++i) {
      out.push_back({trigger, kept.spans[i].second, kept.spans[i].first});
    }
  }
  std::sort(out.begin() + first, out.end(), [](const TriggerMatch& a, const TriggerMatch& b) {
    return std::tie(a.begin, a.end, a.trigger) < std::tie(b.begin, b.end, b.trigger);
  });
}

double TriggerSet::rule_score(const TriggerMatch* matches, std::size_t n,
                              TriggerScratch& scratch) const {
  TriggerScratch::State& state = *scratch.state_;
  state.prepare(*impl_);
  ++state.pass;
  double none = 1.0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t trigger = matches[i].trigger;
    if (trigger >= size()) {
      throw std::invalid_argument("match of a trigger that this set does not have");
    }
    if (state.counted[trigger] != state.pass) {
      state.counted[trigger] = state.pass;
      none *= 1.0 - impl_->weights[trigger];
    }
  }
  return 1.0 - none;
}

}  // namespace raxe_fast
