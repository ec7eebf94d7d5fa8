// The Python module raxe_fast._core; the only file that knows nanobind.
//
// Rules kept here: no array is converted or copied on the way in (.noconvert(), const element
// types, so that read-only arrays pass); no text is transcoded (PEP 393 storage is read in place);
// every object whose memory the core reads is held by a strong reference for the whole call; the
// GIL is released around the core. Wrong type, dtype, rank or layout: TypeError. Bad values:
// ValueError.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "raxe_fast/cpu.hpp"
#include "raxe_fast/encoder.hpp"
#include "raxe_fast/encoding_signs.hpp"
#include "raxe_fast/model_memory.hpp"
#include "raxe_fast/normalize.hpp"
#include "raxe_fast/pooling.hpp"
#include "raxe_fast/score.hpp"
#include "raxe_fast/screener.hpp"
#include "raxe_fast/treelite.hpp"
#include "raxe_fast/wordpiece.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

namespace rf = raxe_fast;

template <typename T, std::size_t N>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <typename T, std::size_t N>
using Out = nb::ndarray<nb::numpy, T, nb::ndim<N>, nb::c_contig>;

// A part of the core as Python sees it. The core keeps the inner pointer, never a Python object,
// so that parts may die without the GIL.
template <typename T>
struct Held {
  std::shared_ptr<const T> part;
};
using PyForest = Held<rf::Forest>;
using PyCalibration = Held<rf::Calibration>;
using PyTriggers = Held<rf::TriggerSet>;
struct PyClusters : Held<rf::Clusters> {
  std::size_t hidden;
};

using PyFeatures = Held<rf::Features>;
using PyScorer = Held<rf::Scorer>;
using PyEncoder = Held<rf::NativeEncoder>;
using PyScreener = Held<rf::Screener>;

// __init__ from a function that makes the object. (nb::new_ would cast all arguments twice.)
template <typename T, typename... Args>
auto init(T (*make)(Args...)) {
  return [make](T* self, Args... args) { new (self) T(make(std::forward<Args>(args)...)); };
}

// ---- text ------------------------------------------------------------------------------------

// The caller keeps `text` alive while it uses the view.
rf::TextView view_of(nb::handle text) {
  PyObject* const object = text.ptr();
#if PY_VERSION_HEX < 0x030C0000
  if (PyUnicode_READY(object) != 0) nb::raise_python_error();
#endif
  return {PyUnicode_DATA(object), static_cast<std::size_t>(PyUnicode_GET_LENGTH(object)),
          static_cast<std::uint8_t>(PyUnicode_KIND(object))};
}

std::u32string code_points(nb::handle text) {
  if (!PyUnicode_Check(text.ptr())) {
    throw nb::type_error("a pattern is not a str");
  }
  const rf::TextView view = view_of(text);
  std::u32string out(view.length, U'\0');
  for (std::size_t i = 0; i < view.length; ++i) out[i] = view[i];
  return out;
}

nb::str to_python(const std::u32string& chars) {
  PyObject* const object = PyUnicode_FromKindAndData(PyUnicode_4BYTE_KIND, chars.data(),
                                                     static_cast<Py_ssize_t>(chars.size()));
  if (object == nullptr) nb::raise_python_error();
  return nb::steal<nb::str>(object);
}

std::tuple<nb::str, std::vector<std::uint32_t>> normalize(nb::str text, bool separate_ignorables) {
  const rf::TextView view = view_of(text);
  rf::NormalizedText normalized;
  {
    nb::gil_scoped_release release;
    normalized = rf::normalize(
        view, separate_ignorables ? rf::Ignorables::separate : rf::Ignorables::drop);
  }
  return {to_python(normalized.chars), std::move(normalized.origin)};
}

// ---- arrays ----------------------------------------------------------------------------------

template <typename T>
std::vector<T> to_vector(const In<T, 1>& array) {
  return std::vector<T>(array.data(), array.data() + array.size());
}

template <typename T, std::size_t N>
Out<T, N> to_numpy(std::vector<T> values, const std::array<std::size_t, N>& shape) {
  auto holder = std::make_unique<std::vector<T>>(std::move(values));
  T* const data = holder->data();
  nb::capsule owner(holder.release(), [](void* p) noexcept {
    delete static_cast<std::vector<T>*>(p);
  });
  return Out<T, N>(data, N, shape.data(), owner);
}

// The items as they are now, held: what makes arrays of them may run Python code.
std::vector<nb::object> items(const nb::list& list) {
  std::vector<nb::object> found(nb::len(list));
  for (std::size_t i = 0; i < found.size(); ++i) found[i] = list[i];
  return found;
}

template <typename T, std::size_t N>
In<T, N> cast_array(nb::handle item, const char* what) {
  In<T, N> array;
  if (!nb::try_cast(item, array, false)) throw nb::type_error(what);
  return array;
}

Out<float, 1> mean_pool_l2(const In<float, 2>& tokens,
                           const std::optional<In<std::uint8_t, 1>>& mask) {
  if (mask && mask->shape(0) != tokens.shape(0)) {
    throw std::invalid_argument("mask and tokens differ in length");
  }
  if (tokens.shape(1) == 0) throw std::invalid_argument("tokens: hidden is 0");
  std::vector<float> out(tokens.shape(1));
  {
    nb::gil_scoped_release release;
    rf::mean_pool_l2(tokens.data(), tokens.shape(0), tokens.shape(1),
                     mask ? mask->data() : nullptr, out.data());
  }
  return to_numpy<float, 1>(std::move(out), {tokens.shape(1)});
}

bool all_finite(const float* values, std::size_t n) {
  float sum = 0.0F;
  for (std::size_t i = 0; i < n; ++i) sum += values[i] * 0.0F;
  return sum == 0.0F;
}

// ---- parts -----------------------------------------------------------------------------------

PyForest packed_forest(std::size_t n_features, std::size_t n_outputs,
                       const In<std::int64_t, 1>& tree_offset, const In<std::int32_t, 1>& feature,
                       const In<double, 1>& threshold, const In<std::int32_t, 1>& left,
                       const In<std::int32_t, 1>& right, const In<std::int32_t, 1>& leaf_index,
                       const In<double, 1>& leaf_values) {
  rf::ForestArrays arrays;
  arrays.n_features = n_features;
  arrays.n_outputs = n_outputs;
  arrays.tree_offset = to_vector(tree_offset);
  arrays.feature = to_vector(feature);
  arrays.threshold = to_vector(threshold);
  arrays.left = to_vector(left);
  arrays.right = to_vector(right);
  arrays.leaf_index = to_vector(leaf_index);
  arrays.leaf_values = to_vector(leaf_values);
  return {rf::make_packed_forest(arrays)};
}

std::string_view view_of(const nb::bytes& data) {
  return {static_cast<const char*>(data.data()), data.size()};
}

PyForest treelite_forest(const nb::bytes& data) {
  const std::string_view content = view_of(data);
  nb::gil_scoped_release release;
  return {rf::make_packed_forest(rf::read_treelite(content))};
}

auto treelite_arrays(const nb::bytes& data) {
  const std::string_view content = view_of(data);
  rf::ForestArrays arrays;
  {
    nb::gil_scoped_release release;
    arrays = rf::read_treelite(content);
  }
  const auto numpy = []<typename T>(std::vector<T>& values) {
    const std::size_t size = values.size();
    return to_numpy<T, 1>(std::move(values), {size});
  };
  return std::make_tuple(arrays.n_features, arrays.n_outputs, numpy(arrays.tree_offset),
                         numpy(arrays.feature), numpy(arrays.threshold), numpy(arrays.left),
                         numpy(arrays.right), numpy(arrays.leaf_index), numpy(arrays.leaf_values));
}

std::optional<PyForest> compiled_forest(std::string_view sha256) {
  std::shared_ptr<const rf::Forest> forest = rf::make_compiled_forest(sha256);
  if (forest == nullptr) return std::nullopt;
  return PyForest{std::move(forest)};
}

Out<double, 2> predict(const PyForest& self, const In<float, 2>& rows) {
  const rf::Forest& forest = *self.part;
  const std::size_t n = rows.shape(0);
  const std::size_t features = forest.n_features();
  if (rows.shape(1) != features) {
    throw std::invalid_argument("X has another number of features than the forest");
  }
  std::vector<double> out(n * forest.n_outputs());
  bool finite = true;
  {
    nb::gil_scoped_release release;
    for (std::size_t i = 0; i < n && finite; ++i) {
      const float* const row = rows.data() + i * features;
      finite = all_finite(row, features);
      if (finite) forest.predict(row, out.data() + i * forest.n_outputs());
    }
  }
  if (!finite) throw std::invalid_argument("X holds NaN or infinity");
  return to_numpy<double, 2>(std::move(out), {n, forest.n_outputs()});
}

PyCalibration make_calibration(std::vector<double> weights, double bias,
                               std::vector<double> knot_x, std::vector<double> knot_y) {
  return {std::make_shared<rf::Calibration>(std::move(weights), bias, std::move(knot_x),
                                            std::move(knot_y))};
}

double calibrate(const PyCalibration& self, const std::vector<double>& evidence) {
  if (evidence.size() != rf::kEvidence && evidence.size() != rf::kPlainEvidence) {
    throw std::invalid_argument("evidence: wrong number of values");
  }
  for (const double value : evidence) {
    if (!(value - value == 0.0)) throw std::invalid_argument("evidence: not finite");
  }
  std::vector<double> all(evidence);
  all.resize(rf::kEvidence, 0.0);
  return (*self.part)(all.data());
}

PyClusters make_clusters(const In<float, 2>& centroids, std::size_t n_attack) {
  std::vector<float> rows(centroids.data(), centroids.data() + centroids.size());
  const std::size_t hidden = centroids.shape(1);
  return {{std::make_shared<rf::Clusters>(std::move(rows), hidden, n_attack)}, hidden};
}

std::vector<std::pair<std::int32_t, float>> neighbours(const rf::Neighbour* nearest) {
  std::vector<std::pair<std::int32_t, float>> out;
  for (std::size_t k = 0; k < rf::kNearest && nearest[k].cluster >= 0; ++k) {
    out.emplace_back(nearest[k].cluster, nearest[k].cosine);
  }
  return out;
}

std::pair<std::vector<std::pair<std::int32_t, float>>, float> nearest_clusters(
    const PyClusters& self, const In<float, 1>& embedding) {
  if (embedding.shape(0) != self.hidden) {
    throw std::invalid_argument("embedding and centroids differ in length");
  }
  std::array<rf::Neighbour, rf::kNearest> nearest;
  const float novelty = self.part->nearest(embedding.data(), nearest.data());
  return {neighbours(nearest.data()), novelty};
}

// ---- triggers --------------------------------------------------------------------------------

// A field of triggers.json's mapping, or the same field by position in a tuple.
nb::object field(nb::handle spec, const char* name, std::size_t position, std::size_t size) {
  if (nb::isinstance<nb::dict>(spec)) return spec[name];
  if (nb::isinstance<nb::tuple>(spec) && nb::len(spec) == size) return spec[position];
  throw nb::type_error("a trigger and a phrase element are dicts, or tuples of 3");
}

std::vector<std::u32string> patterns(nb::handle list) {
  // A str is iterable too, and would silently become its letters.
  if (PyUnicode_Check(list.ptr())) throw nb::type_error("patterns: a list of str, not a str");
  std::vector<std::u32string> out;
  for (nb::handle item : list) out.push_back(code_points(item));
  return out;
}

template <typename T>
T value_of(nb::handle item, const char* what) {
  T value{};
  if (!nb::try_cast(item, value)) throw nb::type_error(what);
  return value;
}

rf::TriggerSpec trigger_spec(nb::handle item) {
  rf::TriggerSpec spec;
  for (nb::handle phrase : field(item, "phrases", 0, 3)) {
    auto& elements = spec.phrases.emplace_back();
    for (nb::handle element : phrase) {
      elements.push_back(
          {patterns(field(element, "words", 0, 3)), patterns(field(element, "prefixes", 1, 3)),
           value_of<std::uint32_t>(field(element, "max_gap", 2, 3), "max_gap: not an int >= 0")});
    }
  }
  spec.literals = patterns(field(item, "literals", 1, 3));
  spec.weight = value_of<double>(field(item, "weight", 2, 3), "weight: not a float");
  return spec;
}

PyTriggers make_triggers(nb::iterable specs) {
  std::vector<rf::TriggerSpec> parsed;
  for (nb::handle item : specs) parsed.push_back(trigger_spec(item));
  return {std::make_shared<rf::TriggerSet>(parsed)};
}

rf::TriggerScratch& thread_scratch() {
  thread_local rf::TriggerScratch scratch;
  return scratch;
}

using Match = std::tuple<std::uint32_t, std::uint32_t, std::uint32_t>;

std::vector<Match> matches_of(const std::vector<rf::TriggerMatch>& matches) {
  std::vector<Match> out;
  out.reserve(matches.size());
  for (const rf::TriggerMatch& m : matches) out.emplace_back(m.trigger, m.begin, m.end);
  return out;
}

std::vector<rf::TriggerMatch> match_released(const PyTriggers& self, nb::str text) {
  const rf::TextView view = view_of(text);
  std::vector<rf::TriggerMatch> matches;
  nb::gil_scoped_release release;
  self.part->match(view, thread_scratch(), matches);
  return matches;
}

std::vector<Match> match(const PyTriggers& self, nb::str text) {
  return matches_of(match_released(self, text));
}

double rule_score(const PyTriggers& self, nb::str text) {
  const auto matches = match_released(self, text);
  return self.part->rule_score(matches.data(), matches.size(), thread_scratch());
}

// ---- tokens ----------------------------------------------------------------------------------

using PyWordPiece = Held<rf::WordPiece>;

struct PyTokens {
  std::vector<rf::Token> tokens;

  [[nodiscard]] const rf::Token& at(std::size_t index) const {
    if (index >= tokens.size()) throw nb::index_error("no such token");
    return tokens[index];
  }
};

PyWordPiece make_wordpiece(nb::list vocabulary, std::size_t unknown, std::size_t max_word,
                           std::size_t chunk, nb::list left_out) {
  return {std::make_shared<rf::WordPiece>(patterns(vocabulary), unknown, max_word, chunk,
                                          patterns(left_out))};
}

PyWordPiece share_wordpiece(const PyWordPiece& self, std::size_t chunk, nb::list left_out) {
  return {std::make_shared<rf::WordPiece>(*self.part, chunk, patterns(left_out))};
}

PyTokens tokenise(const PyWordPiece& self, nb::str text) {
  const rf::TextView view = view_of(text);
  nb::gil_scoped_release release;
  return {self.part->encode(view)};
}

// Token ids [start, stop) between `first` and `last`.
Out<std::int64_t, 2> token_row(const PyTokens& self, std::size_t start, std::size_t stop,
                               std::int64_t first, std::int64_t last) {
  if (start > stop || stop > self.tokens.size()) throw nb::index_error("no such tokens");
  const std::size_t n = stop - start + 2;
  std::vector<std::int64_t> row(n);
  row.front() = first;
  for (std::size_t i = start; i < stop; ++i) row[i - start + 1] = self.tokens[i].id;
  row.back() = last;
  return to_numpy<std::int64_t, 2>(std::move(row), {1, n});
}

Out<std::int64_t, 1> token_ids(const PyTokens& self) {
  std::vector<std::int64_t> ids;
  ids.reserve(self.tokens.size());
  for (const rf::Token& token : self.tokens) ids.push_back(token.id);
  const std::size_t n = ids.size();
  return to_numpy<std::int64_t, 1>(std::move(ids), {n});
}

Out<std::uint32_t, 2> token_offsets(const PyTokens& self) {
  std::vector<std::uint32_t> offsets;
  offsets.reserve(2 * self.tokens.size());
  for (const rf::Token& token : self.tokens) {
    offsets.push_back(token.begin);
    offsets.push_back(token.end);
  }
  return to_numpy<std::uint32_t, 2>(std::move(offsets), {self.tokens.size(), 2});
}

// ---- encoded parts ---------------------------------------------------------------------------

using PySigns = Held<rf::EncodingSigns>;

PySigns make_signs(nb::dict coded, nb::list common, nb::list in_ay) {
  rf::EncodingSigns::Parts parts;
  for (auto [word, ciphers] : coded) {
    parts.coded.push_back(
        {code_points(word), value_of<std::uint32_t>(ciphers, "coded: a value is not a uint32")});
  }
  parts.common = patterns(common);
  parts.in_ay = patterns(in_ay);
  return {std::make_shared<rf::EncodingSigns>(parts)};
}

std::uint32_t signs(const PySigns& self, nb::str text, std::size_t limit) {
  // Waiting for the GIL takes longer than looking at a text of usual length.
  constexpr std::size_t long_text = 4096;
  const rf::TextView view = view_of(text);
  if (view.length < long_text) return (*self.part)(view, limit);
  nb::gil_scoped_release release;
  return (*self.part)(view, limit);
}

// ---- features --------------------------------------------------------------------------------

Out<std::uint32_t, 1> ngram_hashes(nb::str text, std::size_t begin,
                                   std::optional<std::size_t> end) {
  const rf::TextView view = view_of(text);
  std::u32string scratch;
  std::vector<std::uint32_t> hashes;
  {
    nb::gil_scoped_release release;
    rf::ngram_hashes(view, begin, end.value_or(view.length), scratch, hashes);
  }
  const std::size_t n = hashes.size();
  return to_numpy<std::uint32_t, 1>(std::move(hashes), {n});
}

std::shared_ptr<const rf::LexicalModel> lexical_model(const In<std::int8_t, 2>& table,
                                                      const In<float, 1>& scale,
                                                      const In<float, 1>& bias) {
  unsigned bits = 0;
  while (bits < 24 && (std::size_t{1} << bits) < table.shape(0)) ++bits;
  if (table.shape(1) != scale.shape(0)) {
    throw std::invalid_argument("an n-gram table and its scale differ in outputs");
  }
  return std::make_shared<rf::LexicalModel>(
      std::vector<std::int8_t>(table.data(), table.data() + table.size()), bits, to_vector(scale),
      to_vector(bias));
}

PyFeatures make_features(const In<float, 2>& linear_weight, const In<float, 1>& linear_bias,
                         const In<float, 1>& passage_weight, float passage_bias,
                         const In<std::int8_t, 2>& lexical_table, const In<float, 1>& lexical_scale,
                         const In<float, 1>& lexical_bias, const In<std::int8_t, 2>& label_table,
                         const In<float, 1>& label_scale, const In<float, 1>& label_bias,
                         const In<std::uint32_t, 1>& trigger_family,
                         const In<double, 1>& trigger_weight, std::size_t families) {
  rf::Features::Parts parts;
  std::vector<float> weights(linear_weight.data(), linear_weight.data() + linear_weight.size());
  parts.linear = std::make_shared<rf::LinearLayer>(weights, to_vector(linear_bias),
                                                   linear_weight.shape(1));
  parts.passages =
      std::make_shared<rf::PassageFinder>(to_vector(passage_weight), passage_bias);
  parts.lexical = lexical_model(lexical_table, lexical_scale, lexical_bias);
  parts.labels = lexical_model(label_table, label_scale, label_bias);
  parts.trigger_family = to_vector(trigger_family);
  parts.trigger_weight = to_vector(trigger_weight);
  parts.families = families;
  return {std::make_shared<rf::Features>(std::move(parts))};
}

std::tuple<float, std::size_t, std::size_t> strongest_passage(const In<float, 2>& tokens,
                                                              const In<float, 1>& weight,
                                                              float bias) {
  if (tokens.shape(1) != weight.shape(0)) {
    throw std::invalid_argument("tokens: H differs from the length of weight");
  }
  const rf::PassageFinder finder(to_vector(weight), bias);
  std::vector<float> scratch;
  const rf::Passage found = finder(tokens.data(), tokens.shape(0), nullptr, scratch);
  return {found.evidence, found.begin, found.end};
}

// The row as the fused call makes it, for training and tests.
Out<float, 1> feature_row(const PyFeatures& self, const In<float, 1>& embedding, float evidence,
                          nb::str text, std::size_t begin, std::size_t end,
                          const std::vector<Match>& matches) {
  const rf::Features& features = *self.part;
  if (embedding.shape(0) != features.hidden()) {
    throw std::invalid_argument("embedding: its length differs from hidden");
  }
  std::vector<rf::TriggerMatch> found;
  for (const auto& [trigger, from, to] : matches) found.push_back({trigger, from, to});
  const rf::TextView view = view_of(text);
  std::vector<float> row(features.full_size());
  std::copy(embedding.data(), embedding.data() + embedding.size(), row.begin());
  {
    nb::gil_scoped_release release;
    rf::FeatureScratch scratch;
    std::vector<bool> seen;
    features.rules(found.data(), found.size(), seen, row.data() + features.rules_at());
    features.fill(evidence, view, begin, end, scratch, row.data());
    features.fill_labels(scratch, row.data());
  }
  const std::size_t n = row.size();
  return to_numpy<float, 1>(std::move(row), {n});
}

// ---- the encoder -----------------------------------------------------------------------------

// What the pointers of EncoderWeights point into: an exporter may have made an array for us alone.
struct KeptArrays {
  std::vector<In<std::int8_t, 2>> weights;
  std::vector<In<float, 1>> rows;
};

// The arrays of one layer by name, held by `kept`.
class LayerArrays {
 public:
  LayerArrays(nb::handle layer, std::size_t index, KeptArrays& kept)
      : index_(index), kept_(kept) {
    if (!nb::isinstance<nb::dict>(layer)) throw nb::type_error(where("is not a dict").c_str());
    arrays_ = nb::borrow<nb::dict>(layer);
  }

  rf::LinearWeights linear(const char* name) {
    const auto& weight = kept_.weights.emplace_back(
        get<std::int8_t, 2>(std::string(name) + ".weight", "int8 (inputs, outputs)"));
    const std::size_t outputs = weight.shape(1);
    return {weight.data(), row(std::string(name) + ".scale", outputs),
            row(std::string(name) + ".bias", outputs), weight.shape(0), outputs};
  }
  rf::NormWeights norm(const char* name, std::size_t width) {
    return {row(std::string(name) + ".gamma", width), row(std::string(name) + ".beta", width)};
  }

 private:
  [[nodiscard]] std::string where(const std::string& what) const {
    return "layers[" + std::to_string(index_) + "] " + what;
  }
  template <typename T, std::size_t N>
  In<T, N> get(const std::string& name, const char* kind) {
    if (!arrays_.contains(name.c_str())) {
      throw std::invalid_argument(where("has no " + name));
    }
    return cast_array<T, N>(arrays_[name.c_str()],
                            where(name + ": not a C-contiguous " + kind).c_str());
  }
  const float* row(const std::string& name, std::size_t width) {
    const auto& array = kept_.rows.emplace_back(get<float, 1>(name, "float32 (n,)"));
    if (array.shape(0) != width) throw std::invalid_argument(where(name + " has another length"));
    return array.data();
  }

  std::size_t index_;
  KeptArrays& kept_;
  nb::dict arrays_;
};

PyEncoder make_encoder(const In<std::int8_t, 2>& words, const In<float, 1>& word_scale,
                       const In<float, 2>& positions, const In<float, 1>& gamma,
                       const In<float, 1>& beta, nb::list layers, std::size_t heads,
                       float epsilon, const std::optional<In<std::int8_t, 2>>& pairs,
                       const std::optional<In<float, 1>>& pair_scale) {
  rf::EncoderWeights weights;
  weights.vocabulary = words.shape(0);
  weights.hidden = words.shape(1);
  weights.positions = positions.shape(0);
  weights.heads = heads;
  weights.epsilon = epsilon;
  if (word_scale.shape(0) != weights.vocabulary) {
    throw std::invalid_argument("word_scale: not one entry per row of words");
  }
  if (positions.shape(1) != weights.hidden) {
    throw std::invalid_argument("positions: rows differ from words in length");
  }
  if (gamma.shape(0) != weights.hidden || beta.shape(0) != weights.hidden) {
    throw std::invalid_argument("gamma and beta: not of the length of a row of words");
  }
  if (pairs.has_value() != pair_scale.has_value()) {
    throw std::invalid_argument("pairs and pair_scale: one without the other");
  }
  if (pairs.has_value()) {
    if (pairs->shape(0) == 0 || pairs->shape(1) != weights.hidden) {
      throw std::invalid_argument("pairs: without rows, or these differ from words in length");
    }
    if (pair_scale->shape(0) != pairs->shape(0)) {
      throw std::invalid_argument("pair_scale: not one entry per row of pairs");
    }
    weights.pair_rows = pairs->shape(0);
    weights.pairs = pairs->data();
    weights.pair_scale = pair_scale->data();
  }
  weights.words = words.data();
  weights.word_scale = word_scale.data();
  weights.position = positions.data();
  weights.norm = {gamma.data(), beta.data()};
  KeptArrays kept;
  const std::vector<nb::object> dicts = items(layers);
  for (std::size_t i = 0; i < dicts.size(); ++i) {
    LayerArrays arrays(dicts[i], i, kept);
    rf::EncoderLayerWeights layer;
    layer.query = arrays.linear("query");
    layer.key = arrays.linear("key");
    layer.value = arrays.linear("value");
    layer.attention_out = arrays.linear("attention_out");
    layer.attention_norm = arrays.norm("attention_norm", weights.hidden);
    layer.intermediate = arrays.linear("intermediate");
    layer.output = arrays.linear("output");
    layer.output_norm = arrays.norm("output_norm", weights.hidden);
    weights.layers.push_back(layer);
  }
  // Whoever writes to the arrays meanwhile gets other weights, never a fault: sizes are fixed.
  nb::gil_scoped_release release;
  return {std::make_shared<rf::NativeEncoder>(weights)};
}

Out<float, 3> encode(const PyEncoder& self, const In<std::int64_t, 2>& ids) {
  const rf::NativeEncoder& encoder = *self.part;
  const std::size_t batch = ids.shape(0);
  const std::size_t length = ids.shape(1);
  const std::size_t n = batch * length * encoder.hidden();
  // Not a vector: nobody needs the zeros.
  std::unique_ptr<float[]> out(new float[n]);
  {
    nb::gil_scoped_release release;
    encoder.encode(ids.data(), batch, length, out.get());
  }
  float* const data = out.release();
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  const std::array<std::size_t, 3> shape{batch, length, encoder.hidden()};
  return Out<float, 3>(data, 3, shape.data(), owner);
}

// ---- screening -------------------------------------------------------------------------------

PyScreener make_screener(const PyEncoder& encoder, const In<float, 1>& linear_weight,
                         float linear_bias, const In<float, 1>& passage_weight, float passage_bias,
                         const std::vector<double>& weights, double bias,
                         const PyFeatures* features) {
  rf::Screener::Parts parts;
  if (weights.size() != parts.weights.size()) {
    throw std::invalid_argument("weights: not one for each kind of evidence");
  }
  std::copy(weights.begin(), weights.end(), parts.weights.begin());
  parts.bias = bias;
  parts.encoder = encoder.part;
  parts.linear = std::make_shared<rf::LinearLayer>(
      to_vector(linear_weight), std::vector<float>{linear_bias}, linear_weight.size());
  parts.passages =
      std::make_shared<rf::PassageFinder>(to_vector(passage_weight), passage_bias);
  if (features != nullptr) parts.lexical = features->part->lexical();
  return {std::make_shared<rf::Screener>(std::move(parts))};
}

// Calls `look`(ids, length, text) with the GIL released.
template <typename Look>
auto screened(const In<std::int64_t, 2>& ids, const nb::str& text, std::size_t begin,
              std::size_t end, Look look) {
  if (ids.shape(0) != 1) throw std::invalid_argument("ids: not of one window");
  const rf::TextView view = view_of(text);
  if (begin > end || end > view.length) {
    throw std::invalid_argument("begin and end: no code points of the text");
  }
  nb::gil_scoped_release release;
  return look(ids.data(), ids.shape(1), view);
}

double screen(const PyScreener& self, const In<std::int64_t, 2>& ids, nb::str text,
              std::size_t begin, std::size_t end) {
  return screened(ids, text, begin, end, [&](const std::int64_t* row, std::size_t n, auto view) {
    return (*self.part)(row, n, view, begin, end);
  });
}

std::tuple<float, float, float> screen_evidence(const PyScreener& self,
                                                const In<std::int64_t, 2>& ids, nb::str text,
                                                std::size_t begin, std::size_t end) {
  const auto found =
      screened(ids, text, begin, end, [&](const std::int64_t* row, std::size_t n, auto view) {
        return self.part->evidence(row, n, view, begin, end);
      });
  return {found[0], found[1], found[2]};
}

// ---- the fused call --------------------------------------------------------------------------

PyScorer make_scorer(const PyForest& binary, const PyForest& family, const PyForest& subfamily,
                     const PyCalibration& calibration, const PyClusters& clusters,
                     const PyTriggers& triggers, std::size_t hidden, double detail_threshold,
                     const PyFeatures* features) {
  if (clusters.hidden != hidden) {
    throw std::invalid_argument("scorer: the centroids' length differs from hidden");
  }
  rf::Scorer::Parts parts;
  parts.binary = binary.part;
  parts.family = family.part;
  parts.subfamily = subfamily.part;
  parts.calibration = calibration.part;
  parts.clusters = clusters.part;
  parts.triggers = triggers.part;
  if (features != nullptr) parts.features = features->part;
  parts.hidden = hidden;
  parts.detail_threshold = detail_threshold;
  return {std::make_shared<rf::Scorer>(std::move(parts))};
}

nb::list score(const PyScorer& self, nb::list blocks, const In<std::uint32_t, 1>& window_text,
               nb::list texts, bool all_details, const std::optional<nb::list>& masks,
               const std::optional<In<std::uint32_t, 2>>& spans,
               const std::optional<In<std::uint32_t, 1>>& counts,
               const std::optional<nb::list>& known) {
  const rf::Scorer& scorer = *self.part;
  const std::size_t hidden = scorer.parts().hidden;
  const std::size_t n_blocks = nb::len(blocks);
  if (masks && nb::len(*masks) != n_blocks) {
    throw std::invalid_argument("masks and blocks differ in number");
  }

  // Strong references: the lists may change when an array is asked for its data, and in another
  // thread while the GIL is released.
  const std::vector<nb::object> block_items = items(blocks);
  const std::vector<nb::object> mask_items = masks ? items(*masks) : std::vector<nb::object>{};
  std::vector<In<float, 3>> arrays(n_blocks);
  std::vector<In<std::uint8_t, 2>> mask_arrays(masks ? n_blocks : 0);
  std::vector<rf::WindowBlock> views(n_blocks);
  std::size_t n_windows = 0;
  for (std::size_t b = 0; b < n_blocks; ++b) {
    arrays[b] =
        cast_array<float, 3>(block_items[b], "blocks: not a C-contiguous float32 (B, S, H)");
    const auto& array = arrays[b];
    if (array.shape(2) != hidden) throw std::invalid_argument("blocks: H differs from hidden");
    views[b] = {array.data(), array.shape(0), array.shape(1), nullptr};
    n_windows += array.shape(0);
    if (masks) {
      mask_arrays[b] =
          cast_array<std::uint8_t, 2>(mask_items[b], "masks: not a C-contiguous uint8 (B, S)");
      const auto& mask = mask_arrays[b];
      if (mask.shape(0) != array.shape(0) || mask.shape(1) != array.shape(1)) {
        throw std::invalid_argument("masks: shape differs from its block");
      }
      views[b].mask = mask.data();
    }
  }
  if (window_text.shape(0) != n_windows) {
    throw std::invalid_argument("window_text: not one entry per window");
  }

  if (spans && (spans->shape(0) != n_windows || spans->shape(1) != 2)) {
    throw std::invalid_argument("spans: not two entries per window");
  }

  const std::size_t n_texts = nb::len(texts);
  const std::vector<nb::object> held = items(texts);
  std::vector<rf::TextView> text_views(n_texts);
  for (std::size_t t = 0; t < n_texts; ++t) {
    if (!PyUnicode_Check(held[t].ptr())) {
      throw nb::type_error(("texts[" + std::to_string(t) + "] is not a str").c_str());
    }
    text_views[t] = view_of(held[t]);
  }
  if (counts && counts->shape(0) != n_texts) {
    throw std::invalid_argument("counts: not one entry per text");
  }
  if (known && nb::len(*known) != n_texts) {
    throw std::invalid_argument("known: not one entry per text");
  }
  const std::vector<nb::object> held_scores = known ? items(*known) : std::vector<nb::object>{};
  std::vector<const rf::TextScore*> known_scores(known ? n_texts : 0);
  for (std::size_t t = 0; t < known_scores.size(); ++t) {
    if (!nb::isinstance<rf::TextScore>(held_scores[t])) {
      throw nb::type_error("known: not a list of TextScore");
    }
    known_scores[t] = nb::cast<const rf::TextScore*>(held_scores[t]);
  }

  std::vector<rf::WindowSpan> window_spans(spans ? n_windows : 0);
  for (std::size_t w = 0; w < window_spans.size(); ++w) {
    window_spans[w] = {spans->data()[2 * w], spans->data()[2 * w + 1]};
  }
  // Copies: what is checked must be what is used, whoever writes to the arrays meanwhile.
  const std::vector<std::uint32_t> owners = to_vector(window_text);
  const std::vector<std::uint32_t> window_counts =
      counts ? to_vector(*counts) : std::vector<std::uint32_t>{};
  std::vector<rf::TextScore> results;
  {
    nb::gil_scoped_release release;
    scorer.score(views.data(), n_blocks, owners.data(),
                 spans ? window_spans.data() : nullptr, text_views.data(), n_texts, all_details,
                 results, counts ? window_counts.data() : nullptr,
                 known ? known_scores.data() : nullptr);
  }
  nb::list out;
  for (rf::TextScore& result : results) out.append(nb::cast(std::move(result)));
  return out;
}

nb::dict build_info() {
  nb::list isas;
  for (int i = 0; i < rf::kIsaLevels; ++i) {
#if !defined(__x86_64__)
    if (i > 0) break;
#endif
    isas.append(rf::isa_name(static_cast<rf::Isa>(i)));
  }
  nb::dict info;
  info["version"] = RAXE_FAST_VERSION;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
  info["build_type"] = RAXE_FAST_BUILD_TYPE;
  info["sanitize"] = RAXE_FAST_SANITIZE;
  info["isa_variants"] = isas;
  info["detected_isa"] = rf::isa_name(rf::detected_isa());
  info["compiled_heads"] = rf::compiled_heads();
  info["nanobind"] = std::to_string(NB_VERSION_MAJOR) + "." + std::to_string(NB_VERSION_MINOR) +
                     "." + std::to_string(NB_VERSION_PATCH);
  return info;
}

void force_isa(std::string_view name) {
  for (int i = 0; i < rf::kIsaLevels; ++i) {
    const auto isa = static_cast<rf::Isa>(i);
    if (rf::isa_name(isa) == name) {
      rf::force_isa(isa);
      return;
    }
  }
  throw std::invalid_argument("no such instruction set: " + std::string(name));
}

void bind_parts(nb::module_& m) {
  nb::class_<PyForest>(m, "Forest", "A forest of decision trees: the mean of the leaf vectors.")
      .def_static("packed", &packed_forest, "n_features"_a, "n_outputs"_a,
                  "tree_offset"_a.noconvert(), "feature"_a.noconvert(), "threshold"_a.noconvert(),
                  "left"_a.noconvert(), "right"_a.noconvert(), "leaf_index"_a.noconvert(),
                  "leaf_values"_a.noconvert(),
                  "A forest from flat arrays, trees one after another; all are copied.\n\n"
                  "tree_offset int64 (trees + 1); feature, left, right, leaf_index int32 (nodes);\n"
                  "threshold float64 (nodes); leaf_values float64 (leaves * n_outputs, flat).\n"
                  "Inner node: feature >= 0, left if x[feature] <= threshold; children count from\n"
                  "the tree's first node. Leaf: feature < 0, leaf_index picks its row of values.\n"
                  "Raises ValueError if an index is out of range, a tree is no tree, a value is\n"
                  "NaN or a length is wrong.")
      .def_static("treelite", &treelite_forest, "data"_a,
                  "A forest from the content of a file that treelite.Model.serialize wrote.\n\n"
                  "Random forests of Treelite 4.1 and later 4.x: float64 thresholds and leaf\n"
                  "vectors, one target, tests x <= threshold, outputs averaged over the trees.\n"
                  "Raises ValueError if the data is truncated, corrupt or of another kind.")
      .def_static("compiled", &compiled_forest, "sha256"_a,
                  "The compiled forest of the Treelite file with this SHA-256 (hex), or None.")
      .def("predict", &predict, "X"_a.noconvert(),
           "X: float32 (rows, n_features), C order. Returns float64 (rows, n_outputs).\n\n"
           "Raises ValueError for another number of features, NaN or infinity.")
      .def_prop_ro("n_features", [](const PyForest& f) { return f.part->n_features(); })
      .def_prop_ro("n_outputs", [](const PyForest& f) { return f.part->n_outputs(); })
      .def_prop_ro("n_trees", [](const PyForest& f) { return f.part->n_trees(); })
      .def_prop_ro(
          "kind", [](const PyForest& f) { return f.part->kind(); }, "\"compiled\" or \"packed\".");

  m.def("treelite_arrays", &treelite_arrays, "data"_a,
        "What Forest.treelite makes a forest of, in the order in which Forest.packed takes it.\n\n"
        "Raises ValueError as it does; the shapes of the trees are not checked.");

  nb::class_<PyCalibration>(m, "Calibration", "Evidence -> calibrated probability of an attack.")
      .def("__init__", init(&make_calibration), "weights"_a, "bias"_a,
           "knot_x"_a = std::vector<double>{}, "knot_y"_a = std::vector<double>{},
           "weights: 2 (forest_logit, rules), or 6 (and linear, passage, lexical, windows).\n"
           "knots: the isotonic map, or empty.\n\n"
           "Raises ValueError for values that are not finite, knots that do not increase, or a\n"
           "negative weight of forest_logit.")
      .def("__call__", &calibrate, "evidence"_a,
           "evidence: the 6 values that the weights are for; 2 stand for those and four zeros.\n"
           "Returns the probability in [0, 1].");

  nb::class_<PyClusters>(m, "Clusters", "Nearest cluster centroids by cosine.")
      .def("__init__", init(&make_clusters), "centroids"_a.noconvert(), "n_attack"_a,
           "centroids: float32 (clusters, hidden), unit rows, attack clusters first; copied.\n\n"
           "Raises ValueError for a row that is not of unit length, or n_attack too large.")
      .def("nearest", &nearest_clusters, "embedding"_a.noconvert(),
           "embedding: float32 (hidden), unit length. Returns up to 3 (cluster, cosine) of the\n"
           "attack clusters, best first, and the novelty: 1 - the best cosine over all clusters.")
      .def_prop_ro("count", [](const PyClusters& c) { return c.part->count(); })
      .def_prop_ro("n_attack", [](const PyClusters& c) { return c.part->n_attack(); });

  nb::class_<PyTriggers>(m, "TriggerSet", "Linear-time matcher of many trigger patterns.")
      .def("__init__", init(&make_triggers), "specs"_a,
           "specs: for each trigger a dict with phrases, literals and weight, as in\n"
           "triggers.json, or the tuple (phrases, literals, weight). A phrase is a list of\n"
           "elements: a dict with words, prefixes and max_gap, or the tuple of these.\n\n"
           "Raises ValueError for a pattern that is empty or not normalised, a word that holds a\n"
           "separator, or a weight outside [0, 1).",
           nb::sig("def __init__(self, specs: collections.abc.Iterable[collections.abc.Mapping[str, "
                   "typing.Any] | tuple[typing.Any, typing.Any, float]]) -> None"))
      .def("match", &match, "text"_a,
           "All matches as (trigger, begin, end), sorted by (begin, end, trigger); spans are code\n"
           "points of `text`, half open.")
      .def("rule_score", &rule_score, "text"_a,
           "Noisy-or of the weights of the distinct triggers that match, in [0, 1].")
      .def("__len__", [](const PyTriggers& t) { return t.part->size(); });
}

void bind_features(nb::module_& m) {
  m.def("ngram_hashes", &ngram_hashes, "text"_a, "begin"_a = 0, "end"_a = nb::none(),
        "uint32 (n,): the hashes of all n-grams of code points [begin, end) of the text: characters\n"
        "in threes, fours and fives, words, and pairs of words, of the normalised text.");
  m.def("strongest_passage", &strongest_passage, "tokens"_a.noconvert(), "weight"_a.noconvert(),
        "bias"_a,
        "tokens: float32 (S, H), weight: float32 (H,). (evidence, begin, end) of the strongest\n"
        "passage: the 8 tokens in a row whose mean of weight @ token + bias is highest.\n\n"
        "Raises ValueError for lengths that differ or a weight that is not finite.");
  nb::class_<PyFeatures>(m, "Features", "What the forests see of a window, in one row.")
      .def("__init__", init(&make_features), "linear_weight"_a.noconvert(),
           "linear_bias"_a.noconvert(), "passage_weight"_a.noconvert(), "passage_bias"_a,
           "lexical_table"_a.noconvert(), "lexical_scale"_a.noconvert(),
           "lexical_bias"_a.noconvert(), "label_table"_a.noconvert(), "label_scale"_a.noconvert(),
           "label_bias"_a.noconvert(), "trigger_family"_a.noconvert(),
           "trigger_weight"_a.noconvert(), "families"_a,
           "linear_weight float32 (K, H), linear_bias (K,): logits on the embedding; passage_weight\n"
           "(H,): logit of a token; *_table int8 (2^bits, outputs) with *_scale and *_bias float32\n"
           "(outputs,): n-gram models; trigger_family uint32 and trigger_weight float64 (triggers,).\n\n"
           "Raises ValueError for parts that do not fit, values that are not finite, or a trigger's\n"
           "weight outside [0, 1).")
      .def("row", &feature_row, "embedding"_a.noconvert(), "evidence"_a, "text"_a, "begin"_a,
           "end"_a, "matches"_a,
           "float32 (full_size,) for the window [begin, end) of the text, as the fused call makes\n"
           "it. embedding: float32 (H,); matches: as TriggerSet.match gives them.")
      .def_prop_ro("hidden", [](const PyFeatures& f) { return f.part->hidden(); })
      .def_prop_ro("size", [](const PyFeatures& f) { return f.part->size(); },
                   "Length of the row that the binary forest sees.")
      .def_prop_ro("full_size", [](const PyFeatures& f) { return f.part->full_size(); },
                   "Length of the row that the family and subfamily forests see.");
}

void bind_tokens(nb::module_& m) {
  nb::class_<PyTokens>(m, "Tokens", "The tokens of one text, without special ones. Immutable.")
      .def("__len__", [](const PyTokens& t) { return t.tokens.size(); })
      .def_prop_ro("ids", &token_ids, nb::rv_policy::move, "int64 (n,), a new array.")
      .def_prop_ro("offsets", &token_offsets, nb::rv_policy::move,
                   "uint32 (n, 2), a new array: code points [begin, end) of the text.")
      .def("token_to_chars",
           [](const PyTokens& t, std::size_t index) {
             const rf::Token& token = t.at(index);
             return std::make_pair(token.begin, token.end);
           },
           "index"_a, "Code points [begin, end) of one token. Raises IndexError past the last.")
      .def("row", &token_row, "start"_a, "stop"_a, "first"_a, "last"_a,
           "int64 (1, stop - start + 2): the ids of tokens [start, stop) between first and last.\n\n"
           "Raises IndexError where there are no such tokens.");
  nb::class_<PyWordPiece>(m, "WordPiece",
                          "BERT's uncased normaliser, word splitter and WordPiece in one pass, as in "
                          "the\ntokenizers library. Immutable and thread-safe.",
                          nb::is_weak_referenceable())
      .def("__init__", init(&make_wordpiece), "vocabulary"_a, "unknown"_a, "max_word"_a = 100,
           "chunk"_a = 0, "left_out"_a = nb::list(),
           "vocabulary: list of str, the token of each id; those that begin with ## continue a word.\n"
           "unknown: id of the token for words that it cannot spell or that have more than max_word\n"
           "characters. chunk: cut words into pieces of that many characters first; 0: do not.\n"
           "left_out: words, normalised, that make no token where they stand alone.\n\n"
           "Raises TypeError for tokens that are not str, ValueError for no token, 65,536 of them or\n"
           "more, one that appears twice, unknown outside of them, max_word above 1,000, or a word to\n"
           "leave out that appears twice, is empty, or is longer than max_word or chunk.",
           nb::sig("def __init__(self, vocabulary: list[str], unknown: int, max_word: int = 100, "
                   "chunk: int = 0, left_out: list[str] = []) -> None"))
      .def("sharing", &share_wordpiece, "chunk"_a = 0, "left_out"_a = nb::list(),
           "Another one with the same tokens, which are in memory once.\n\n"
           "Raises TypeError and ValueError for words to leave out as the constructor, ValueError also\n"
           "for one with a character that is in no token.",
           nb::sig("def sharing(self, chunk: int = 0, left_out: list[str] = []) -> WordPiece"))
      .def("encode", &tokenise, "text"_a,
           "The tokens of a text, with the GIL released. Special tokens in it are plain text, lone\n"
           "surrogates are left out. Time is linear in the length, whatever the text.")
      .def_prop_ro("vocabulary_size", [](const PyWordPiece& w) { return w.part->vocabulary_size(); })
      .def_prop_ro("nbytes", [](const PyWordPiece& w) { return w.part->bytes(); },
                   "Size of the trie and tables.");
}

void bind_signs(nb::module_& m) {
  nb::class_<PySigns>(m, "EncodingSigns",
                      "Which decoders of encoded parts could find anything in a text. Immutable and\n"
                      "thread-safe.")
      .def("__init__", init(&make_signs), "coded"_a, "common"_a, "in_ay"_a,
           "coded: what common words become in ciphers, with a bit for each cipher that does so.\n"
           "common: words that leetspeak is looked for. in_ay: words in \"ay\" that are no pig Latin.\n\n"
           "Raises TypeError for words that are not str and values that are no uint32, ValueError for\n"
           "words that are not of 1 to 12 letters a to z or, but in common, appear twice.",
           nb::sig("def __init__(self, coded: dict[str, int], common: list[str], in_ay: list[str]) -> "
                   "None"))
      .def("__call__", &signs, "text"_a, "limit"_a,
           "Bits, as in raxe_fast.decode_signs: a decoder whose bit is not set finds nothing in the\n"
           "text, where views of at most limit characters are wanted. One pass; the GIL is released\n"
           "for long texts only.");
}

void bind_scoring(nb::module_& m) {
  using rf::TextScore;
  nb::class_<TextScore>(m, "TextScore", "What Scorer.score says of one text. Read-only.")
      .def_ro("score", &TextScore::score,
              "Calibrated P(attack) of the worst window; the rule score if there is no window;\n"
              "NaN if an embedding or other evidence was not finite.")
      .def_ro("forest_probability", &TextScore::forest_probability,
              "Uncalibrated P(attack) of the worst window; NaN without one.")
      .def_ro("linear", &TextScore::linear,
              "Evidence of the worst window, logits; NaN without one or without features.")
      .def_ro("passage", &TextScore::passage)
      .def_ro("lexical", &TextScore::lexical)
      .def_prop_ro(
          "passage_tokens",
          [](const TextScore& s) { return std::make_pair(s.passage_begin, s.passage_end); },
          "Its strongest passage: tokens of the window, half open, special tokens counted.")
      .def_ro("rule_score", &TextScore::rule_score)
      .def_ro("window", &TextScore::window,
              "The worst window's index within the text (the first of equals; the first that is\n"
              "not finite, if any is); -1: no window.")
      .def_ro("window_scores", &TextScore::window_scores, nb::rv_policy::copy,
              "One calibrated probability per window of the text.")
      .def_ro("family", &TextScore::family, nb::rv_policy::copy,
              "Family scores of the worst window; empty below detail_threshold.")
      .def_ro("subfamily", &TextScore::subfamily, nb::rv_policy::copy)
      .def_prop_ro(
          "nearest", [](const TextScore& s) { return neighbours(s.nearest); },
          "Up to 3 (cluster, cosine) of the attack clusters, best first.")
      .def_ro("novelty", &TextScore::novelty)
      .def_prop_ro(
          "matches", [](const TextScore& s) { return matches_of(s.matches); },
          "(trigger, begin, end), sorted by (begin, end, trigger); code points of the text.")
      .def_ro("finite", &TextScore::finite)
      .def_prop_ro(
          "times",
          [](const TextScore& s) {
            return std::make_tuple(s.times.pooling, s.times.forests, s.times.clusters,
                                   s.times.triggers);
          },
          "Nanoseconds spent in (pooling, forests, clusters, triggers).");

  nb::class_<PyScorer>(m, "Scorer", "The fused call. Immutable and thread-safe.")
      .def("__init__", init(&make_scorer), "binary"_a, "family"_a, "subfamily"_a, "calibration"_a,
           "clusters"_a, "triggers"_a, "hidden"_a, "detail_threshold"_a,
           "features"_a = nb::none(),
           "Without features the forests see the embedding alone.\n\n"
           "Raises ValueError if binary has not 2 outputs, a forest's n_features differs from the\n"
           "row it will see, the centroids' length from hidden, or detail_threshold is NaN.")
      .def("score", &score, "blocks"_a, "window_text"_a.noconvert(), "texts"_a,
           "all_details"_a = false, "masks"_a = nb::none(), "spans"_a.noconvert() = nb::none(),
           "counts"_a.noconvert() = nb::none(), "known"_a = nb::none(),
           "Scores a batch with the GIL released; nothing is copied.\n\n"
           "blocks: list of float32 (B, S, hidden), C order: token embeddings of windows of equal\n"
           "length. window_text: uint32 (windows,): for each window, over all blocks in order, the\n"
           "index of its text. texts: list of str. masks: None, or per block uint8 (B, S), 0 for\n"
           "padding. spans: uint32 (windows, 2): the code points [begin, end) that each window\n"
           "covers of its text; None: all. counts: uint32 (texts,): windows of each text in all,\n"
           "those left out too; None: those given. known: what an earlier call said of the texts,\n"
           "whose triggers are taken from there; None: they are matched. Returns one TextScore per\n"
           "text.\n\n"
           "Raises TypeError for another dtype, rank or layout or for a text that is not a str,\n"
           "ValueError for shapes that do not fit, an index that is no text, or a count below the\n"
           "number of windows given.",
           nb::sig("def score(self, blocks: list[NDArray[numpy.float32]], window_text: "
                   "NDArray[numpy.uint32], texts: list[str], all_details: bool = "
                   "False, masks: list[NDArray[numpy.uint8]] | None = None, spans: "
                   "NDArray[numpy.uint32] | None = None, counts: NDArray[numpy.uint32] | None = "
                   "None, known: list[TextScore] | None = None) -> "
                   "list[TextScore]"))
      .def_prop_ro("hidden", [](const PyScorer& s) { return s.part->parts().hidden; })
      .def_prop_ro("detail_threshold",
                   [](const PyScorer& s) { return s.part->parts().detail_threshold; });
}

void bind_encoder(nb::module_& m) {
  nb::class_<PyEncoder>(m, "NativeEncoder",
                        "A BERT sentence encoder in INT8. Immutable and thread-safe; one thread per "
                        "call.")
      .def("__init__", init(&make_encoder), "words"_a.noconvert(), "word_scale"_a.noconvert(),
           "positions"_a.noconvert(), "gamma"_a.noconvert(), "beta"_a.noconvert(), "layers"_a,
           "heads"_a, "epsilon"_a = 1e-12F, "pairs"_a.noconvert() = nb::none(),
           "pair_scale"_a.noconvert() = nb::none(),
           "words int8 (V, H) and word_scale float32 (V,), positions float32 (P, H), gamma and beta\n"
           "(H,) of the norm of the embeddings; all are copied. layers: for each a dict of\n"
           "{query,key,value,attention_out,intermediate,output}.weight int8 (inputs, outputs),\n"
           "within +-64, with .scale and .bias float32 (outputs,), and\n"
           "{attention_norm,output_norm}.{gamma,beta} float32 (H,). pairs int8 (R, H) and pair_scale\n"
           "float32 (R,): rows that are added to the word of a token, by a hash of it and of the\n"
           "token before it (raxe_fast/encoder.hpp, pair_row).\n\n"
           "Packs the weights for the instruction set in use, which stays that of this encoder. The\n"
           "GIL is released: nobody may write to the arrays meanwhile.\n"
           "Raises TypeError for another dtype, rank or layout, ValueError for missing arrays, shapes\n"
           "that do not fit or are out of range, weights out of range, values that are not finite.",
           nb::sig("def __init__(self, words: NDArray[numpy.int8], word_scale: "
                   "NDArray[numpy.float32], positions: NDArray[numpy.float32], gamma: "
                   "NDArray[numpy.float32], beta: NDArray[numpy.float32], layers: list[dict[str, "
                   "NDArray[typing.Any]]], heads: int, epsilon: float = 1e-12, pairs: "
                   "NDArray[numpy.int8] | None = None, pair_scale: NDArray[numpy.float32] | None = "
                   "None) -> None"))
      .def("encode", &encode, "ids"_a.noconvert(),
           "ids: int64 (B, S), C order, without padding. Returns float32 (B, S, H): token\n"
           "embeddings. The GIL is released; the rows of a text do not depend on its batch.\n\n"
           "Raises ValueError for ids outside the vocabulary, S = 0 or S > positions.")
      .def_prop_ro("hidden", [](const PyEncoder& e) { return e.part->hidden(); })
      .def_prop_ro("layers", [](const PyEncoder& e) { return e.part->layers(); })
      .def_prop_ro("positions", [](const PyEncoder& e) { return e.part->positions(); },
                   "The most tokens of a text.")
      .def_prop_ro("vocabulary", [](const PyEncoder& e) { return e.part->vocabulary(); })
      .def_prop_ro("nbytes", [](const PyEncoder& e) { return e.part->bytes(); },
                   "Size of the packed weights and tables.")
      .def_prop_ro("kernels", [](const PyEncoder& e) { return e.part->kernels(); },
                   "\"scalar\", \"avx2\", \"avx512vnni\" or \"amx\". The results are "
                   "the same to the bit.");
}

void bind_screener(nb::module_& m) {
  nb::class_<PyScreener>(m, "Screener",
                         "The screening stage: how sure a tiny encoder is that a window is "
                         "harmless.\nImmutable and thread-safe.")
      .def("__init__", init(&make_screener), "encoder"_a, "linear_weight"_a.noconvert(),
           "linear_bias"_a, "passage_weight"_a.noconvert(), "passage_bias"_a, "weights"_a, "bias"_a,
           "features"_a = nb::none(),
           "linear_weight, passage_weight: float32 (H,) of the encoder, on the unit embedding and on\n"
           "a token. weights, bias: of the evidence (linear, passage, lexical). features: whose\n"
           "n-gram model gives the third; None: it is 0.\n\n"
           "Raises ValueError for parts that do not fit, values that are not finite, a negative\n"
           "weight, or one of n-grams without features.")
      .def("__call__", &screen, "ids"_a.noconvert(), "text"_a, "begin"_a, "end"_a,
           "The logit of an attack for one window: ids int64 (1, S), C order, code points [begin, end)\n"
           "of the text; NaN if it is not finite. The GIL is released; nothing is made but the float.\n\n"
           "Raises ValueError for ids outside the vocabulary, S = 0, S > positions, more than one\n"
           "window, or a span that is not in the text.")
      .def("evidence", &screen_evidence, "ids"_a.noconvert(), "text"_a, "begin"_a, "end"_a,
           "(linear, passage, lexical) of one window, of which the logit is made.")
      .def_prop_ro("weights", [](const PyScreener& s) { return s.part->parts().weights; })
      .def_prop_ro("bias", [](const PyScreener& s) { return s.part->parts().bias; });
}

}  // namespace

NB_MODULE(_core, m) {
  m.doc() = "The compiled core of raxe-fast. Internal: use the package raxe_fast.";
  m.attr("__version__") = RAXE_FAST_VERSION;
  m.def("normalize", &normalize, "text"_a, "separate_ignorables"_a = false,
        "The normalised text and, for each of its characters, the index of its origin in `text`.\n\n"
        "separate_ignorables: turn invisible format characters into spaces; else drop them.");
  m.def("isa", [] { return rf::isa_name(rf::active_isa()); },
        "The instruction set in use: \"scalar\", \"avx2\", \"avx512\" or \"amx\".");
  m.def("detected_isa", [] { return rf::isa_name(rf::detected_isa()); },
        "The best instruction set of this machine, whatever is forced.");
  m.def("force_isa", &force_isa, "name"_a,
        "Uses this instruction set from now on, process-wide; for tests and benchmarks.\n\n"
        "Raises ValueError if the machine lacks it or there is no such name.");
  m.def("mean_pool_l2", &mean_pool_l2, "tokens"_a.noconvert(), "mask"_a.noconvert() = nb::none(),
        "tokens: float32 (S, H), C order; mask: uint8 (S,) or None. Returns float32 (H,): the mean\n"
        "of the tokens whose mask is not 0, scaled to unit length; zeros if there is none.\n\n"
        "Raises ValueError if mask and tokens differ in length.");
  m.def("release_freed_memory", &rf::release_freed_memory,
        "Gives the system what the C library keeps of freed memory, where that is glibc.",
        nb::call_guard<nb::gil_scoped_release>());
  m.def("compiled_heads", &rf::compiled_heads,
        "SHA-256 of every Treelite file compiled into this build.");
  m.def("build_info", &build_info, "How this module was built; JSON-safe.",
        nb::sig("def build_info() -> dict[str, typing.Any]"));
  bind_tokens(m);
  bind_signs(m);
  bind_parts(m);
  bind_features(m);
  bind_encoder(m);
  bind_screener(m);
  bind_scoring(m);
}
