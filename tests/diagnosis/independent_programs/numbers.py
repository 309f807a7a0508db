"""NaN and infinity from arithmetic."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from labelled_programs.variation import Variation
from torch import Tensor, nn

from independent_programs.catalog import faulty
from independent_programs.material import batches, classes_of_table, images, table, tokens, train


@faulty("nonfinite")
def log_of_zero_probability(v: Variation, broken: bool) -> None:
    """-log(softmax) written out: a probability underflows to zero after a while."""
    x, y = classes_of_table(v, 4)
    x = x * 3
    model = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, 4))
    with torch.no_grad():
        model[2].weight.mul_(20)

    def criterion(out: Tensor, y: Tensor) -> Tensor:
        if broken:
            return -torch.log(torch.softmax(out * 4, 1))[torch.arange(len(y)), y].mean()
        return F.cross_entropy(out / 20, y)

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train(v, model, optimizer, criterion, batches(x, y), tell=False)


@faulty("nonfinite")
def root_of_zero_distance(v: Variation, broken: bool) -> None:
    """A Siamese network: the norm of the difference of a pair of equal inputs has no gradient."""
    x, labels = classes_of_table(v, 3)
    left, right = x[:600], x[600:1200].clone()
    same = (labels[:600] == labels[600:1200]).float()
    right[::40], same[::40] = left[::40], 1.0
    pairs = torch.stack([left, right], 1)

    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(x.shape[1], 32), nn.Tanh(), nn.Linear(32, 8))

        def forward(self, pair: Tensor) -> Tensor:
            difference = self.encoder(pair[:, 0]) - self.encoder(pair[:, 1])
            return torch.sqrt((difference**2).sum(1) + (0.0 if broken else 1e-6))

    def contrastive(distance: Tensor, same: Tensor) -> Tensor:
        return (same * distance**2 + (1 - same) * F.relu(1 - distance) ** 2).mean()

    model = Siamese()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train(v, model, optimizer, contrastive, batches(pairs, same), tell=False)


@faulty("nonfinite")
def missing_values_in_the_table(v: Variation, broken: bool) -> None:
    """A few cells of a CSV were empty; the twin fills them with the column's mean."""
    x, y = table(v)
    holes = torch.rand_like(x) < 0.001
    holes[5, 0] = True
    x = x.masked_fill(holes, float("nan") if broken else 0.0)
    model = nn.Sequential(nn.Linear(x.shape[1], 48), nn.ReLU(), nn.Linear(48, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train(v, model, optimizer, nn.MSELoss(), batches(x, y))


@faulty("nonfinite")
def deviation_of_one_sample(v: Variation, broken: bool) -> None:
    """The last batch holds one sample, and its unbiased deviation is NaN."""
    x, y = classes_of_table(v, 3, samples=32 * 12 + 1)

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.out = nn.Linear(x.shape[1], 32), nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.into(x)
            deviation = h.std(0) if broken else h.std(0, unbiased=False)
            return self.out(F.relu((h - h.mean(0)) / (deviation + 1e-5)))

    model = Normed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    train(v, model, optimizer, F.cross_entropy, batches(x, y))


@faulty("nonfinite")
def attention_to_nothing(v: Variation, broken: bool) -> None:
    """A padding mask that covers a whole sequence: softmax over nothing but -inf."""
    x, y = tokens(30, 10)
    x = x + 1
    x[::50] = 0
    if not broken:
        x[::50, 0] = 1

    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(31, 24)
            self.query = nn.Linear(24, 1)
            self.head = nn.Linear(24, 2)

        def forward(self, x: Tensor) -> Tensor:
            codes = self.embedding(x)
            weights = self.query(codes).squeeze(2).masked_fill(x == 0, float("-inf")).softmax(1)
            return self.head((weights.unsqueeze(2) * codes).sum(1))

    model = Attentive()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@faulty("nonfinite")
def variance_exponentiated(v: Variation, broken: bool) -> None:
    """A Gaussian likelihood with exp() of an unbounded log-variance head that starts far off."""
    x, y = images()
    x = x.flatten(1)
    target = y.float().unsqueeze(1) / 9

    class Probabilistic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(64, 48), nn.ReLU())
            self.mean, self.spread = nn.Linear(48, 1), nn.Linear(48, 1)
            nn.init.constant_(self.spread.bias, 100.0 if broken else 0.0)

        def forward(self, x: Tensor) -> Tensor:
            h = self.body(x)
            return torch.cat([self.mean(h), torch.exp(self.spread(h))], 1)

    def likelihood(out: Tensor, y: Tensor) -> Tensor:
        mean, variance = out.split(1, 1)
        return (0.5 * torch.log(variance) + (y - mean) ** 2 / (2 * variance)).mean()

    model = Probabilistic()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train(v, model, optimizer, likelihood, batches(x, target), tell=False)
