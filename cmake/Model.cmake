# The shipped model: unpack the .raxe into the build tree, compile its forests into the core,
# install the directory as raxe_fast/models/<id>.

set(_raxe_model "${RAXE_FAST_MODEL}")
if(_raxe_model STREQUAL "auto")
  set(_raxe_model "${CMAKE_CURRENT_SOURCE_DIR}/models/raxe-l6-v7/raxe-l6-v7.raxe")
  if(NOT EXISTS "${_raxe_model}")
    set(_raxe_model "")
  endif()
elseif(_raxe_model)
  cmake_path(ABSOLUTE_PATH _raxe_model BASE_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}")
  if(NOT EXISTS "${_raxe_model}")
    message(FATAL_ERROR "RAXE_FAST_MODEL does not exist: ${_raxe_model}")
  endif()
endif()

if(NOT _raxe_model)
  message(STATUS "raxe-fast: no model to ship; this build has no compiled heads (packed only)")
  return()
endif()

set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${_raxe_model}")
find_package(Python 3.11 REQUIRED COMPONENTS Interpreter)
set(_raxe_unpacked "${CMAKE_CURRENT_BINARY_DIR}/model")
execute_process(
  COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_SOURCE_DIR}/cmake/unpack_model.py"
          "${_raxe_model}" "${_raxe_unpacked}"
  COMMAND_ERROR_IS_FATAL ANY)
file(READ "${_raxe_unpacked}/manifest.json" _raxe_manifest)
string(JSON _raxe_id GET "${_raxe_manifest}" id)
if(NOT _raxe_id MATCHES "^[A-Za-z0-9][A-Za-z0-9._-]*$")
  message(FATAL_ERROR "raxe-fast: the model's id is not a plain name: ${_raxe_id}")
endif()
message(STATUS "raxe-fast: shipping model ${_raxe_id} with compiled heads")

include(cmake/Heads.cmake)
raxe_fast_add_heads(raxe_fast_core "${_raxe_unpacked}")

if(RAXE_FAST_BUILD_PYTHON)
  install(DIRECTORY "${_raxe_unpacked}/" DESTINATION "raxe_fast/models/${_raxe_id}")
  # The other models of the repository, by name: archives, with packed forests.
  if(RAXE_FAST_MODEL STREQUAL "auto")
    file(GLOB _raxe_others CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/models/*/*.raxe")
    list(REMOVE_ITEM _raxe_others "${_raxe_model}")
    install(FILES ${_raxe_others} DESTINATION "raxe_fast/models")
  endif()
endif()
