// One function compiled for several instruction sets, chosen when the module loads. Arithmetic on 16-bit
// integers gains from SSE4.1 already (x86-64-v2: small processors at the edge have no AVX).
#pragma once

#if defined(TROCAR_HAVE_TARGET_CLONES)
#define TROCAR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define TROCAR_CLONES_FROM_V2 \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "arch=x86-64-v2", "default")))
#elif defined(__GNUC__)
#define TROCAR_CLONES __attribute__((noinline))  // inlined, loops lose what __restrict said of their pointers
#define TROCAR_CLONES_FROM_V2 TROCAR_CLONES
#else
#define TROCAR_CLONES
#define TROCAR_CLONES_FROM_V2
#endif
