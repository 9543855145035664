"""Whether a model can be given packed tokens: the check that stands behind the bridge.

Our steps hold tokens of many requests side by side, in parts, with their positions. That is right
only if everything but attention computes each token from itself and its position. Models break this
in ways that no config tells: they count positions themselves, start them at an offset, mix
neighbouring tokens by convolution, or stretch positions by the longest in the batch. So it is
tried.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .base import Attend, AttentionSpec
from .probe import Refusal

_TOKENS = 32
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.08, torch.float16: 0.03}

Forward = Callable[[Tensor, Tensor | None, Attend, Tensor], Tensor]
"""``forward(input_ids [N], positions [N] or None for the model's own, attend, sample_rows [S])``:
logits ``[S, vocab]``."""


def check_packing(
    forward: Forward,
    layers: list[AttentionSpec],
    *,
    vocab_size: int,
    max_context: int,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Raise Refusal unless tokens keep their queries, keys, values and logits in any company.

    The model's own numbering of one short text is compared with the same tokens in reverse order
    among others at far positions. Attention is replaced by each token's own values, so that nothing
    else may carry over from one token to another.
    """
    count = min(_TOKENS, max_context)
    ids = torch.arange(7, 7 + 5 * count, 5, device=device) % vocab_size
    ours = torch.arange(0, count, 2, device=device)
    positions = torch.arange(count, device=device)
    theirs = positions[1::2]
    others, far = ids.clone(), positions.clone()
    others[theirs] = (ids[theirs] + 3) % vocab_size
    far[theirs] = max_context - 1 - theirs // 2
    alone = _trace(forward, layers, ids, None, ours)
    packed = _trace(forward, layers, others.flip(0), far.flip(0), count - 1 - ours)
    tolerance = _TOLERANCE.get(dtype, 1e-3)
    for ours_alone, ours_packed in zip(alone, packed, strict=True):
        apart = (ours_alone - ours_packed).flatten(1).norm(dim=1)
        size = ours_alone.flatten(1).norm(dim=1)
        # The median: rounding may send a token or two to other experts, a fault concerns all.
        if not float((apart / (size + 1e-12)).median()) <= tolerance:
            raise Refusal(
                "a token and its position do not determine what it computes for the token: it "
                "numbers positions in its own way, or mixes tokens outside attention"
            )


def _trace(
    forward: Forward,
    layers: list[AttentionSpec],
    ids: Tensor,
    positions: Tensor | None,
    rows: Tensor,
) -> list[Tensor]:
    """Queries, keys and values of each layer, then logits, all float32 and of ``rows`` only."""
    found: list[Tensor] = []

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        found.extend(tensor.index_select(0, rows).float() for tensor in (q, k, v))
        return v.repeat_interleave(layers[layer].group, dim=1)

    logits = forward(ids, positions, attend, rows)
    return [tensor.nan_to_num() for tensor in (*found, logits.float())]
