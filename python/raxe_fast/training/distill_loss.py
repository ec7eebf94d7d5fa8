"""How far a student is from its teacher."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raxe_fast.training.finetune_model import Network
from raxe_fast.training.teacher import Targets

__all__ = ["DistillWeights", "Distiller", "Projection"]


@dataclass(frozen=True, slots=True)
class DistillWeights:
    """Weights beside the losses of the labels: ``embedding`` of 1 - cosine between the student's
    projected embedding and the teacher's, ``binary`` of the binary cross-entropy to the teacher's
    probability, ``classes`` of the cross-entropies to its family and subfamily distributions,
    ``evidence`` of the binary cross-entropy to the probability that a token belongs to an attack
    (of a teacher that reads along, see distill_online)."""

    embedding: float = 1.0
    binary: float = 0.5
    classes: float = 0.3
    evidence: float = 0.3


class Projection:
    """Adds to a student's modules a projection from its width to ``width``, the teacher's, which is
    trained with it and not written out."""

    def __init__(self, network: Network, width: int) -> None:
        self.projection = nn.Linear(network.source.hidden, width)
        network.modules["projection"] = self.projection.to(network.device)

    def agreement(
        self,
        network: Network,
        embedding: Tensor,
        teacher: Tensor,
        said: tuple[Tensor, Tensor, Tensor],
        weights: DistillWeights,
    ) -> Tensor:
        """A scalar: how far (B, H) embeddings and their logits are from a teacher's unit vectors
        and from the probabilities ``said``, binary (B,), family (B, F) and subfamily (B, C)."""
        projected = F.normalize(self.projection(embedding), dim=-1)
        loss = weights.embedding * (1 - (projected * teacher).sum(-1)).mean()
        binary, *classes = network.logits(embedding)
        loss = loss + weights.binary * F.binary_cross_entropy_with_logits(binary, said[0])
        for own, other in zip(classes, said[1:], strict=True):
            loss = loss + weights.classes * F.cross_entropy(own, other)
        return loss


class Distiller(Projection):
    """The distance of a batch from targets that a teacher made beforehand."""

    def __init__(self, network: Network, targets: Targets, weights: DistillWeights) -> None:
        super().__init__(network, targets.embedding.shape[1])
        self.targets, self.weights = targets, weights

    def identity(self) -> dict[str, object]:
        """What must be equal for a checkpoint to be continued."""
        digest = hashlib.sha256(self.targets.embedding.tobytes()).hexdigest()
        return {"teacher": digest, "distill": asdict(self.weights)}

    def loss(self, network: Network, embedding: Tensor, rows: list[int]) -> Tensor:
        """A scalar, over those of ``rows`` (training texts) that the teacher has read whole."""
        at = self.targets.where[rows]
        known = at >= 0
        if not known.any():
            return embedding.new_zeros(())
        device = network.device
        mine = embedding[torch.from_numpy(known).to(device)]
        theirs = torch.from_numpy(self.targets.embedding[at[known]]).to(device)
        binary, family, subfamily = (
            torch.from_numpy(logits).to(device) for logits in self.targets.logits(at[known])
        )
        said = (binary.sigmoid(), family.softmax(-1), subfamily.softmax(-1))
        return self.agreement(network, mine, theirs, said, self.weights)
