"""Attention as few, large matrix products: the backend for CPUs.

Rows that need the same work run together. The query heads that share a KV head are rows of one
product, so each key is read once. Rows whose contexts begin with the same blocks score those keys
in one product for all of them (the idea of Hydragen, Juravsky et al. 2024); their own keys are
scored apart, and one softmax runs over both, so that nothing has to be merged afterwards. Long
chunks run in tiles of queries whose scores stay in the processor's cache.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.base import Attend, AttentionSpec
from ..kv_cache import KVCache
from .base import AttentionPlan, RowSpan, attend_by_parts, cap
from .sharing import Group, share

TILE_TOKENS = 128
MOST_SCORES = 1 << 22  # elements of one product, over all heads
FEW_SCORES = 3 << 10  # of a lone query, over all heads


class GroupedAttention:
    """Arranges a step once for each kind of layer."""

    name: ClassVar[str] = "grouped"

    def prepare(self, plan: AttentionPlan, cache: KVCache) -> Attend:
        return attend_by_parts(plan, cache, _arrange)


@dataclass(frozen=True, slots=True)
class _Tile:
    """Queries ``queries`` of each row against its own keys ``keys``.

    ``mask`` is added to the scores, ``[1 or KV * B, queries * group, keys]``; None where all is
    seen.
    """

    queries: slice
    keys: slice
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class _Part:
    """``batch`` rows with as many queries each: B rows of T.

    ``rows`` are the packed indices of their B * T queries. ``own`` and ``shared`` index the cache,
    the latter for the keys that all of them see.
    """

    spec: AttentionSpec
    batch: int
    rows: slice | Tensor
    own: Tensor
    shared: Tensor | None
    tiles: list[_Tile]

    def attend(self, cache: KVCache, layer: int, q: Tensor) -> Tensor:
        """What these rows of ``q [N, heads, D]`` attend to: ``[B * T, heads, Dv]``."""
        spec, heads = self.spec, self.spec.num_kv_heads
        mine = q[self.rows].view(self.batch, -1, heads, spec.group, spec.head_dim)
        queries = mine.permute(2, 0, 1, 3, 4).reshape(heads * self.batch, -1, spec.head_dim)
        k, v = cache.gather(layer, self.own, self.batch)
        done = [self._tile(cache, layer, queries, k, v, tile) for tile in self.tiles]
        result = done[0] if len(done) == 1 else torch.cat(done, dim=1)
        result = result.view(heads, self.batch, -1, spec.group, spec.value_dim)
        return result.permute(1, 2, 0, 3, 4).reshape(-1, spec.num_heads, spec.value_dim)

    def _tile(
        self, cache: KVCache, layer: int, queries: Tensor, k: Tensor, v: Tensor, tile: _Tile
    ) -> Tensor:
        """The output of a tile's queries, ``[KV * B, T * group, Dv]``."""
        if len(self.tiles) > 1:  # a single one is all there is
            first, last = tile.queries.start * self.spec.group, tile.queries.stop * self.spec.group
            queries, k, v = queries[:, first:last], k[:, tile.keys], v[:, tile.keys]
        scores = _scores(queries, k, tile.mask, self.spec)
        if self.shared is None:
            return torch.bmm(scores.softmax(dim=-1), v)
        shared_k, shared_v = cache.gather(layer, self.shared, 1)
        heads, rows = self.spec.num_kv_heads, queries.shape[:2]
        together = _scores(queries.reshape(heads, -1, queries.shape[2]), shared_k, None, self.spec)
        together = together.view(*rows, -1)
        weights = torch.cat((together, scores), dim=-1).softmax(dim=-1)
        common = together.shape[-1]
        of_shared = weights[..., :common].view(heads, -1, common) @ shared_v
        return torch.baddbmm(of_shared.view(*rows, -1), weights[..., common:], v)


@dataclass(frozen=True, slots=True)
class _Lone:
    """One query over few keys, in PyTorch's own kernel: in bfloat16, which oneDNN multiplies on
    CPUs, that is done before two products have begun.

    ``own`` indexes the cache; ``mask`` is added to the scores, ``[1, 1, 1, keys]``.
    """

    spec: AttentionSpec
    rows: slice
    own: Tensor
    mask: Tensor | None

    @staticmethod
    def fits(row: RowSpan, spec: AttentionSpec, cache: KVCache) -> bool:
        if row.count > 1 or cache.dtype != torch.bfloat16 or cache.device.type != "cpu":
            return False
        return spec.softcap is None and spec.num_heads * row.length <= FEW_SCORES

    def attend(self, cache: KVCache, layer: int, q: Tensor) -> Tensor:
        """What the query attends to: ``[1, heads, Dv]``."""
        spec = self.spec
        queries = q[self.rows].view(1, spec.num_kv_heads, spec.group, spec.head_dim)
        k, v = cache.gather(layer, self.own, 1)
        out = F.scaled_dot_product_attention(
            queries, k.unsqueeze(0), v.unsqueeze(0), self.mask, scale=spec.scale
        )
        return out.reshape(1, spec.num_heads, spec.value_dim)


def _scores(queries: Tensor, k: Tensor, mask: Tensor | None, spec: AttentionSpec) -> Tensor:
    """``[batch, rows, keys]`` before the softmax."""
    if spec.softcap is None:
        beta, base = (0, queries.new_zeros(1)) if mask is None else (1, mask)
        return torch.baddbmm(base, queries, k.mT, beta=beta, alpha=spec.scale)
    scores = cap(torch.bmm(queries, k.mT).float() * spec.scale, spec.softcap)
    return (scores if mask is None else scores + mask).to(queries.dtype)


def _arrange(
    rows: Sequence[RowSpan], spec: AttentionSpec, cache: KVCache
) -> Iterator[_Part | _Lone]:
    """Parts that together cover every row once."""
    windowed = spec.window is not None and any(row.length > spec.window for row in rows)
    short = [row for row in rows if row.count <= TILE_TOKENS]
    yield from (_long(row, spec, cache) for row in rows if row.count > TILE_TOKENS)
    # A window would cut the shared keys off at a different place for each row.
    groups = [Group(0, short)] if windowed else share(short, cache.block_size)
    for group in groups:
        alike: defaultdict[tuple[int, int], list[RowSpan]] = defaultdict(list)
        for row in group.rows:
            # Powers of two: at most half of what is read for a row is padding.
            alike[row.count, (len(row.blocks) - group.blocks).bit_length()].append(row)
        for (count, size), batch in alike.items():
            scores = count * spec.num_heads * cache.block_size << size
            most = max(1, MOST_SCORES // scores)
            if len(batch) == 1 and not group.blocks and _Lone.fits(batch[0], spec, cache):
                yield _lone(batch[0], spec, cache)
                continue
            for i in range(0, len(batch), most):
                yield _batch(batch[i : i + most], group.blocks, spec, cache)


def _lone(row: RowSpan, spec: AttentionSpec, cache: KVCache) -> _Lone:
    keys = np.arange(len(row.blocks) * cache.block_size)
    mask = _mask(np.array([[row.start]]), 1, keys, spec, cache, 1)
    first = None if mask is None else mask[:, None, :1]
    own = cache.index(row.blocks, spec.num_kv_heads)
    return _Lone(spec, slice(row.first, row.first + 1), own, first)


def _long(row: RowSpan, spec: AttentionSpec, cache: KVCache) -> _Part:
    """A row by itself, in tiles that skip the keys which none of their queries sees."""
    fitting = MOST_SCORES // (spec.num_heads * row.length)
    tokens = min(TILE_TOKENS, max(16, fitting))
    tiles: list[_Tile] = []
    for start in range(0, row.count, tokens):
        stop = min(row.count, start + tokens)
        first, last = row.start + start, row.start + stop  # positions
        low = 0 if spec.window is None else max(0, first - spec.window + 1)
        mask = _mask(np.array([[first]]), stop - start, np.arange(low, last), spec, cache, 1)
        tiles.append(_Tile(slice(start, stop), slice(low, last), mask))
    rows = slice(row.first, row.first + row.count)
    own = cache.index(row.blocks, spec.num_kv_heads)
    return _Part(spec, 1, rows, own, None, tiles)


def _batch(rows: list[RowSpan], common: int, spec: AttentionSpec, cache: KVCache) -> _Part:
    """Rows of equal count, their own blocks padded to the longest; the first ``common`` shared."""
    batch, count, size = len(rows), rows[0].count, cache.block_size
    longest = max(len(row.blocks) for row in rows)
    tables = np.full((batch, longest), cache.padding_block, dtype=np.int64)
    for index, row in enumerate(rows):
        tables[index, : len(row.blocks)] = row.blocks
    # Whole blocks, though the last may be part full: a slice would be copied before it is
    # multiplied, and oneDNN prepares a product anew for every length.
    last = longest * size
    starts = np.array([[row.start] for row in rows])
    copies = spec.num_kv_heads if batch > 1 else 1
    mask = _mask(starts, count, np.arange(common * size, last), spec, cache, copies)
    length = last - common * size
    heads = spec.num_kv_heads
    return _Part(
        spec=spec,
        batch=batch,
        rows=_packed(rows, cache),
        own=cache.index(tables[:, common:].ravel(), heads),
        shared=cache.index(tables[0, :common], heads) if common else None,
        tiles=[_Tile(slice(0, count), slice(0, length), mask)],
    )


def decode_part(spec: AttentionSpec, tables: Tensor, lengths: Tensor, cache: KVCache) -> "_Part":
    """One query for each row of ``tables [B, blocks]``, the rows packed in order; ``lengths [B]``.

    From tensors on the device alone and without waiting for it, so that it can be recorded.
    """
    batch, length = len(tables), tables.shape[1] * cache.block_size
    keys = torch.arange(length, device=cache.device)
    seen = keys < lengths[:, None]
    if spec.window is not None:
        seen &= keys >= lengths[:, None] - spec.window
    mask = torch.zeros(seen.shape, dtype=cache.dtype, device=cache.device)
    mask.masked_fill_(~seen, float("-inf"))
    spread = mask[:, None, :].repeat(spec.num_kv_heads, spec.group, 1)
    tiles = [_Tile(slice(0, 1), slice(0, length), spread)]
    own = cache.index_on_device(tables, spec.num_kv_heads)
    return _Part(spec, batch, slice(0, batch), own, None, tiles)


def _packed(rows: list[RowSpan], cache: KVCache) -> slice | Tensor:
    """Packed indices of the queries of ``rows``; a slice where they follow one another."""
    count = rows[0].count
    firsts = np.array([row.first for row in rows])
    if np.array_equal(firsts, firsts[0] + count * np.arange(len(rows))):
        return slice(int(firsts[0]), int(firsts[0]) + count * len(rows))
    indices = firsts[:, None] + np.arange(count)
    return torch.from_numpy(indices.ravel()).to(cache.device)


def _mask(
    starts: np.ndarray,
    count: int,
    keys: np.ndarray,
    spec: AttentionSpec,
    cache: KVCache,
    copies: int,
) -> Tensor | None:
    """0 where a query sees a key, else minus infinity: ``[copies * B, count * group, keys]``.

    ``starts [B, 1]`` are the positions of the rows' first queries, ``keys`` those of the keys. None
    where every query sees every key.
    """
    positions = (starts + np.arange(count))[:, :, None]
    seen = keys <= positions
    if spec.window is not None:
        seen &= keys > positions - spec.window
    if seen.all():
        return None
    mask = torch.zeros(seen.shape, dtype=cache.dtype, device=cache.device)
    mask.masked_fill_(torch.from_numpy(~seen).to(cache.device), float("-inf"))
    batch, _, length = seen.shape
    spread = mask[None, :, :, None, :].expand(copies, batch, count, spec.group, length)
    return spread.reshape(copies * batch, count * spec.group, length)
