// The arithmetic of a decoder in bfloat16 on x86: products with weights, norms, rotary embedding,
// and attention that reads keys and values from their blocks.
//
// The newest processors multiply pairs: one instruction adds a[2i] * b[2i] + a[2i+1] * b[2i+1] to
// each of 16 sums. So the right-hand side of every product here, weights as well as keys and
// values, lies as [inner / 2, columns] of pairs, and `multiply` is the one place that computes.
// Sums are float32; a result is rounded once, when it is stored. How much a processor does at once,
// and what it does in other ways, is in simd.h.

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <optional>
#include <type_traits>
#include <vector>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "simd.h"

namespace {

using at::Tensor;
using std::optional;

constexpr auto NUMBER = std::is_same_v<number, half> ? at::kBFloat16 : at::kFloat;
constexpr int COLUMNS = PANEL * LANES;
constexpr int64_t FEW_ROWS = 64;  // take one panel at a time
constexpr int64_t LINE = 64;      // bytes of the cache
constexpr int64_t PANEL_LINES = COLUMNS * sizeof(pair) / LINE;
constexpr int64_t ROWS_AT_ONCE = 256;  // whose inputs stay in the cache of a core
constexpr int64_t ELEMENTS = 1 << 14;  // from here on another thread is worth waking

const half* read(const Tensor& tensor) {
  return reinterpret_cast<const half*>(tensor.const_data_ptr());
}

half* write(const Tensor& tensor) { return reinterpret_cast<half*>(tensor.data_ptr()); }

void check(const Tensor& tensor, const char* name) {
  TORCH_CHECK(tensor.scalar_type() == at::kBFloat16, name, " is ", tensor.scalar_type(),
              ", not bfloat16");
}

// 2^x for a finite x, to 4e-6 of itself: 2^n times a polynomial for [-0.5, 0.5], fitted at
// Chebyshev's points.
vec power_of_two(vec x) {
  const vec n = rounded(x), r = x - n;
  vec p = splat(9.67604e-3f);
  for (float c : {5.592204e-2f, 2.4022107e-1f, 6.9312103e-1f, 1.00000008f}) p = fma(p, r, splat(c));
  return scaled(p, n);
}

constexpr float LOG2_E = 1.44269504f;

vec exponential(vec x) {
  return power_of_two(min(max(x * splat(LOG2_E), splat(-150.f)), splat(150.f)));
}

// sums[m][v] += x[m, :] @ w[:, vector v of columns] for M rows of `inner` pairs. On the way `inner`
// cache lines from `next` on are fetched, if there is one.
template <int M, int V>
INLINE void multiply(const number* x, int64_t row, const pair* w, int64_t columns, int64_t inner,
                     vec (&sums)[M][V], const char* next = nullptr) {
#pragma GCC unroll 2
  for (int64_t i = 0; i < inner; i++) {
    if (next) _mm_prefetch(next + i * LINE, _MM_HINT_T0);
    add_products(x + 2 * i, row, w + i * columns, sums);
  }
}

// Calls `f` with the number of rows, at most MOST, as a constant. An `f` that stores much is to be
// INLINED: in a function of its own it reads what it captures anew after each store.
template <int MOST, typename F>
INLINE void with_rows(int64_t rows, const F& f) {
  if constexpr (MOST == 1) {
    f(std::integral_constant<int, 1>{});
  } else if (rows >= MOST) {
    f(std::integral_constant<int, MOST>{});
  } else {
    with_rows<MOST - 1>(rows, f);
  }
}

// --- products with weights ----------------------------------------------------------------------

// The shape of a packed weight: panels `[outputs / COLUMNS, inputs / 2, COLUMNS, 2]`, of an even
// number of inputs.
std::vector<int64_t> packed_shape(int64_t outputs, int64_t inputs) {
  TORCH_CHECK(inputs % 2 == 0, "cannot pack ", inputs, " inputs");
  return {(outputs + COLUMNS - 1) / COLUMNS, inputs / 2, COLUMNS, 2};
}

void pack(const Tensor& weight, const Tensor& packed) {
  check(weight, "weight");
  check(packed, "packed");
  const Tensor plain = weight.contiguous();
  const int64_t outputs = plain.size(0), inner = plain.size(1) / 2;
  TORCH_CHECK(packed.is_contiguous() && packed.sizes().vec() == packed_shape(outputs, plain.size(1)),
              "cannot pack ", weight.sizes(), " into ", packed.sizes());
  const pair* from = reinterpret_cast<const pair*>(read(plain));
  pair* to = reinterpret_cast<pair*>(write(packed));
  at::parallel_for(0, packed.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; panel++)
      for (int64_t i = 0; i < inner; i++)
        for (int64_t c = 0; c < COLUMNS; c++) {
          const int64_t output = panel * COLUMNS + c;
          to[(panel * inner + i) * COLUMNS + c] = output < outputs ? from[output * inner + i] : 0;
        }
  });
}

// `silu(gate) * up`.
vec gated(vec gate, vec up) { return gate / (splat(1.f) + exponential(splat(0.f) - gate)) * up; }

// `x [..., inputs] @ weight.T + bias + residual`, `[..., outputs]`. With `gate` the weight has two
// halves, each packed by itself, and of their products it is `silu(first) * second`. The result is
// bfloat16 or, as the sums are, float32.
template <typename Out>
Tensor product(const Tensor& x, const Tensor& packed, int64_t outputs, const optional<Tensor>& bias,
               const optional<Tensor>& residual, bool gate) {
  check(x, "x");
  const int64_t inner = packed.size(1), inputs = 2 * inner;
  const int64_t panels = packed.size(0) / (gate ? 2 : 1);
  TORCH_CHECK(x.size(-1) == inputs, "x has ", x.size(-1), " inputs, the weight ", inputs);
  const Tensor left = x.contiguous().to(NUMBER);
  auto shape = left.sizes().vec();
  shape.back() = outputs;
  constexpr auto type = std::is_same_v<Out, float> ? at::kFloat : at::kBFloat16;
  Tensor out = at::empty(shape, left.options().dtype(type));
  const int64_t rows = inputs ? left.numel() / inputs : 0;
  const Tensor added = residual ? residual->contiguous() : Tensor();
  const Tensor shifted = bias ? bias->contiguous() : Tensor();
  if (residual) check(added, "residual");
  if (bias) check(shifted, "bias");
  TORCH_CHECK(!residual || added.sizes() == out.sizes(), "residual is ", residual->sizes());
  TORCH_CHECK(!bias || shifted.numel() == (gate ? 2 : 1) * outputs, "bias is ", bias->sizes());
  const number* xs = static_cast<const number*>(left.const_data_ptr());
  const half* adds = residual ? read(added) : nullptr;
  const half* shifts = bias ? read(shifted) : nullptr;
  const pair* ws = reinterpret_cast<const pair*>(read(packed));
  Out* to = reinterpret_cast<Out*>(out.data_ptr());

  auto tile = [&](int64_t row, int64_t count, int64_t panel, const char* next) {
    with_rows<PANEL_ROWS>(count, [&](auto constant) {
      constexpr int M = constant;
      const number* from = xs + row * inputs;
      const pair* weights = ws + panel * inner * COLUMNS;
      vec first[M][PANEL], sums[M][PANEL] = {};
      if (gate) {
        multiply<M, PANEL>(from, inputs, weights, COLUMNS, inner, sums, next);
        weights += panels * inner * COLUMNS;
        for (int m = 0; m < M; m++)
          for (int v = 0; v < PANEL; v++) first[m][v] = sums[m][v], sums[m][v] = splat(0.f);
        if (next) next += panels * inner * COLUMNS * sizeof(pair);
      }
      multiply<M, PANEL>(from, inputs, weights, COLUMNS, inner, sums, next);
      for (int v = 0; v < PANEL; v++) {
        const int64_t column = panel * COLUMNS + v * LANES;
        const int64_t lanes = outputs - column;
        if (lanes <= 0) break;
        auto shift = [&](vec sum, int64_t from) {
          return shifts ? sum + load(shifts + from, lanes) : sum;
        };
        for (int m = 0; m < M; m++) {
          const int64_t place = (row + m) * outputs + column;
          vec sum = gate ? gated(shift(first[m][v], column), shift(sums[m][v], outputs + column))
                         : shift(sums[m][v], column);
          if (adds) sum = sum + load(adds + place, lanes);
          store(to + place, sum, lanes);
        }
      }
    });
  };
  // A task is a few panels and some rows: panels stay in the cache while the rows pass by.
  const int64_t together = rows > FEW_ROWS && !gate ? 2 : 1;
  const int64_t groups = (panels + together - 1) / together;
  const int64_t chunks = (rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
  // The first tile of rows reads a panel from memory, and that takes longer than its arithmetic. So
  // where there are some more tiles, those fetch the panel after these, each a cache line of every
  // row of it. With too few there is not enough arithmetic to gain by it.
  const int64_t tiles = (rows + PANEL_ROWS - 1) / PANEL_ROWS;
  auto share_of_next = [&](int64_t tile, int64_t panel) -> const char* {
    const int64_t share = tile - (tiles > PANEL_LINES);
    if (tiles < PANEL_LINES || share < 0 || share >= PANEL_LINES) return nullptr;
    const pair* next = ws + (panel + together) * inner * COLUMNS;
    return reinterpret_cast<const char*>(next) + share * inner * LINE;
  };
  at::parallel_for(0, groups * chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; task++) {
      const int64_t first = task / groups * ROWS_AT_ONCE, from = task % groups * together;
      const int64_t last = std::min(rows, first + ROWS_AT_ONCE);
      for (int64_t row = first; row < last; row += PANEL_ROWS)
        for (int64_t panel = from; panel < std::min(panels, from + together); panel++)
          tile(row, last - row, panel, share_of_next((row - first) / PANEL_ROWS, panel));
    }
  });
  return out;
}

Tensor linear(const Tensor& x, const Tensor& packed, int64_t outputs, const optional<Tensor>& bias,
              const optional<Tensor>& residual) {
  return product<half>(x, packed, outputs, bias, residual, false);
}

Tensor gated_linear(const Tensor& x, const Tensor& packed, int64_t outputs,
                    const optional<Tensor>& bias) {
  return product<half>(x, packed, outputs, bias, std::nullopt, true);
}

Tensor logits(const Tensor& x, const Tensor& packed, int64_t outputs) {
  return product<float>(x, packed, outputs, std::nullopt, std::nullopt, false);
}

// --- between the products -----------------------------------------------------------------------

// `x / rms(x) * weight` over the last dimension.
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  check(x, "x");
  check(weight, "weight");
  const Tensor in = x.contiguous();
  const int64_t size = in.size(-1), rows = size ? in.numel() / size : 0;
  TORCH_CHECK(weight.numel() == size && weight.is_contiguous(), "weight is ", weight.sizes());
  Tensor out = at::empty_like(in);
  const half *from = read(in), *scales = read(weight);
  half* to = write(out);
  at::parallel_for(0, rows, std::max<int64_t>(1, ELEMENTS / std::max<int64_t>(size, 1)),
                   [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      const half* line = from + row * size;
      vec squares = splat(0.f);
      for (int64_t i = 0; i < size; i += LANES) {
        const vec value = load(line + i, size - i);
        squares = fma(value, value, squares);
      }
      const float mean = sum_of(squares) / static_cast<float>(size);
      const vec factor = splat(1.f / std::sqrt(mean + static_cast<float>(eps)));
      for (int64_t i = 0; i < size; i += LANES) {
        const vec value = load(line + i, size - i) * factor;
        store(to + row * size + i, value * load(scales + i, size - i), size - i);
      }
    }
  });
  return out;
}

// `x [N, heads, D]` with the heads of a token side by side; tokens may lie apart.
Tensor by_heads(const Tensor& x) {
  return x.stride(2) == 1 && x.stride(1) == x.size(2) ? x : x.contiguous();
}

// Rotary embedding in the half-split layout: `x [N, heads, D]`, `cos` and `sin [N, 1, D]`, the
// first half of `sin` negated.
Tensor rotate(const Tensor& plain, const Tensor& cos, const Tensor& sin) {
  check(plain, "x");
  const Tensor x = by_heads(plain);
  check(cos, "cos");
  check(sin, "sin");
  const int64_t tokens = x.size(0), heads = x.size(1), size = x.size(2), half_size = size / 2;
  TORCH_CHECK(cos.numel() == tokens * size && sin.numel() == tokens * size, "cos is ", cos.sizes());
  TORCH_CHECK(cos.is_contiguous() && sin.is_contiguous(), "cos and sin are not contiguous");
  Tensor out = at::empty({tokens, heads, size}, x.options());
  const half *from = read(x), *c = read(cos), *s = read(sin);
  half* to = write(out);
  const int64_t apart = x.stride(0);
  at::parallel_for(0, tokens, std::max<int64_t>(1, ELEMENTS / std::max<int64_t>(heads * size, 1)),
                   [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; token++)
      for (int64_t head = 0; head < heads; head++) {
        const half* line = from + token * apart + head * size;
        half* place = to + (token * heads + head) * size;
        for (int64_t part = 0; part < 2; part++)
          for (int64_t i = 0; i < half_size; i += LANES) {
            const int64_t lanes = half_size - i;
            const int64_t here = part * half_size + i, there = (1 - part) * half_size + i;
            const int64_t angle = token * size + here;
            const vec other = load(line + there, lanes) * load(s + angle, lanes);
            const vec value = fma(load(line + here, lanes), load(c + angle, lanes), other);
            store(place + here, value, lanes);
          }
      }
  });
  return out;
}

// --- attention ----------------------------------------------------------------------------------

constexpr int KEYS = KEY_VECTORS * LANES;  // of a tile
constexpr int64_t QUERIES = 192;  // of a tile, over all heads that share its keys
constexpr float LOWEST = -1e20f, HIDDEN = -1e30f;  // scores
constexpr float SLACK = 8;  // octaves

struct Layer {
  const half *keys, *values;
  int64_t blocks, block_size, dim, value_dim, group;
  float scale, softcap;  // 0: none
  int64_t window;        // 0: none
};

// `cap * tanh(score / cap)`, in octaves; tanh(x) is 1 - 2 / (e^2x + 1).
vec capped(vec score, float cap) {
  const vec twice = exponential(score * splat(2.f / cap));
  const vec tanh = splat(1.f) - splat(2.f) / (twice + splat(1.f));
  return tanh * splat(cap * LOG2_E);
}

// The keys and values of one row of a step, as one head sees them.
struct Context {
  const Layer* layer;
  int64_t head;
  const int64_t* table;

  // f(position, key, value) for each position.
  template <typename F>
  void each(int64_t from, int64_t to, const F& f) const {
    for (int64_t at = from; at < to;) {
      const int64_t block = at / layer->block_size, inside = at - block * layer->block_size;
      const int64_t stop = std::min(to, at - inside + layer->block_size);
      const int64_t slot = (head * layer->blocks + table[block]) * layer->block_size + inside;
      const half* key = layer->keys + slot * layer->dim;
      const half* value = layer->values + slot * layer->value_dim;
      for (; at < stop; at++, key += layer->dim, value += layer->value_dim) f(at, key, value);
    }
  }
};

// What a thread works with. `queries [rows, D]`; of each the score that weights are relative to (in
// octaves), the sum of weights in LANES parts, and the weighted sum of values.
struct Scratch {
  std::vector<number> queries, weights;
  std::vector<half> zeros;
  std::vector<pair> keys, values;
  std::vector<float> sums, most, total;

  void begin(const Layer& layer, int64_t rows) {
    queries.resize(rows * layer.dim);
    weights.resize(rows * KEYS);
    zeros.assign(std::max(layer.dim, layer.value_dim), 0);
    keys.resize(layer.dim / 2 * KEYS);
    values.resize(KEYS / 2 * layer.value_dim);
    sums.assign(rows * layer.value_dim, 0.f);
    most.assign(rows, LOWEST);
    total.assign(rows * LANES, 0.f);
  }
};

// Queries `row ... + rows` of a `Scratch`, of which the first is at position `start` and each
// `group` are at the next.
struct Queries {
  int64_t row, rows, start;
};

// The positions `first ... + KEYS`, of which `from ... to` are meant.
struct Tile {
  int64_t first, from, to;
};

// Lays the keys and values of `tile` out as pairs; the number of keys that are to be looked at.
int64_t gather(Scratch& s, const Context& context, const Tile& tile) {
  const int64_t dim = context.layer->dim, value_dim = context.layer->value_dim;
  const half *key[KEYS], *value[KEYS];
  std::fill_n(key, KEYS, s.zeros.data());
  std::fill_n(value, KEYS, s.zeros.data());
  context.each(tile.from, tile.to, [&](int64_t at, const half* a, const half* b) {
    key[at - tile.first] = a;
    value[at - tile.first] = b;
  });
  const int64_t some = (tile.to - tile.first + LANES - 1) / LANES * LANES;
  pair *keys = s.keys.data(), *values = s.values.data();
  for (int64_t k = 0; k < some; k += LANES)
    for (int64_t d = 0; d < dim / 2; d += LANES) transpose(key + k, 2 * d, keys + d * KEYS + k, KEYS);
  for (int64_t k = 0; k < some; k += 2)
    for (int64_t d = 0; d < value_dim; d += 2 * LANES)
      interleave(value[k] + d, value[k + 1] + d, values + k / 2 * value_dim + d);
  return some;
}

// Whether each of `queries` sees all keys of `tile`.
bool sees_all(const Layer& layer, const Tile& tile, const Queries& queries) {
  const int64_t last = queries.start + (queries.rows - 1) / layer.group;
  return tile.from == tile.first && tile.to == tile.first + KEYS && tile.to <= queries.start + 1 &&
         (!layer.window || last - layer.window < tile.first);
}

// The scores of the tile's `v`th vector of keys, without those that the query at `position` does not
// see.
vec visible(vec scores, const Layer& layer, const Tile& tile, int64_t position, int v) {
  const int64_t low = layer.window ? std::max(tile.from, position - layer.window + 1) : tile.from;
  const int64_t at = tile.first + v * LANES;
  return between(scores, low - at, std::min(tile.to, position + 1) - at, splat(HIDDEN));
}

// The weights of the keys of `tile`, by online softmax (Milakov and Gimelshein 2018) with powers of
// two. What has been summed up is scaled anew only when a score is some octaves higher than the one
// that weights are relative to, as in FlashAttention-4 (2025).
void weigh(Scratch& s, const Layer& layer, const Tile& tile, const Queries& queries) {
  const int64_t dim = layer.dim, value_dim = layer.value_dim;
  const float octaves = layer.softcap > 0 ? 1.f : layer.scale * LOG2_E;
  const vec factor = splat(octaves);
  const bool all = sees_all(layer, tile, queries);
  const int64_t end = queries.row + queries.rows;
  for (int64_t row = queries.row; row < end; row += QUERY_ROWS)
    with_rows<QUERY_ROWS>(end - row, [&](auto constant) INLINED {
      constexpr int M = constant;
      vec scores[M][KEY_VECTORS] = {};
      multiply<M, KEY_VECTORS>(&s.queries[row * dim], dim, s.keys.data(), KEYS, dim / 2, scores);
      float *total = &s.total[row * LANES], *mosts = &s.most[row];
      number* weights = &s.weights[row * KEYS];
      for (int m = 0; m < M; m++) {
        if (layer.softcap > 0)
          for (vec& score : scores[m]) score = capped(score * splat(layer.scale), layer.softcap);
        if (!all) {
          const int64_t position = queries.start + (row + m - queries.row) / layer.group;
          for (int v = 0; v < KEY_VECTORS; v++)
            scores[m][v] = visible(scores[m][v], layer, tile, position, v);
        }
        vec top = scores[m][0];
        for (int v = 1; v < KEY_VECTORS; v++) top = max(top, scores[m][v]);
        top = top * factor;
        if (any_above(top, splat(mosts[m] + SLACK))) {
          const float most = most_of(top);
          const vec shrink = power_of_two(splat(mosts[m] - most));
          auto scale = [&](float* at) { store(at, load(at) * shrink); };
          scale(total + m * LANES);
          for (int64_t d = 0; d < value_dim; d += LANES) scale(&s.sums[(row + m) * value_dim + d]);
          mosts[m] = most;
        }
        const vec most = splat(mosts[m]);
        vec sum = load(total + m * LANES);
        for (int v = 0; v < KEY_VECTORS; v++) {
          const vec weight = power_of_two(fms(scores[m][v], factor, most));
          sum = sum + weight;
          store(weights + m * KEYS + v * LANES, weight);
        }
        store(total + m * LANES, sum);
      }
    });
}

// Adds `V` vectors of the first `some` values, times their weights, from column `d` on.
template <int V>
void add_values(Scratch& s, const Layer& layer, int64_t some, const Queries& queries, int64_t d) {
  const int64_t value_dim = layer.value_dim, end = queries.row + queries.rows;
  for (int64_t row = queries.row; row < end; row += QUERY_ROWS)
    with_rows<QUERY_ROWS>(end - row, [&](auto constant) INLINED {
      constexpr int M = constant;
      vec sums[M][V];
      float* at = &s.sums[row * value_dim + d];
      for (int m = 0; m < M; m++)
        for (int v = 0; v < V; v++) sums[m][v] = load(at + m * value_dim + v * LANES);
      multiply<M, V>(&s.weights[row * KEYS], KEYS, s.values.data() + d, value_dim, some / 2, sums);
      for (int m = 0; m < M; m++)
        for (int v = 0; v < V; v++) store(at + m * value_dim + v * LANES, sums[m][v]);
    });
}

// Lets `queries` attend to the positions `from ... to`, in tiles of keys, as in FlashAttention (Dao
// et al. 2022). Tiles begin at multiples of their size, whatever is asked for, so that a query's
// sums are always made of the same parts.
void attend_to(Scratch& s, const Context& context, const Queries& queries, int64_t from,
               int64_t to) {
  const Layer& layer = *context.layer;
  for (int64_t first = from / KEYS * KEYS; first < to; first += KEYS) {
    const Tile tile{first, std::max(first, from), std::min(first + KEYS, to)};
    const int64_t some = gather(s, context, tile);
    weigh(s, layer, tile, queries);
    int64_t d = 0;
    for (; d + KEYS <= layer.value_dim; d += KEYS)
      add_values<KEY_VECTORS>(s, layer, some, queries, d);
    for (; d < layer.value_dim; d += 2 * LANES) add_values<2>(s, layer, some, queries, d);
  }
}

// `[N, heads, D]`, tokens `apart` elements apart.
template <typename T>
struct Heads {
  const T* data;
  int64_t apart, dim;

  explicit Heads(const Tensor& x)
      : data(static_cast<const T*>(x.const_data_ptr())), apart(x.stride(0)), dim(x.size(2)) {}
  const T* at(int64_t token, int64_t head) const { return data + token * apart + head * dim; }
};

// The rows of a step: `spans [R, 3]` and `tables [R, longest]`, as `attend` gets them.
struct Rows {
  const int64_t *spans, *tables;
  int64_t longest;

  int64_t first(int64_t row) const { return spans[3 * row]; }
  int64_t count(int64_t row) const { return spans[3 * row + 1]; }
  int64_t length(int64_t row) const { return spans[3 * row + 2]; }
  const int64_t* table(int64_t row) const { return tables + row * longest; }
};

// Rows `row ...` of a step, `rows` of them that have one query each and the first `shared`
// positions in common; or one row, and of its queries `count` from `from` on.
struct Task {
  int64_t row, rows, shared, from, count, cost;
};

// What there is to do for each KV head, the longest first.
std::vector<Task> divide(const Rows& rows, const Tensor& groups, int64_t queries_of_task) {
  std::vector<Task> tasks;
  const int64_t* group = groups.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < groups.size(0); i++, group += 3) {
    const int64_t row = group[0], some = group[1], shared = group[2] / KEYS * KEYS;  // whole tiles
    const int64_t count = rows.count(row), length = rows.length(row);
    if (some > 1) {
      tasks.push_back({row, some, shared, 0, 1, shared + some * (length - shared)});
      continue;
    }
    for (int64_t from = 0; from < count; from += queries_of_task) {
      const int64_t part = std::min(queries_of_task, count - from);
      tasks.push_back({row, 1, 0, from, part, part * (length - count + from + part)});
    }
  }
  std::stable_sort(tasks.begin(), tasks.end(),
                   [](const Task& a, const Task& b) { return a.cost > b.cost; });
  return tasks;
}

void run(Scratch& s, const Layer& layer, const Rows& rows, const Task& task, int64_t head,
         const Heads<number>& queries, half* out, int64_t out_heads) {
  const int64_t dim = layer.dim, value_dim = layer.value_dim, group = layer.group;
  const int64_t each = task.count * group, all = task.rows * each;
  s.begin(layer, all);
  auto place = [&](int64_t row) {  // token and head
    const int64_t token = rows.first(task.row + row / each) + task.from + row % each / group;
    return std::pair(token, head * group + row % group);
  };
  for (int64_t row = 0; row < all; row++) {
    const auto [token, query_head] = place(row);
    std::memcpy(&s.queries[row * dim], queries.at(token, query_head), dim * sizeof(number));
  }
  auto context = [&](int64_t row) { return Context{&layer, head, rows.table(row)}; };
  if (task.shared) attend_to(s, context(task.row), {0, all, task.shared}, 0, task.shared);
  for (int64_t i = 0; i < task.rows; i++) {
    const int64_t row = task.row + i, start = rows.length(row) - rows.count(row) + task.from;
    const int64_t low = layer.window ? std::max<int64_t>(0, start - layer.window + 1) : 0;
    attend_to(s, context(row), {i * each, each, start}, std::max(task.shared, low),
              start + task.count);
  }
  for (int64_t row = 0; row < all; row++) {
    const auto [token, query_head] = place(row);
    const vec part = splat(1.f / sum_of(load(&s.total[row * LANES])));
    half* line = out + (token * out_heads + query_head) * value_dim;
    for (int64_t d = 0; d < value_dim; d += 2 * LANES) {
      const float* sums = &s.sums[row * value_dim + d];
      store_in_order(line + d, load(sums) * part, load(sums + LANES) * part);
    }
  }
}

// `x [N, kv_heads, D]` into `slots [N]` of `cache [kv_heads, blocks, block_size, D]`.
void keep(const Tensor& x, const Tensor& slots, const Tensor& cache) {
  const Heads<half> from(x);
  const int64_t* place = slots.const_data_ptr<int64_t>();
  const int64_t heads = cache.size(0), each = cache.size(1) * cache.size(2);
  half* to = write(cache);
  at::parallel_for(0, x.size(0), 64, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; token++)
      for (int64_t head = 0; head < heads; head++)
        std::memcpy(to + (head * each + place[token]) * from.dim, from.at(token, head),
                    from.dim * sizeof(half));
  });
}

// Stores `k [N, kv_heads, D]` and `v [N, kv_heads, Dv]` in `slots [N]` of `keys` and `values
// [kv_heads, blocks, block_size, D or Dv]`, then attends: `[N, heads, Dv]`. A row of
// `rows [R, 3]` is the index of its first query, their number, and the length of its context, which
// lies in the blocks `tables [R, ...]`. One of `groups [G, 3]` is a first row, a number of rows of
// one query each, and how many positions these have in common; or a single row.
Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& keys,
              const Tensor& values, const Tensor& slots, const Tensor& rows, const Tensor& groups,
              const Tensor& tables, double scale, int64_t window, double softcap) {
  for (const Tensor* tensor : {&q, &k, &v, &keys, &values}) check(*tensor, "an input of attention");
  for (const Tensor* tensor : {&keys, &values, &slots, &rows, &groups, &tables})
    TORCH_CHECK(tensor->is_contiguous(), "an input of attention is not contiguous");
  const int64_t tokens = q.size(0), heads = q.size(1), kv_heads = keys.size(0);
  const Layer layer{read(keys),    read(values),        keys.size(1),
                    keys.size(2),  keys.size(3),        values.size(3),
                    heads / kv_heads, static_cast<float>(scale), static_cast<float>(softcap),
                    window};
  TORCH_CHECK(layer.dim % 32 == 0 && layer.value_dim % 32 == 0, "heads of ", layer.dim, " and ",
              layer.value_dim);
  keep(by_heads(k), slots, keys);
  keep(by_heads(v), slots, values);

  const Tensor numbers = by_heads(q.to(NUMBER));
  const Heads<number> queries(numbers);
  const Rows every{rows.const_data_ptr<int64_t>(), tables.const_data_ptr<int64_t>(), tables.size(1)};
  const auto tasks = divide(every, groups, std::max<int64_t>(1, QUERIES / layer.group));
  Tensor out = at::empty({tokens, heads, layer.value_dim}, q.options());
  half* to = write(out);
  // Each thread takes the next when it is done with one.
  const int64_t count = static_cast<int64_t>(tasks.size()) * kv_heads;
  std::atomic<int64_t> next{0};
  at::parallel_for(0, std::min<int64_t>(count, at::get_num_threads()), 1, [&](int64_t, int64_t) {
    thread_local Scratch kept;
    Scratch& scratch = kept;
    for (int64_t i; (i = next++) < count;)
      run(scratch, layer, every, tasks[i / kv_heads], i % kv_heads, queries, to, heads);
  });
  return out;
}

// Tensors of megabytes live as long as a layer takes. If glibc gave their memory back each time,
// the system would have to hand it out anew, page by page.
void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 256 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
}

}  // namespace

TORCH_LIBRARY(minisgl_tui, m) {
  keep_freed_memory();
  m.def("packed_shape(int outputs, int inputs) -> int[]", &packed_shape);
  m.def("pack(Tensor weight, Tensor(a!) packed) -> ()", &pack);
  m.def("linear(Tensor x, Tensor packed, int outputs, Tensor? bias=None, Tensor? residual=None) "
        "-> Tensor",
        &linear);
  m.def("gated_linear(Tensor x, Tensor packed, int outputs, Tensor? bias=None) -> Tensor",
        &gated_linear);
  m.def("logits(Tensor x, Tensor packed, int outputs) -> Tensor", &logits);
  m.def("rms_norm(Tensor x, Tensor weight, float eps) -> Tensor", &rms_norm);
  m.def("rotate(Tensor x, Tensor cos, Tensor sin) -> Tensor", &rotate);
  m.def("attend(Tensor q, Tensor k, Tensor v, Tensor(a!) keys, Tensor(b!) values, Tensor slots, "
        "Tensor rows, Tensor groups, Tensor tables, float scale, int window, float softcap) -> Tensor",
        &attend);
}
