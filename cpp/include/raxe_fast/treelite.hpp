// Reader of Treelite's binary model files (serialisation v4).
//
// What treelite.Model.serialize(path) of Treelite 4.x writes, in little-endian order and without
// padding: a header, then the trees one after another, each a sequence of arrays over its nodes.
// Every array and every string is preceded by its length (uint64). Treelite's documentation calls
// this the v4 format; it promises that all 4.x releases from 4.1 on read each other's files.
//
// Supported are the random forests that raxe-fast trains: float64 thresholds and leaf vectors, one
// target, tests x <= threshold, outputs averaged over the trees. Everything else in the format
// (categorical splits, gradient-boosted trees with scalar leaves, base scores, postprocessors) is
// read past or refused by name.
#pragma once

#include <string_view>

#include "raxe_fast/forest.hpp"

namespace raxe_fast {

// Throws std::invalid_argument if the data is truncated, corrupt, or holds a model of another kind
// than those above. That the nodes form trees, and that their features are in range, is checked by
// make_packed_forest. Memory in proportion to the length of the data, whatever it claims.
[[nodiscard]] ForestArrays read_treelite(std::string_view data);

}  // namespace raxe_fast
