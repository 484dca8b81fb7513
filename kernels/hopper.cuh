// Instructions of Hopper alone (compute capability 9.0a): barriers that count bytes, the copy engine, products of a warp group. As device.cuh, one small
// function each; the emulator has twins of all.
#pragma once
#include "net/arguments.h"
#include "device.cuh"

#ifdef VULTUS_EMULATED
#include "emulate/hopper.h"
#else

// Barriers in shared memory. They change their phase when `count` threads have arrived and all bytes that were announced are there; phases count 0, 1, 0, ...
DEVICE void make_barrier(uint32_t barrier, int count) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count)); }
DEVICE void barriers_are_made() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
DEVICE void arrive(uint32_t barrier) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory"); }
// Arrives, and announces bytes.
DEVICE void announce(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// Waits for the end of the phase of that parity.
DEVICE void await(uint32_t barrier, int parity) {
  int done = 0;
  while (!done) {
    asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.b32 %0,1,0,p;}"
                 : "=r"(done) : "r"(barrier), "r"(parity) : "memory");
  }
}

// Copies that arrive at a barrier. Pixels under the place (right, down) of windows: from channel c on, the first window begins at column w and row h of
// image n, the others follow row by row; outside lie zeros. Rows: from byte x of row y on.
DEVICE void copy_windows(uint32_t to, const TensorMap* map, uint32_t barrier, int c, int w, int h, int n, uint16_t right, uint16_t down) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%3,%4,%5,%6}], [%2], {%7,%8};"
               ::"r"(to), "l"(map), "r"(barrier), "r"(c), "r"(w), "r"(h), "r"(n), "h"(right), "h"(down) : "memory");
}
DEVICE void copy_rows(uint32_t to, const TensorMap* map, uint32_t barrier, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3,%4}], [%2];"
               ::"r"(to), "l"(map), "r"(barrier), "r"(x), "r"(y) : "memory");
}
DEVICE void prefetch_map(const TensorMap* map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

// Registers of each thread of a warp group, from now on.
template <int N> DEVICE void give_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> DEVICE void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }

// Products of a warp group are under way until their group was waited for: no more than the last N are.
DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void end_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> DEVICE void wait_products() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }
// The compiler may read it from here on alone.
DEVICE void keep(int32_t& v) { asm volatile("" : "+r"(v)); }

// Where a matrix of rows of KB bytes lies in shared memory, its bytes turned as the copy engine turns them.
template <int KB> DEVICE uint64_t descriptor(uint32_t address) {
  return uint64_t(1) << 16 | uint64_t(8 * KB / 16) << 32 | uint64_t(KB == 128 ? 1 : 2) << 62 | (address >> 4 & 0x3fff);
}

// d = [d if `more`] + a * b: 64 x 32 codes with or without a sign times 32 x N weights, over four warps. Warp w, lane 4 g + q holds of d, for each
// eight columns j, the elements (16 w + g, 8 j + 2q), (.., + 1), (16 w + g + 8, 8 j + 2q), (.., + 1).
template <bool SIGNED, int N> struct Product;
template <> struct Product<false, 64> {
  DEVICE void add(int32_t (&d)[32], uint64_t a, uint64_t b, int more) {
    asm volatile("{.reg .pred p; setp.ne.b32 p, %34, 0; wgmma.mma_async.sync.aligned.m64n64k32.s32.u8.s8 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, %32, %33, p;}"
                 : "+r"(d[0]),"+r"(d[1]),"+r"(d[2]),"+r"(d[3]),"+r"(d[4]),"+r"(d[5]),"+r"(d[6]),"+r"(d[7]),"+r"(d[8]),"+r"(d[9]),"+r"(d[10]),"+r"(d[11]),"+r"(d[12]),"+r"(d[13]),"+r"(d[14]),"+r"(d[15]),"+r"(d[16]),"+r"(d[17]),"+r"(d[18]),"+r"(d[19]),"+r"(d[20]),"+r"(d[21]),"+r"(d[22]),"+r"(d[23]),"+r"(d[24]),"+r"(d[25]),"+r"(d[26]),"+r"(d[27]),"+r"(d[28]),"+r"(d[29]),"+r"(d[30]),"+r"(d[31])
                 : "l"(a), "l"(b), "r"(more));
  }
};
template <> struct Product<false, 128> {
  DEVICE void add(int32_t (&d)[64], uint64_t a, uint64_t b, int more) {
    asm volatile("{.reg .pred p; setp.ne.b32 p, %66, 0; wgmma.mma_async.sync.aligned.m64n128k32.s32.u8.s8 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, %64, %65, p;}"
                 : "+r"(d[0]),"+r"(d[1]),"+r"(d[2]),"+r"(d[3]),"+r"(d[4]),"+r"(d[5]),"+r"(d[6]),"+r"(d[7]),"+r"(d[8]),"+r"(d[9]),"+r"(d[10]),"+r"(d[11]),"+r"(d[12]),"+r"(d[13]),"+r"(d[14]),"+r"(d[15]),"+r"(d[16]),"+r"(d[17]),"+r"(d[18]),"+r"(d[19]),"+r"(d[20]),"+r"(d[21]),"+r"(d[22]),"+r"(d[23]),"+r"(d[24]),"+r"(d[25]),"+r"(d[26]),"+r"(d[27]),"+r"(d[28]),"+r"(d[29]),"+r"(d[30]),"+r"(d[31]),"+r"(d[32]),"+r"(d[33]),"+r"(d[34]),"+r"(d[35]),"+r"(d[36]),"+r"(d[37]),"+r"(d[38]),"+r"(d[39]),"+r"(d[40]),"+r"(d[41]),"+r"(d[42]),"+r"(d[43]),"+r"(d[44]),"+r"(d[45]),"+r"(d[46]),"+r"(d[47]),"+r"(d[48]),"+r"(d[49]),"+r"(d[50]),"+r"(d[51]),"+r"(d[52]),"+r"(d[53]),"+r"(d[54]),"+r"(d[55]),"+r"(d[56]),"+r"(d[57]),"+r"(d[58]),"+r"(d[59]),"+r"(d[60]),"+r"(d[61]),"+r"(d[62]),"+r"(d[63])
                 : "l"(a), "l"(b), "r"(more));
  }
};
template <> struct Product<false, 256> {
  DEVICE void add(int32_t (&d)[128], uint64_t a, uint64_t b, int more) {
    asm volatile("{.reg .pred p; setp.ne.b32 p, %130, 0; wgmma.mma_async.sync.aligned.m64n256k32.s32.u8.s8 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127}, %128, %129, p;}"
                 : "+r"(d[0]),"+r"(d[1]),"+r"(d[2]),"+r"(d[3]),"+r"(d[4]),"+r"(d[5]),"+r"(d[6]),"+r"(d[7]),"+r"(d[8]),"+r"(d[9]),"+r"(d[10]),"+r"(d[11]),"+r"(d[12]),"+r"(d[13]),"+r"(d[14]),"+r"(d[15]),"+r"(d[16]),"+r"(d[17]),"+r"(d[18]),"+r"(d[19]),"+r"(d[20]),"+r"(d[21]),"+r"(d[22]),"+r"(d[23]),"+r"(d[24]),"+r"(d[25]),"+r"(d[26]),"+r"(d[27]),"+r"(d[28]),"+r"(d[29]),"+r"(d[30]),"+r"(d[31]),"+r"(d[32]),"+r"(d[33]),"+r"(d[34]),"+r"(d[35]),"+r"(d[36]),"+r"(d[37]),"+r"(d[38]),"+r"(d[39]),"+r"(d[40]),"+r"(d[41]),"+r"(d[42]),"+r"(d[43]),"+r"(d[44]),"+r"(d[45]),"+r"(d[46]),"+r"(d[47]),"+r"(d[48]),"+r"(d[49]),"+r"(d[50]),"+r"(d[51]),"+r"(d[52]),"+r"(d[53]),"+r"(d[54]),"+r"(d[55]),"+r"(d[56]),"+r"(d[57]),"+r"(d[58]),"+r"(d[59]),"+r"(d[60]),"+r"(d[61]),"+r"(d[62]),"+r"(d[63]),"+r"(d[64]),"+r"(d[65]),"+r"(d[66]),"+r"(d[67]),"+r"(d[68]),"+r"(d[69]),"+r"(d[70]),"+r"(d[71]),"+r"(d[72]),"+r"(d[73]),"+r"(d[74]),"+r"(d[75]),"+r"(d[76]),"+r"(d[77]),"+r"(d[78]),"+r"(d[79]),"+r"(d[80]),"+r"(d[81]),"+r"(d[82]),"+r"(d[83]),"+r"(d[84]),"+r"(d[85]),"+r"(d[86]),"+r"(d[87]),"+r"(d[88]),"+r"(d[89]),"+r"(d[90]),"+r"(d[91]),"+r"(d[92]),"+r"(d[93]),"+r"(d[94]),"+r"(d[95]),"+r"(d[96]),"+r"(d[97]),"+r"(d[98]),"+r"(d[99]),"+r"(d[100]),"+r"(d[101]),"+r"(d[102]),"+r"(d[103]),"+r"(d[104]),"+r"(d[105]),"+r"(d[106]),"+r"(d[107]),"+r"(d[108]),"+r"(d[109]),"+r"(d[110]),"+r"(d[111]),"+r"(d[112]),"+r"(d[113]),"+r"(d[114]),"+r"(d[115]),"+r"(d[116]),"+r"(d[117]),"+r"(d[118]),"+r"(d[119]),"+r"(d[120]),"+r"(d[121]),"+r"(d[122]),"+r"(d[123]),"+r"(d[124]),"+r"(d[125]),"+r"(d[126]),"+r"(d[127])
                 : "l"(a), "l"(b), "r"(more));
  }
};
template <> struct Product<true, 64> {
  DEVICE void add(int32_t (&d)[32], uint64_t a, uint64_t b, int more) {
    asm volatile("{.reg .pred p; setp.ne.b32 p, %34, 0; wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, %32, %33, p;}"
                 : "+r"(d[0]),"+r"(d[1]),"+r"(d[2]),"+r"(d[3]),"+r"(d[4]),"+r"(d[5]),"+r"(d[6]),"+r"(d[7]),"+r"(d[8]),"+r"(d[9]),"+r"(d[10]),"+r"(d[11]),"+r"(d[12]),"+r"(d[13]),"+r"(d[14]),"+r"(d[15]),"+r"(d[16]),"+r"(d[17]),"+r"(d[18]),"+r"(d[19]),"+r"(d[20]),"+r"(d[21]),"+r"(d[22]),"+r"(d[23]),"+r"(d[24]),"+r"(d[25]),"+r"(d[26]),"+r"(d[27]),"+r"(d[28]),"+r"(d[29]),"+r"(d[30]),"+r"(d[31])
                 : "l"(a), "l"(b), "r"(more));
  }
};
template <> struct Product<true, 128> {
  DEVICE void add(int32_t (&d)[64], uint64_t a, uint64_t b, int more) {
    asm volatile("{.reg .pred p; setp.ne.b32 p, %66, 0; wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, %64, %65, p;}"
                 : "+r"(d[0]),"+r"(d[1]),"+r"(d[2]),"+r"(d[3]),"+r"(d[4]),"+r"(d[5]),"+r"(d[6]),"+r"(d[7]),"+r"(d[8]),"+r"(d[9]),"+r"(d[10]),"+r"(d[11]),"+r"(d[12]),"+r"(d[13]),"+r"(d[14]),"+r"(d[15]),"+r"(d[16]),"+r"(d[17]),"+r"(d[18]),"+r"(d[19]),"+r"(d[20]),"+r"(d[21]),"+r"(d[22]),"+r"(d[23]),"+r"(d[24]),"+r"(d[25]),"+r"(d[26]),"+r"(d[27]),"+r"(d[28]),"+r"(d[29]),"+r"(d[30]),"+r"(d[31]),"+r"(d[32]),"+r"(d[33]),"+r"(d[34]),"+r"(d[35]),"+r"(d[36]),"+r"(d[37]),"+r"(d[38]),"+r"(d[39]),"+r"(d[40]),"+r"(d[41]),"+r"(d[42]),"+r"(d[43]),"+r"(d[44]),"+r"(d[45]),"+r"(d[46]),"+r"(d[47]),"+r"(d[48]),"+r"(d[49]),"+r"(d[50]),"+r"(d[51]),"+r"(d[52]),"+r"(d[53]),"+r"(d[54]),"+r"(d[55]),"+r"(d[56]),"+r"(d[57]),"+r"(d[58]),"+r"(d[59]),"+r"(d[60]),"+r"(d[61]),"+r"(d[62]),"+r"(d[63])
                 : "l"(a), "l"(b), "r"(more));
  }
};
template <> struct Product<true, 256> {
  DEVICE void add(int32_t (&d)[128], uint64_t a, uint64_t b, int more) {
    asm volatile("{.reg .pred p; setp.ne.b32 p, %130, 0; wgmma.mma_async.sync.aligned.m64n256k32.s32.s8.s8 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127}, %128, %129, p;}"
                 : "+r"(d[0]),"+r"(d[1]),"+r"(d[2]),"+r"(d[3]),"+r"(d[4]),"+r"(d[5]),"+r"(d[6]),"+r"(d[7]),"+r"(d[8]),"+r"(d[9]),"+r"(d[10]),"+r"(d[11]),"+r"(d[12]),"+r"(d[13]),"+r"(d[14]),"+r"(d[15]),"+r"(d[16]),"+r"(d[17]),"+r"(d[18]),"+r"(d[19]),"+r"(d[20]),"+r"(d[21]),"+r"(d[22]),"+r"(d[23]),"+r"(d[24]),"+r"(d[25]),"+r"(d[26]),"+r"(d[27]),"+r"(d[28]),"+r"(d[29]),"+r"(d[30]),"+r"(d[31]),"+r"(d[32]),"+r"(d[33]),"+r"(d[34]),"+r"(d[35]),"+r"(d[36]),"+r"(d[37]),"+r"(d[38]),"+r"(d[39]),"+r"(d[40]),"+r"(d[41]),"+r"(d[42]),"+r"(d[43]),"+r"(d[44]),"+r"(d[45]),"+r"(d[46]),"+r"(d[47]),"+r"(d[48]),"+r"(d[49]),"+r"(d[50]),"+r"(d[51]),"+r"(d[52]),"+r"(d[53]),"+r"(d[54]),"+r"(d[55]),"+r"(d[56]),"+r"(d[57]),"+r"(d[58]),"+r"(d[59]),"+r"(d[60]),"+r"(d[61]),"+r"(d[62]),"+r"(d[63]),"+r"(d[64]),"+r"(d[65]),"+r"(d[66]),"+r"(d[67]),"+r"(d[68]),"+r"(d[69]),"+r"(d[70]),"+r"(d[71]),"+r"(d[72]),"+r"(d[73]),"+r"(d[74]),"+r"(d[75]),"+r"(d[76]),"+r"(d[77]),"+r"(d[78]),"+r"(d[79]),"+r"(d[80]),"+r"(d[81]),"+r"(d[82]),"+r"(d[83]),"+r"(d[84]),"+r"(d[85]),"+r"(d[86]),"+r"(d[87]),"+r"(d[88]),"+r"(d[89]),"+r"(d[90]),"+r"(d[91]),"+r"(d[92]),"+r"(d[93]),"+r"(d[94]),"+r"(d[95]),"+r"(d[96]),"+r"(d[97]),"+r"(d[98]),"+r"(d[99]),"+r"(d[100]),"+r"(d[101]),"+r"(d[102]),"+r"(d[103]),"+r"(d[104]),"+r"(d[105]),"+r"(d[106]),"+r"(d[107]),"+r"(d[108]),"+r"(d[109]),"+r"(d[110]),"+r"(d[111]),"+r"(d[112]),"+r"(d[113]),"+r"(d[114]),"+r"(d[115]),"+r"(d[116]),"+r"(d[117]),"+r"(d[118]),"+r"(d[119]),"+r"(d[120]),"+r"(d[121]),"+r"(d[122]),"+r"(d[123]),"+r"(d[124]),"+r"(d[125]),"+r"(d[126]),"+r"(d[127])
                 : "l"(a), "l"(b), "r"(more));
  }
};

#endif
