# The CUDA module, where nvcc is: trocar works without it.
set(TROCAR_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO (where nvcc is found), ON or OFF")
set_property(CACHE TROCAR_CUDA PROPERTY STRINGS AUTO ON OFF)
set(TROCAR_CUDA_ARCHITECTURES 80 86 87 89 90 100 110 120
    CACHE STRING "Compute capabilities; those that nvcc does not know are left out")

if(TROCAR_CUDA STREQUAL "OFF")
  message(STATUS "CUDA kernels: off")
  return()
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(TROCAR_CUDA STREQUAL "ON")
    message(FATAL_ERROR "TROCAR_CUDA=ON: expected nvcc on the PATH or in CUDACXX, found none that works")
  endif()
  message(STATUS "CUDA kernels: not built, no nvcc was found")
  return()
endif()

# Machine code for each architecture that this nvcc knows, and PTX of the newest for those to come.
execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-arch OUTPUT_VARIABLE known)
set(architectures "")
foreach(architecture IN LISTS TROCAR_CUDA_ARCHITECTURES)
  if(known MATCHES "compute_${architecture}[^0-9]")
    list(APPEND architectures ${architecture})
  else()
    message(STATUS "CUDA kernels: this nvcc does not know architecture ${architecture}, left out")
  endif()
endforeach()
if(NOT architectures)
  message(FATAL_ERROR "CUDA kernels: nvcc knows none of ${TROCAR_CUDA_ARCHITECTURES}")
endif()
list(TRANSFORM architectures APPEND "-real" OUTPUT_VARIABLE CMAKE_CUDA_ARCHITECTURES)
list(GET architectures -1 newest)
list(APPEND CMAKE_CUDA_ARCHITECTURES "${newest}-virtual")

enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
message(STATUS "CUDA kernels: nvcc ${CMAKE_CUDA_COMPILER_VERSION} for ${architectures}")

file(GLOB cuda_sources CONFIGURE_DEPENDS ${csrc}/*_cuda.cu)
# The arguments of an op are checked by the same code as on the CPU.
foreach(source IN LISTS cuda_sources)
  string(REGEX REPLACE "_cuda\\.cu$" "_bind.cpp" bind ${source})
  if(EXISTS ${bind})
    list(APPEND cuda_sources ${bind})
  endif()
endforeach()
# A domain of its own: both modules have a class LineSource.
nanobind_add_module(_cuda NOMINSIZE NB_STATIC NB_DOMAIN trocar_cuda ${csrc}/module_cuda.cpp ${csrc}/device_cuda.cpp
                    ${cuda_sources})
# No fused multiply-add: the functors round as on the CPU. The host half of a .cu file is checked like the rest.
target_compile_options(_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall$<SEMICOLON>-Wextra>
  $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false$<SEMICOLON>-Xfatbin=-compress-all$<SEMICOLON>-Xcompiler=-Wall>)
string(REPLACE ";" " " architectures_text "${architectures}")
set_source_files_properties(${csrc}/device_cuda.cpp PROPERTIES COMPILE_DEFINITIONS
  "TROCAR_CUDA_ARCHITECTURES=\"${architectures_text}\";TROCAR_NVCC_VERSION=\"${CMAKE_CUDA_COMPILER_VERSION}\"")
set_target_properties(_cuda PROPERTIES CUDA_RUNTIME_LIBRARY Static)
target_link_libraries(_cuda PRIVATE CUDA::cudart_static)

install(TARGETS _cuda LIBRARY DESTINATION trocar/runtime/kernels)
# Written by importing the module: that works without a driver.
nanobind_add_stub(_cuda_stub MODULE _cuda OUTPUT _cuda.pyi PYTHON_PATH $<TARGET_FILE_DIR:_cuda> DEPENDS _cuda)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/_cuda.pyi DESTINATION trocar/runtime/kernels)
