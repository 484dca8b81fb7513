// All kernels of networks: one binary for a card.
#include "convolve.cu"
#include "elementwise.cu"
#include "grouped.cu"
#include "move.cu"
#include "pool.cu"
#include "reduce.cu"
#include "stem.cu"
