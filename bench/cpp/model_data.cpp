#include "model_data.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace raxe_fast::bench {
namespace {

class Reader {
 public:
  explicit Reader(std::string directory) : directory_(std::move(directory)) {
    std::istringstream lines(text("meta.txt"));
    std::string key, value;
    while (lines >> key >> value) meta_[key] = value;
  }

  [[nodiscard]] std::string text(const std::string& name) const {
    std::ifstream file(directory_ + "/" + name, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + directory_ + "/" + name);
    std::ostringstream out;
    out << file.rdbuf();
    return out.str();
  }

  template <typename T>
  [[nodiscard]] std::vector<T> array(const std::string& name) const {
    const std::string bytes = text(name + ".bin");
    if (bytes.size() % sizeof(T) != 0) throw std::runtime_error(name + ".bin: odd size");
    std::vector<T> out(bytes.size() / sizeof(T));
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }

  [[nodiscard]] const std::string& meta(const std::string& key) const {
    const auto found = meta_.find(key);
    if (found == meta_.end()) throw std::runtime_error("meta.txt: no " + key);
    return found->second;
  }

  [[nodiscard]] std::size_t number(const std::string& key) const {
    return static_cast<std::size_t>(std::stoull(meta(key)));
  }

  [[nodiscard]] double real(const std::string& key) const { return std::stod(meta(key)); }

 private:
  std::string directory_;
  std::map<std::string, std::string> meta_;
};

ForestArrays read_forest(const Reader& reader, const std::string& head) {
  ForestArrays out;
  out.n_features = reader.number(head + ".n_features");
  out.n_outputs = reader.number(head + ".n_outputs");
  out.tree_offset = reader.array<std::int64_t>(head + ".tree_offset");
  out.feature = reader.array<std::int32_t>(head + ".feature");
  out.threshold = reader.array<double>(head + ".threshold");
  out.left = reader.array<std::int32_t>(head + ".left");
  out.right = reader.array<std::int32_t>(head + ".right");
  out.leaf_index = reader.array<std::int32_t>(head + ".leaf_index");
  out.leaf_values = reader.array<double>(head + ".leaf_values");
  return out;
}

// triggers.bin: uint32 stream; every list and string is its length followed by its items.
class TriggerStream {
 public:
  TriggerStream(std::vector<std::uint32_t> words, std::vector<double> weights)
      : words_(std::move(words)), weights_(std::move(weights)) {}

  [[nodiscard]] std::vector<TriggerSpec> read() {
    std::vector<TriggerSpec> out(next());
    if (out.size() != weights_.size()) throw std::runtime_error("triggers.bin: weights differ");
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i].weight = weights_[i];
      out[i].phrases.resize(next());
      for (auto& phrase : out[i].phrases) {
        phrase.resize(next());
        for (auto& element : phrase) {
          element.max_gap = next();
          element.words = strings();
          element.prefixes = strings();
        }
      }
      out[i].literals = strings();
    }
    return out;
  }

 private:
  [[nodiscard]] std::uint32_t next() {
    if (at_ >= words_.size()) throw std::runtime_error("triggers.bin: truncated");
    return words_[at_++];
  }

  [[nodiscard]] std::vector<std::u32string> strings() {
    std::vector<std::u32string> out(next());
    for (auto& string : out) {
      string.resize(next());
      for (auto& c : string) c = static_cast<char32_t>(next());
    }
    return out;
  }

  std::vector<std::uint32_t> words_;
  std::vector<double> weights_;
  std::size_t at_ = 0;
};

Features::Parts read_features(const Reader& reader, const std::vector<TriggerSpec>& triggers) {
  Features::Parts out;
  const auto floats = [&](const char* name) {
    return reader.array<float>("features." + std::string(name));
  };
  const auto ngrams = [&](const std::string& name) {
    const auto bits = static_cast<unsigned>(reader.number("features." + name + "_bits"));
    return std::make_shared<LexicalModel>(
        reader.array<std::int8_t>("features." + name + "_table"), bits,
        floats((name + "_scale").c_str()), floats((name + "_bias").c_str()));
  };
  const std::vector<float> passage = floats("passage_weight");
  out.linear = std::make_shared<LinearLayer>(floats("linear_weight"), floats("linear_bias"),
                                             passage.size());
  out.passages = std::make_shared<PassageFinder>(
      passage, static_cast<float>(reader.real("features.passage_bias")));
  out.lexical = ngrams("lexical");
  out.labels = ngrams("labels");
  out.trigger_family = reader.array<std::uint32_t>("features.trigger_family");
  for (const TriggerSpec& trigger : triggers) out.trigger_weight.push_back(trigger.weight);
  out.families = reader.number("features.families");
  return out;
}

// What the forests see: each embedding with the features of one of the encoded texts.
std::vector<float> make_rows(const ModelData& data) {
  const std::size_t count = data.embeddings.size() / data.hidden, size = data.row_size();
  std::vector<float> out(count * size, 0.0F);
  FeatureScratch scratch;
  std::vector<float> evidence;
  for (std::size_t i = 0; i < count; ++i) {
    float* const row = out.data() + i * size;
    std::copy_n(data.embeddings.data() + i * data.hidden, data.hidden, row);
    if (data.features == nullptr) continue;
    const EncodedText& text = data.encoded[i % data.encoded.size()];
    const Passage passage =
        data.features->passages()(text.tokens.data(), text.length, nullptr, evidence);
    data.features->fill(passage.evidence, text.text.view(), text.span.begin, text.span.end,
                        scratch, row);
    data.features->fill_labels(scratch, row);
  }
  return out;
}

BenchText read_text(const Reader& reader, const std::string& key) {
  BenchText out;
  out.name = reader.meta(key + ".name");
  out.width = static_cast<std::uint8_t>(reader.number(key + ".width"));
  out.bytes = reader.array<std::uint8_t>(key);
  return out;
}

}  // namespace

std::shared_ptr<const Forest> ModelData::forest(const std::string& head, bool compiled) const {
  if (compiled) return make_compiled_forest(sha256.at(head));
  return make_packed_forest(forests.at(head));
}

std::unique_ptr<Scorer> ModelData::scorer(bool compiled) const {
  Scorer::Parts parts;
  parts.binary = forest("binary", compiled);
  parts.family = forest("family", compiled);
  parts.subfamily = forest("subfamily", compiled);
  if (!parts.binary || !parts.family || !parts.subfamily) return nullptr;
  parts.calibration = calibration;
  parts.clusters = std::make_shared<Clusters>(centroids, hidden, n_attack);
  parts.triggers = std::make_shared<TriggerSet>(triggers);
  parts.features = features;
  parts.hidden = hidden;
  parts.detail_threshold = detail_threshold;
  return std::make_unique<Scorer>(std::move(parts));
}

ModelData load_model_data(const std::string& directory) {
  const Reader reader(directory);
  ModelData out;
  out.hidden = reader.number("hidden");
  out.detail_threshold = reader.real("detail_threshold");
  for (const char* head : kHeads) {
    out.forests[head] = read_forest(reader, head);
    out.sha256[head] = reader.meta(std::string(head) + ".sha256");
  }
  out.embeddings = reader.array<float>("embeddings");
  out.centroids = reader.array<float>("centroids");
  out.n_attack = reader.number("n_attack");
  out.calibration = std::make_shared<Calibration>(
      reader.array<double>("calibration.weights"), reader.real("calibration.bias"),
      reader.array<double>("calibration.knot_x"), reader.array<double>("calibration.knot_y"));
  out.triggers = TriggerStream(reader.array<std::uint32_t>("triggers"),
                               reader.array<double>("triggers.weights"))
                     .read();
  if (reader.number("features") != 0) {
    out.feature_parts = read_features(reader, out.triggers);
    out.features = std::make_shared<Features>(out.feature_parts);
  }
  for (std::size_t i = 0; i < reader.number("texts"); ++i) {
    out.texts.push_back(read_text(reader, "text" + std::to_string(i)));
  }
  for (std::size_t i = 0; i < reader.number("encoded"); ++i) {
    const std::string key = "encoded" + std::to_string(i);
    EncodedText encoded{read_text(reader, key), settle(reader.array<float>(key + ".tokens")), 0,
                        {0, 0}};
    encoded.length = encoded.tokens.size() / out.hidden;
    encoded.span = {static_cast<std::uint32_t>(reader.number(key + ".begin")),
                    static_cast<std::uint32_t>(reader.number(key + ".end"))};
    out.encoded.push_back(std::move(encoded));
  }
  if (out.embeddings.size() < out.hidden || out.encoded.empty()) {
    throw std::runtime_error(directory + ": no embeddings or no encoded text");
  }
  out.rows = make_rows(out);
  return out;
}

}  // namespace raxe_fast::bench
