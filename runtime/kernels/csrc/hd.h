// TROCAR_HD marks a numeric definition that the CPU's row loops and the CUDA kernels both inline.
#pragma once

#if defined(__CUDACC__)
#define TROCAR_HD __host__ __device__ __forceinline__
#else
#define TROCAR_HD inline __attribute__((always_inline))
#endif
