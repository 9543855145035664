// `simd.h` for AVX-512: 32 registers of 16 numbers.

#pragma once

using vec = __m512;
using bits = __m512i;
constexpr int LANES = 16;

// 24 sums, of 32 registers.
constexpr int PANEL = 3, PANEL_ROWS = 8;
constexpr int KEY_VECTORS = 4, QUERY_ROWS = 6;

INLINE vec splat(float x) { return _mm512_set1_ps(x); }
INLINE vec fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vec fms(vec a, vec b, vec c) { return _mm512_fmsub_ps(a, b, c); }
INLINE vec max(vec a, vec b) { return _mm512_max_ps(a, b); }
INLINE vec min(vec a, vec b) { return _mm512_min_ps(a, b); }
INLINE vec rounded(vec x) { return _mm512_roundscale_ps(x, 0); }
INLINE vec scaled(vec x, vec n) { return _mm512_scalef_ps(x, n); }
INLINE float sum_of(vec x) { return _mm512_reduce_add_ps(x); }
INLINE float most_of(vec x) { return _mm512_reduce_max_ps(x); }
INLINE bool any_above(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }

INLINE __mmask16 first_lanes(int64_t count) {
  return count >= LANES ? 0xffff : count <= 0 ? 0 : (1u << count) - 1;
}

INLINE vec between(vec x, int64_t from, int64_t to, vec other) {
  return _mm512_mask_mov_ps(other, first_lanes(to) & ~first_lanes(from), x);
}

INLINE bits load(const pair* from) { return _mm512_loadu_si512(from); }
INLINE vec load(const float* from) { return _mm512_loadu_ps(from); }
INLINE void store(float* to, vec x) { _mm512_storeu_ps(to, x); }
INLINE void store(float* to, vec x, int64_t count) {
  _mm512_mask_storeu_ps(to, first_lanes(count), x);
}

INLINE vec low_halves(bits x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); }
INLINE vec high_halves(bits x) {
  return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(0xffff0000)));
}

INLINE vec load(const half* from, int64_t count) {
  return low_halves(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first_lanes(count), from)));
}

INLINE __m256i narrow(vec x) {
#ifdef __AVX512BF16__
  return (__m256i)_mm512_cvtneps_pbh(x);
#else
  const bits from = _mm512_castps_si512(x), one = _mm512_set1_epi32(1);
  const bits odd = _mm512_and_si512(_mm512_srli_epi32(from, 16), one);
  const bits up = _mm512_add_epi32(from, _mm512_add_epi32(_mm512_set1_epi32(0x7fff), odd));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(
      _mm512_mask_mov_epi32(up, nan, _mm512_set1_epi32(0x7fc00000)), 16));
#endif
}

INLINE void store(half* to, vec x) { _mm256_storeu_si256((__m256i*)to, narrow(x)); }
INLINE void store(half* to, vec x, int64_t count) {
  _mm256_mask_storeu_epi16(to, first_lanes(count), narrow(x));
}

INLINE void transpose(const half* const* lines, int64_t offset, pair* to, int64_t columns) {
  bits a[LANES], b[LANES];
  for (int i = 0; i < LANES; i++) a[i] = _mm512_loadu_si512(lines[i] + offset);
  for (int i = 0; i < LANES; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < LANES; i += 4)
    for (int j = 0; j < 2; j++) {
      a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + j + 2]);
      a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + j + 2]);
    }
  for (int i = 0; i < LANES; i += 8)
    for (int j = 0; j < 4; j++) {
      b[i + j] = _mm512_shuffle_i32x4(a[i + j], a[i + j + 4], 0x88);
      b[i + j + 4] = _mm512_shuffle_i32x4(a[i + j], a[i + j + 4], 0xdd);
    }
  for (int j = 0; j < 8; j++) {
    a[j] = _mm512_shuffle_i32x4(b[j], b[j + 8], 0x88);
    a[j + 8] = _mm512_shuffle_i32x4(b[j], b[j + 8], 0xdd);
  }
  for (int i = 0; i < LANES; i++) _mm512_storeu_si512(to + i * columns, a[i]);
}

INLINE void interleave(const half* a, const half* b, pair* to) {
  const bits x = _mm512_loadu_si512(a), y = _mm512_loadu_si512(b);
  _mm512_storeu_si512(to, _mm512_unpacklo_epi16(x, y));
  _mm512_storeu_si512(to + LANES, _mm512_unpackhi_epi16(x, y));
}

INLINE void store_in_order(half* to, vec low, vec high) {
  const bits first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  store(to, _mm512_permutex2var_ps(low, first, high));
  const bits second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
  store(to + LANES, _mm512_permutex2var_ps(low, second, high));
}
