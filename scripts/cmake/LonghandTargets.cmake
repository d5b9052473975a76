# lh_flags: the compile options every target of ours uses.
# lh_library(name SOURCES ... LINK ...): one static library per folder of src/.
# lh_test(folder SOURCES ... LINK ... [LABELS ...] [TIMEOUT seconds]): one doctest executable per folder, a ctest per
# case.
add_library(lh_flags INTERFACE)
target_compile_options(lh_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wshadow;-Wno-sign-compare;-fno-math-errno;-Wno-unknown-pragmas>)
if(LH_WERROR)
  target_compile_options(lh_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(LH_SANITIZE)
  target_compile_options(lh_flags INTERFACE -fsanitize=${LH_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  target_link_options(lh_flags INTERFACE -fsanitize=${LH_SANITIZE})
endif()
if(LH_FUZZ)
  target_compile_options(lh_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined
    -fno-sanitize-recover=all)
  target_link_options(lh_flags INTERFACE -fsanitize=address,undefined)
endif()
target_include_directories(lh_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)

function(lh_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK;PRIVATE_LINK" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  set_target_properties(${name} PROPERTIES LINKER_LANGUAGE CXX)
  target_link_libraries(${name} PUBLIC lh_flags ${ARG_LINK} PRIVATE ${ARG_PRIVATE_LINK})
endfunction()

function(lh_test folder)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LINK;LABELS" ${ARGN})
  string(REPLACE "/" "_" target "test_${folder}")
  add_executable(${target} ${CMAKE_SOURCE_DIR}/tests/support/main.cpp ${ARG_SOURCES})
  target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  target_compile_definitions(${target} PRIVATE
    LH_SOURCE_DIR="${CMAKE_SOURCE_DIR}" LH_BINARY="$<TARGET_FILE:longhand>")
  target_link_libraries(${target} PRIVATE lh_flags ${ARG_LINK})
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  # The address sanitizer ends a program that asks for too much memory, unless told not to.
  doctest_discover_tests(${target} TEST_PREFIX "${folder}: " PROPERTIES LABELS "${ARG_LABELS}"
    TIMEOUT ${ARG_TIMEOUT} ENVIRONMENT "ASAN_OPTIONS=allocator_may_return_null=1")
endfunction()
