"""Weighted nearest neighbours on frozen features, as in instance discrimination and DINO; nothing is trained.

Papers: https://arxiv.org/abs/1805.01978 (section 3.4), https://arxiv.org/abs/2104.14294.
Shapes: Q queries, N videos of the bank, D features, k neighbours, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from umt.tools.probe.table import Table

NEIGHBOURS = (1, 5, 10, 20, 50, 100, 200)
TEMPERATURES = (0.02, 0.07, 0.2)
_QUERIES, _BANK = 512, 65536  # rows compared at once: 128 MB of similarities


def nearest(queries: Table, bank: Table, count: int, *, part: int = _BANK) -> tuple[Tensor, Tensor]:
    """The `count` most similar rows of the bank to each query: cosine (Q, k) descending, and their rows (Q, k).

    The bank passes in parts of `part` rows, so that neither it nor the similarities must fit in memory. On the CPU.
    """
    count = min(count, len(bank))
    best = torch.empty(len(queries), 0)
    rows = torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(bank), part):
        rows_here = F.normalize(bank.rows(range(start, min(start + part, len(bank)))), dim=-1)
        cosines, places = [], []
        for first in range(0, len(queries), _QUERIES):
            asked = F.normalize(queries.rows(range(first, min(first + _QUERIES, len(queries)))), dim=-1)
            top = (asked @ rows_here.T).topk(min(count, len(rows_here)), dim=-1)
            cosines.append(top.values.cpu())
            places.append(top.indices.cpu() + start)
        best, rows = torch.cat((best, torch.cat(cosines)), 1), torch.cat((rows, torch.cat(places)), 1)
        best, order = best.sort(dim=-1, descending=True, stable=True)
        best, rows = best[:, :count], rows.gather(1, order)[:, :count]
    return best, rows


def vote(similarity: Tensor, labels: Tensor, classes: int, k: int, temperature: float) -> Tensor:
    """similarity (Q, >= k) descending, labels (Q, >= k) of the neighbours -> shares of the votes (Q, K), summing to 1.

    Each of the first k neighbours votes for its class with weight exp(similarity / temperature).
    """
    weight = ((similarity[:, :k] - similarity[:, :1]) / temperature).exp()
    votes = torch.zeros(len(similarity), classes).scatter_add_(1, labels[:, :k], weight)
    return votes / votes.sum(-1, keepdim=True)
