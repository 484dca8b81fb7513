// All kernels of networks: one binary for a card. VULTUS_HOPPER is said for compute capability 9.0 alone.
#include "convolve.cu"
#if defined(VULTUS_HOPPER) || defined(VULTUS_EMULATED)
#include "convolve_hopper.cu"
#endif
#include "digest.cu"
#include "elementwise.cu"
#include "grouped.cu"
#include "move.cu"
#include "pool.cu"
#include "reduce.cu"
#include "stem.cu"
