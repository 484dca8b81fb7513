// All kernels in one translation unit, so that those that register themselves are linked.
#include "emulate.cpp"

#include "../net/convolve.cu"
#include "../net/elementwise.cu"
#include "../net/grouped.cu"
#include "../net/move.cu"
#include "../net/pool.cu"
#include "../net/reduce.cu"
#include "../net/stem.cu"
