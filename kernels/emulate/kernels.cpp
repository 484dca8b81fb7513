// All kernels in one translation unit, so that those that register themselves are linked.
#include "emulate.cpp"

#include "../net/all.cu"
