// One function compiled for several instruction sets, chosen when the module loads.
#pragma once

#if defined(TROCAR_HAVE_TARGET_CLONES)
#define TROCAR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#elif defined(__GNUC__)
#define TROCAR_CLONES __attribute__((noinline))  // inlined, loops lose what __restrict said of their pointers
#else
#define TROCAR_CLONES
#endif
