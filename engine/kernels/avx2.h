// `simd.h` for AVX2 and FMA: 16 registers of 8 numbers, and no masks.

#pragma once

using vec = __m256;
using bits = __m256i;
constexpr int LANES = 8;

// 10 sums, of 16 registers; with 12 the compiler runs out of them.
constexpr int PANEL = 2, PANEL_ROWS = 5;
constexpr int KEY_VECTORS = 2, QUERY_ROWS = 5;

INLINE vec splat(float x) { return _mm256_set1_ps(x); }
INLINE vec fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vec fms(vec a, vec b, vec c) { return _mm256_fmsub_ps(a, b, c); }
INLINE vec max(vec a, vec b) { return _mm256_max_ps(a, b); }
INLINE vec min(vec a, vec b) { return _mm256_min_ps(a, b); }
INLINE vec rounded(vec x) {
  return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

// The exponent of 2^n, from that of 0 to that of infinity.
INLINE vec scaled(vec x, vec n) {
  const bits exponent = _mm256_cvtps_epi32(min(max(n, splat(-127.f)), splat(128.f)));
  const bits power = _mm256_slli_epi32(_mm256_add_epi32(exponent, _mm256_set1_epi32(127)), 23);
  return x * _mm256_castsi256_ps(power);
}

template <typename F>
INLINE float folded(vec x, const F& f) {
  __m128 y = f(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = f(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(f(y, _mm_movehdup_ps(y)));
}

INLINE float sum_of(vec x) { return folded(x, [](__m128 a, __m128 b) { return a + b; }); }
INLINE float most_of(vec x) {
  return folded(x, [](__m128 a, __m128 b) { return _mm_max_ps(a, b); });
}
INLINE bool any_above(vec a, vec b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)); }

INLINE bits first_lanes(int64_t count) {
  const int some = count >= LANES ? LANES : count <= 0 ? 0 : static_cast<int>(count);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(some), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE vec between(vec x, int64_t from, int64_t to, vec other) {
  const bits meant = _mm256_andnot_si256(first_lanes(from), first_lanes(to));
  return _mm256_blendv_ps(other, x, _mm256_castsi256_ps(meant));
}

INLINE bits load(const pair* from) { return _mm256_loadu_si256((const bits*)from); }
INLINE vec load(const float* from) { return _mm256_loadu_ps(from); }
INLINE void store(float* to, vec x) { _mm256_storeu_ps(to, x); }
INLINE void store(float* to, vec x, int64_t count) {
  _mm256_maskstore_ps(to, first_lanes(count), x);
}

INLINE vec low_halves(bits x) { return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)); }
INLINE vec high_halves(bits x) {
  return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(0xffff0000)));
}

INLINE vec load(const half* from, int64_t count) {
  half some[LANES] = {};
  if (count < LANES) {
    std::memcpy(some, from, (count > 0 ? count : 0) * sizeof(half));
    from = some;
  }
  return low_halves(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)from)));
}

INLINE __m128i narrow(vec x) {
  const bits from = _mm256_castps_si256(x), one = _mm256_set1_epi32(1);
  const bits odd = _mm256_and_si256(_mm256_srli_epi32(from, 16), one);
  const bits up = _mm256_add_epi32(from, _mm256_add_epi32(_mm256_set1_epi32(0x7fff), odd));
  const vec nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  const bits result = _mm256_srli_epi32(
      _mm256_blendv_epi8(up, _mm256_set1_epi32(0x7fc00000), _mm256_castps_si256(nan)), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(result), _mm256_extracti128_si256(result, 1));
}

INLINE void store(half* to, vec x) { _mm_storeu_si128((__m128i*)to, narrow(x)); }
INLINE void store(half* to, vec x, int64_t count) {
  if (count >= LANES) return store(to, x);
  half some[LANES];
  store(some, x);
  std::memcpy(to, some, (count > 0 ? count : 0) * sizeof(half));
}

INLINE void transpose(const half* const* lines, int64_t offset, pair* to, int64_t columns) {
  bits a[LANES], b[LANES];
  for (int i = 0; i < LANES; i++) a[i] = load((const pair*)(lines[i] + offset));
  for (int i = 0; i < LANES; i += 2) {
    b[i] = _mm256_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < LANES; i += 4)
    for (int j = 0; j < 2; j++) {
      a[i + 2 * j] = _mm256_unpacklo_epi64(b[i + j], b[i + j + 2]);
      a[i + 2 * j + 1] = _mm256_unpackhi_epi64(b[i + j], b[i + j + 2]);
    }
  for (int j = 0; j < 4; j++) {
    b[j] = _mm256_permute2x128_si256(a[j], a[j + 4], 0x20);
    b[j + 4] = _mm256_permute2x128_si256(a[j], a[j + 4], 0x31);
  }
  for (int i = 0; i < LANES; i++) _mm256_storeu_si256((bits*)(to + i * columns), b[i]);
}

INLINE void interleave(const half* a, const half* b, pair* to) {
  const bits x = load((const pair*)a), y = load((const pair*)b);
  _mm256_storeu_si256((bits*)to, _mm256_unpacklo_epi16(x, y));
  _mm256_storeu_si256((bits*)(to + LANES), _mm256_unpackhi_epi16(x, y));
}

INLINE void store_in_order(half* to, vec low, vec high) {
  store(to, _mm256_permute2f128_ps(low, high, 0x20));
  store(to + LANES, _mm256_permute2f128_ps(low, high, 0x31));
}
