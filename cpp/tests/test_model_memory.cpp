#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "raxe_fast/model_memory.hpp"

#if defined(__linux__)
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#endif

using namespace raxe_fast;

TEST_CASE("model memory unit: pieces are aligned, apart and writable") {
  std::vector<void*> pieces;
  for (const std::size_t bytes : {0U, 1U, 63U, 64U, 4096U, 9U << 20}) {
    void* const piece = model_allocate(bytes);
    CHECK(reinterpret_cast<std::uintptr_t>(piece) % kModelAlignment == 0);
    std::memset(piece, static_cast<int>(pieces.size()), bytes);
    pieces.push_back(piece);
  }
  const auto* const last = static_cast<unsigned char*>(pieces.back());
  CHECK((last[0] == 5 && last[(9U << 20) - 1] == 5));
  CHECK(static_cast<unsigned char*>(pieces[3])[63] == 3);
  for (void* const piece : pieces) model_free(piece);
  model_free(nullptr);
}

#if defined(__linux__)
TEST_CASE("model memory safety: a forked child can allocate, whatever other threads did meanwhile") {
  std::atomic<bool> stop{false};
  std::thread busy([&stop] {
    while (!stop) model_free(model_allocate(std::size_t{9} << 20));
  });
  for (int i = 0; i < 20; ++i) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      alarm(20);  // a mutex that nobody will unlock ends here
      model_free(model_allocate(64));
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
  }
  stop = true;
  busy.join();
}
#endif
