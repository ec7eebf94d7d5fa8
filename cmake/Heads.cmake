# Forests as machine code: Treelite model -> tl2cgen -> C -> object libraries, at build time.

# Translation units per head, so that all cores compile from the start.
set(RAXE_FAST_HEAD_UNITS 2 CACHE STRING "C files per compiled forest")
mark_as_advanced(RAXE_FAST_HEAD_UNITS)

# raxe_fast_add_heads(<core target> <unpacked model directory>)
#
# Compiles the heads named in the directory's manifest.json into <core target>. The Python that
# builds (Python_EXECUTABLE) needs treelite and tl2cgen. Without this call the core holds the
# empty registry of compiled_heads_empty.cpp. Call it at most once. The project must enable C.
function(raxe_fast_add_heads core model)
  find_package(Python 3.11 REQUIRED COMPONENTS Interpreter)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c "import tl2cgen, treelite"
    RESULT_VARIABLE missing OUTPUT_QUIET ERROR_VARIABLE error)
  if(missing)
    message(FATAL_ERROR "raxe-fast: compiling the forests needs treelite and tl2cgen in "
      "${Python_EXECUTABLE} (choose another with -DPython_EXECUTABLE=...):\n${error}")
  endif()

  file(READ "${model}/manifest.json" manifest)
  string(JSON count LENGTH "${manifest}" heads)
  if(count EQUAL 0)
    return()
  endif()
  math(EXPR last_head "${count} - 1")
  math(EXPR last_unit "${RAXE_FAST_HEAD_UNITS} - 1")
  set(out "${CMAKE_CURRENT_BINARY_DIR}/heads")
  set(script "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/generate_heads.py")
  set(inputs "${script}" "${model}/manifest.json")
  set(outputs "${out}/registry.cpp")

  foreach(index RANGE ${last_head})
    string(JSON name MEMBER "${manifest}" heads ${index})
    string(JSON file GET "${manifest}" heads "${name}" file)
    list(APPEND inputs "${model}/${file}")
    set(sources "${out}/${name}_main.c")
    foreach(unit RANGE ${last_unit})
      list(APPEND sources "${out}/${name}_${unit}.c")
    endforeach()
    list(APPEND outputs ${sources})

    set(head raxe_fast_head_${name})
    add_library(${head} OBJECT ${sources})
    set_target_properties(${head} PROPERTIES
      C_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON INTERPROCEDURAL_OPTIMIZATION OFF)
    # -O2 in every configuration: the last optimisation flag counts. -w: not our code.
    target_compile_options(${head} PRIVATE -O2 -w -fno-lto)
    target_sources(${core} PRIVATE $<TARGET_OBJECTS:${head}>)
  endforeach()

  # One command writes all files, so every head's library has to wait for the same target.
  add_custom_command(
    OUTPUT ${outputs}
    COMMAND "${Python_EXECUTABLE}" "${script}" "${model}" "${out}" --units ${RAXE_FAST_HEAD_UNITS}
    DEPENDS ${inputs}
    COMMENT "Generating C for the forests"
    VERBATIM)
  add_custom_target(raxe_fast_generate_heads DEPENDS ${outputs})
  foreach(index RANGE ${last_head})
    string(JSON name MEMBER "${manifest}" heads ${index})
    add_dependencies(raxe_fast_head_${name} raxe_fast_generate_heads)
  endforeach()
  add_dependencies(${core} raxe_fast_generate_heads)
  target_sources(${core} PRIVATE "${out}/registry.cpp")
  target_compile_definitions(${core} PRIVATE RAXE_FAST_COMPILED_HEADS)
endfunction()
