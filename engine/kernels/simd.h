// The vectors that cpu.cpp computes with, as the processor at hand has them.
//
// Weights, keys and values are bfloat16 and lie as pairs. Where the processor multiplies pairs
// (AVX512-BF16) the left-hand side of a product is bfloat16, too; elsewhere a pair is taken apart
// into two numbers, and the left-hand side is float32.
//
// Either header has:
//   vec, bits        LANES numbers in float32, which + - * / understand; as many pairs
//   splat(x)         x in each lane
//   fma, fms         a * b + c, a * b - c
//   max, min, rounded (to whole numbers), scaled (x * 2^n for whole n)
//   sum_of, most_of  of the lanes of one
//   any_above(a, b)  whether a > b in any lane
//   between(x, from, to, other)   lanes `from ... to` of x, and elsewhere those of `other`
//   load, store      with a count, only so many, from lane 0 on; to bfloat16 they are rounded to
//                    the nearest, ties to even
//   low_halves, high_halves       of pairs, as numbers
//   transpose(lines, offset, to, columns)   LANES x LANES pairs, `lines[k][i]` to
//                    `to[i * columns + k]`; an offset is in halves
//   interleave(a, b, to)          2 * LANES pairs, of a number from here and one from there, in an
//                    order that store_in_order(to, low, high) undoes
// and how many sums fit its registers:
//   PANEL, PANEL_ROWS        vectors of columns of a weight, which lie together, times rows
//   KEY_VECTORS, QUERY_ROWS  vectors of keys, or of columns of values, times queries

#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

using half = uint16_t;  // the bits of a bfloat16
using pair = uint32_t;

#define INLINED __attribute__((always_inline))
#define INLINE inline INLINED

#if defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#include "avx512.h"
#else
#include "avx2.h"
#endif

// `add_products`: sums[m][v] += the two numbers of row m at `x`, times vector v of the pairs at
// `line`. Rows lie `row` numbers apart.

#ifdef __AVX512BF16__

using number = half;  // on the left-hand side of a product

template <int M, int V>
INLINE void add_products(const number* x, int64_t row, const pair* line, vec (&sums)[M][V]) {
  __m512bh right[V];
  for (int v = 0; v < V; v++) right[v] = (__m512bh)load(line + v * LANES);
  for (int m = 0; m < M; m++) {
    const __m512bh left = (__m512bh)splat(*reinterpret_cast<const float*>(x + m * row));
    for (int v = 0; v < V; v++) sums[m][v] = _mm512_dpbf16_ps(sums[m][v], left, right[v]);
  }
}

#else

using number = float;

// The first numbers of all pairs, then the second: so the right-hand side takes half the registers.
template <int M, int V>
INLINE void add_products(const number* x, int64_t row, const pair* line, vec (&sums)[M][V]) {
  for (int i = 0; i < 2; i++) {
    vec right[V];
    for (int v = 0; v < V; v++) {
      const bits both = load(line + v * LANES);
      right[v] = i ? high_halves(both) : low_halves(both);
    }
    for (int m = 0; m < M; m++) {
      const vec left = splat(x[m * row + i]);
      for (int v = 0; v < V; v++) sums[m][v] = fma(left, right[v], sums[m][v]);
    }
  }
}

#endif
