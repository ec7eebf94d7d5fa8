# Warnings, sanitizers and per-file instruction sets.

if(RAXE_FAST_SANITIZE)
  # Everywhere, generated C included: a half-instrumented program misses errors.
  add_compile_options(-fsanitize=${RAXE_FAST_SANITIZE} -fno-sanitize-recover=all
    -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=${RAXE_FAST_SANITIZE})
endif()

# raxe_fast_target_options(<target>): the house warnings on hand-written code.
function(raxe_fast_target_options target)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wconversion;-Wsign-conversion>)
  if(RAXE_FAST_WERROR)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
  endif()
endfunction()

# raxe_fast_isa_sources(<list variable>): gives *_avx2.cpp, *_avx512*.cpp and *_amx.cpp their
# flags, or drops them where the compiler does not target x86-64. Nothing else may use these flags:
# an inline function emitted from such a file could be the copy the linker keeps for everybody.
function(raxe_fast_isa_sources list)
  include(CheckCXXSourceCompiles)
  check_cxx_source_compiles("
    #if !defined(__x86_64__)
    #error not x86-64
    #endif
    int main() { return 0; }" RAXE_FAST_X86_64)
  set(sources ${${list}})
  if(NOT RAXE_FAST_X86_64)
    list(FILTER sources EXCLUDE REGEX "_(avx2|avx512|avx512vnni|amx)\\.cpp$")
  endif()
  foreach(source IN LISTS sources)
    if(source MATCHES "_avx2\\.cpp$")
      set_source_files_properties("${source}" PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma")
    elseif(source MATCHES "_(avx512|avx512vnni|amx)\\.cpp$")
      # GCC before 13 warns about its own AVX-512 intrinsics (PR 105593).
      set_source_files_properties("${source}" PROPERTIES COMPILE_OPTIONS
        "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mfma;$<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized;-Wno-maybe-uninitialized>")
      if(source MATCHES "_avx512vnni\\.cpp$")
        set_property(SOURCE "${source}" APPEND PROPERTY COMPILE_OPTIONS "-mavx512vnni")
      elseif(source MATCHES "_amx\\.cpp$")
        set_property(SOURCE "${source}" APPEND PROPERTY COMPILE_OPTIONS "-mamx-tile;-mamx-int8")
      endif()
    endif()
  endforeach()
  set(${list} ${sources} PARENT_SCOPE)
endfunction()
