#include <doctest/doctest.h>

#include <stdexcept>

#include "raxe_fast/cpu.hpp"

using namespace raxe_fast;

TEST_CASE("cpu: names") {
  CHECK(isa_name(Isa::scalar) == "scalar");
  CHECK(isa_name(Isa::avx2) == "avx2");
  CHECK(isa_name(Isa::avx512) == "avx512");
  CHECK(isa_name(Isa::amx) == "amx");
}

TEST_CASE("cpu: the active level starts at the detected one and can be forced down") {
  CHECK(active_isa() == detected_isa());
  force_isa(Isa::scalar);
  CHECK(active_isa() == Isa::scalar);
  force_isa(detected_isa());
  CHECK(active_isa() == detected_isa());
}

TEST_CASE("cpu: a level that the machine lacks is refused and changes nothing") {
  const auto beyond = static_cast<Isa>(static_cast<int>(detected_isa()) + 1);
  CHECK_THROWS_AS(force_isa(beyond), std::invalid_argument);
  CHECK_THROWS_AS(force_isa(static_cast<Isa>(-1)), std::invalid_argument);
  CHECK(active_isa() == detected_isa());
}
