// Runs a test body on every instruction set of this machine, then restores the best one.
#pragma once

#include <doctest/doctest.h>

#include <string>

#include "raxe_fast/cpu.hpp"

namespace raxe_fast::test {

template <typename Body>
void on_every_isa(Body body) {
  for (int level = 0; level <= static_cast<int>(detected_isa()); ++level) {
    const auto isa = static_cast<Isa>(level);
    const std::string name(isa_name(isa));
    CAPTURE(name);
    force_isa(isa);
    body();
  }
  force_isa(detected_isa());
}

}  // namespace raxe_fast::test
