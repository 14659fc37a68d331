"""Losses between networks."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over the batch.

    Its gradient is T (p_student - p_teacher) / batch; the factor T^2 keeps its scale over T
    (Hinton, Vinyals and Dean 2015).

    Args:
        student: class scores [..., classes].
        teacher: class scores of the same shape; no gradient flows into them.
        temperature: > 0, usually 1 to 20.
    """
    log_student = functional.log_softmax(student.flatten(0, -2) / temperature, dim=-1)
    soft_teacher = functional.softmax(teacher.detach().flatten(0, -2) / temperature, dim=-1)
    divergence = functional.kl_div(log_student, soft_teacher, reduction="batchmean")
    return divergence * temperature**2
