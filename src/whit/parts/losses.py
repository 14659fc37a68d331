"""Losses between networks.

A teacher's or peer's part never gets a gradient. All losses are means over the batch.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from whit.errors import SpecError

# Below this a map or a probability counts as zero: the smallest that float32 logarithms bear well.
TINY = 1e-12


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


def ensemble_scores(scores: Tensor, temperature: float = 4.0) -> Tensor:
    """Return the class scores of an ensemble, for `distillation_loss` at the same temperature.

    The softmax of the result over T is the mean of the members' probabilities at T; it is not the
    mean of their scores.

    Args:
        scores: class scores [members, ..., classes].
        temperature: > 0.

    Shapes: -> [..., classes].
    """
    mean = functional.softmax(scores / temperature, dim=-1).mean(0)
    return temperature * mean.clamp_min(TINY).log()


def mutual_loss(scores: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the mean over members k of 1/(K-1) sum over j != k of T^2 KL(p_j || p_k).

    The second term of deep mutual learning (Zhang et al. 2018), for all members at once. The p_j
    are targets and get no gradient; so member k's gradient is that of its own term over K.

    Args:
        scores: class scores [members, ..., classes] of the same samples, two members or more.
        temperature: > 0; 1 in the paper.

    Raises:
        SpecError: there are fewer than two members.
    """
    members = len(scores)
    if scores.dim() < 3 or members < 2:
        raise SpecError(
            f"mutual_loss was given scores of shape {list(scores.shape)}; expected [members, batch,"
            " classes] of two members or more, since a member learns from the others."
        )
    total = scores.new_zeros(())
    for k in range(members):
        peers = [j for j in range(members) if j != k]
        own = scores[k].expand(len(peers), *scores[k].shape)
        total = total + distillation_loss(own, scores[peers], temperature)
    return total / members


def group_imitation_loss(scores: Tensor, shares: Tensor, temperature: float = 3.0) -> Tensor:
    """Return the mean over members k of T^2 KL(q_k || p_k), q_k the mean answer of k's sub-group.

    q_k = sum over j of shares[k, j] softmax(z_j / T), without gradient: probabilities are averaged,
    not scores.

    Args:
        scores: class scores z [members, batch, classes] of the same samples.
        shares: [members, members], non-negative; each row sums to 1, the diagonal is 0.
        temperature: T > 0.
    """
    soft = functional.softmax(scores.detach() / temperature, dim=-1)
    mean = (shares.to(soft) @ soft.flatten(1)).reshape(soft.shape)
    return distillation_loss(scores, temperature * mean.clamp_min(TINY).log(), temperature)


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return half the mean squared difference of features (the hint of FitNets).

    Romero et al. (2015) write 0.5 ||h_t - r(h_s)||^2, a sum over the elements of a sample. This is
    the mean over them, so that one weight fits layers of all sizes; r is the caller's regressor.

    Args:
        student: features [batch, ...], after the regressor.
        teacher: features of the same shape; no gradient flows into them.

    Raises:
        SpecError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise SpecError(
            f"hint_loss was given features of shapes {list(student.shape)} and "
            f"{list(teacher.shape)}; expected the same. Bring the student's to the teacher's with "
            "a linear layer or a 1 x 1 convolution."
        )
    return 0.5 * (student - teacher.detach()).square().mean()


def attention_map(features: Tensor) -> Tensor:
    """Return where a layer is active: the sum of squares over the channels, of unit length.

    Multiplying the features by a number changes nothing; features that are all zero give zeros.

    Args:
        features: [batch, channels, height, width].

    Shapes: -> [batch, height * width].

    Raises:
        SpecError: there are other axes.
    """
    return functional.normalize(_energy(features).flatten(1), dim=1, eps=TINY)


def attention_transfer_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of two attention maps (Zagoruyko and Komodakis 2017).

    The mean is over the map and the batch, as common code has it, there times 1000; the paper's
    text writes (beta / 2) times the length of the difference. Where the sizes of the maps differ,
    the larger one is averaged to the smaller before it is scaled to unit length.

    Args:
        student: features [batch, channels, height, width].
        teacher: features of any number of channels and any size; no gradient flows into them.

    Raises:
        SpecError: the features are no images.
    """
    own, other = _energy(student), _energy(teacher.detach())
    size = min(own.shape[2], other.shape[2]), min(own.shape[3], other.shape[3])
    maps = [
        functional.normalize(
            functional.adaptive_avg_pool2d(energy, size).flatten(1), dim=1, eps=TINY
        )
        for energy in (own, other)
    ]
    return (maps[0] - maps[1]).square().mean()


def _energy(features: Tensor) -> Tensor:
    """Return the sum of squares over the channels, [batch, 1, height, width]."""
    if features.dim() != 4:
        raise SpecError(
            f"An attention map was asked of features of shape {list(features.shape)}; expected "
            "[batch, channels, height, width], as a convolution over images gives them."
        )
    return features.square().sum(1, keepdim=True)
