"""One weighted least-squares projection, which all gradients with sums of rows and columns held fixed share.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Ridge on a matrix with diagonal 1; its effect on the result is removed by one step of refinement.
RIDGE = 1e-12
ROUNDING = 1e-10


def projected(values: Tensor, weights: Tensor, columns: Tensor) -> Tensor:
    """D_ij = w_ij (A_ij - a_i - b_j) with rows that sum to 0, and columns that do where ``columns`` says so.

    The projection of A on the moves that keep these sums, in the metric of the weights. b solves the Laplacian of the
    weighted graph of agents and tasks, with the agents eliminated. Rows and columns without weight give zeros.

    Args:
        values: A, [B, N, M].
        weights: w, [B, N, M], not negative.
        columns: [B, M] bool, tasks whose sum is held; b = 0 for the others.
    """
    row = weights.sum(2, keepdim=True)
    share = weights / torch.where(row > 0.0, row, 1.0)
    centered = values - (share * values).sum(2, keepdim=True)
    b = solve_columns(weights, (weights * centered).sum(1), columns)
    moved = values - b.unsqueeze(1)
    kept = moved - (share * moved).sum(2, keepdim=True)
    # What is left of a direction that is projected out entirely is rounding, not a direction.
    return weights * torch.where(kept.abs() > ROUNDING * values.abs().amax((1, 2), keepdim=True), kept, 0.0)


def solve_columns(weights: Tensor, right: Tensor, columns: Tensor) -> Tensor:
    """[B, M] b with (diag(colsum w) - w^T diag(1 / rowsum w) w) b = right on ``columns``, 0 elsewhere.

    The matrix is singular along constants on connected columns; these change no weighted difference, so any solution
    will do.
    """
    row, column = weights.sum(2), weights.sum(1)
    used = columns & (column > 0.0)
    if not used.any():
        return torch.zeros_like(right)
    # Symmetric scaling brings the diagonal to 1, so that one ridge fits columns of every size.
    scale = torch.where(used, column.clamp(min=1e-300).rsqrt(), 0.0)
    matrix = weights * scale.unsqueeze(1) * torch.where(row > 0.0, row, 1.0).rsqrt().unsqueeze(2)
    laplacian = torch.eye(right.shape[1], dtype=right.dtype, device=right.device) - matrix.mT @ matrix
    ridged = laplacian + RIDGE * torch.eye(right.shape[1], dtype=right.dtype, device=right.device)
    factors = torch.linalg.lu_factor(ridged)
    scaled = (right * scale).unsqueeze(2)
    solution = torch.linalg.lu_solve(*factors, scaled)
    solution = solution + torch.linalg.lu_solve(*factors, scaled - laplacian @ solution)
    return solution.squeeze(2) * scale


def laplacian_times(weights: Tensor, b: Tensor) -> Tensor:
    """[B, M] (diag(colsum w) - w^T diag(1 / rowsum w) w) b."""
    row = weights.sum(2)
    mean = (weights @ b.unsqueeze(2)).squeeze(2) / torch.where(row > 0.0, row, 1.0)
    return (weights * (b.unsqueeze(1) - mean.unsqueeze(2))).sum(1)
