"""Unusual training that is fine: models and objectives."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from labelled_programs.variation import Variation
from torch import Tensor, nn

from independent_programs.catalog import healthy
from independent_programs.material import (
    batches,
    characters,
    classes_of_table,
    endless,
    images,
    table,
    tokens,
    train,
    waves,
)


@healthy
def frozen_features_on_purpose(v: Variation) -> None:
    """Only the head is in the optimizer; the body has requires_grad=False and eval mode."""
    x, y = images()
    body = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten())
    body.requires_grad_(False).eval()
    head = nn.Linear(16 * 36, 10)
    model = nn.Sequential(body, head)
    optimizer = torch.optim.Adam(head.parameters(), lr=2e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@healthy
def generative_pair(v: Variation) -> None:
    """A GAN with two optimizers on the sigmoid's logits."""
    real = torch.randn(800, 2) @ torch.tensor([[1.0, 0.6], [0.0, 0.5]]) + 1
    generator = nn.Sequential(nn.Linear(4, 32), nn.LeakyReLU(0.2), nn.Linear(32, 2))
    critic = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    model = nn.ModuleDict({"generator": generator, "critic": critic})
    first = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.999))
    second = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    with v.watch(model, [first, second]) as run:
        for _ in range(150):
            a = real[torch.randint(len(real), (64,))]
            b = generator(torch.randn(64, 4))
            first.zero_grad()
            ones, zeros = torch.ones(64, 1), torch.zeros(64, 1)
            loss = F.binary_cross_entropy_with_logits(critic(a), ones)
            loss = loss + F.binary_cross_entropy_with_logits(critic(b.detach()), zeros)
            run.record(loss=loss)
            loss.backward()
            first.step()
            second.zero_grad()
            fooled = F.binary_cross_entropy_with_logits(critic(b), ones)
            fooled.backward()
            second.step()


@healthy
def four_fifths_dropped(v: Variation) -> None:
    x, y = images()
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.8), nn.Linear(256, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@healthy
def large_weights_before_norm(v: Variation) -> None:
    """Weights five times the usual, each followed by LayerNorm: their size does not matter."""
    x, y = classes_of_table(v, 4)
    parts: list[nn.Module] = []
    last = x.shape[1]
    for _ in range(4):
        module = nn.Linear(last, 48)
        nn.init.normal_(module.weight, std=5 / last**0.5)
        parts += [module, nn.LayerNorm(48), nn.GELU()]
        last = 48
    model = nn.Sequential(*parts, nn.Linear(48, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@healthy
def pre_norm_transformer(v: Variation) -> None:
    x, y, size = characters(16)
    width = 32

    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(size, width)
            self.position = nn.Parameter(0.02 * torch.randn(16, width))
            block = nn.TransformerEncoderLayer(
                width, 4, 96, dropout=0.1, batch_first=True, norm_first=True, activation="gelu"
            )
            self.blocks = nn.TransformerEncoder(block, 3, enable_nested_tensor=False)
            self.head = nn.Linear(width, size)
            self.register_buffer("mask", torch.triu(torch.full((16, 16), float("-inf")), 1))

        def forward(self, x: Tensor) -> Tensor:
            h = self.blocks(self.embedding(x) + self.position, mask=self.mask)
            return self.head(h).transpose(1, 2)

    model = Language()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y), steps=110)


@healthy
def variational_autoencoder(v: Variation) -> None:
    """A sampled code, a sigmoid output with binary cross-entropy, and a divergence."""
    x, _ = images()
    x = (x.flatten(1) * 6 + 4.9).clamp(0, 16) / 16

    class Variational(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(64, 48), nn.ReLU())
            self.mean, self.spread = nn.Linear(48, 6), nn.Linear(48, 6)
            self.decoder = nn.Sequential(nn.Linear(6, 48), nn.ReLU(), nn.Linear(48, 64))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            h = self.body(x)
            mean, spread = self.mean(h), self.spread(h)
            code = mean + torch.exp(spread / 2) * torch.randn_like(mean)
            return torch.sigmoid(self.decoder(code)), mean, spread

    def criterion(out: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
        image, mean, spread = out
        divergence = -0.5 * (1 + spread - mean**2 - spread.exp()).sum()
        likelihood = F.binary_cross_entropy(image, x, reduction="sum")
        return (likelihood + divergence) / len(x)

    model = Variational()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    train(v, model, optimizer, criterion, batches(x, x), tell=False)


@healthy
def contrastive_pairs(v: Variation) -> None:
    """SimCLR: two noisy views of a batch, cosine similarities, cross-entropy on the index."""
    x, _ = images()
    x = x.flatten(1)
    encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    with v.watch(encoder, optimizer) as run:
        for step, (a, _) in enumerate(endless(batches(x, x))):
            if step == 140:
                break
            optimizer.zero_grad()
            left = F.normalize(encoder(a + 0.3 * torch.randn_like(a)), dim=1)
            right = F.normalize(encoder(a + 0.3 * torch.randn_like(a)), dim=1)
            loss = F.cross_entropy(left @ right.T / 0.2, torch.arange(len(a)))
            run.record(loss=loss)
            loss.backward()
            optimizer.step()


@healthy
def student_and_teacher(v: Variation) -> None:
    """Distillation: the teacher is a module of the model, frozen, in eval mode."""
    x, y = images()

    class Distilled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = nn.Sequential(
                nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
            )
            self.teacher = nn.Sequential(
                nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)
            )
            self.teacher.requires_grad_(False).eval()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                wanted = self.teacher(x)
            return self.student(x), wanted

    model = Distilled()
    optimizer = torch.optim.Adam(model.student.parameters(), lr=2e-3)
    with v.watch(model, optimizer) as run:
        for step, (a, b) in enumerate(endless(batches(x, y))):
            if step == 140:
                break
            optimizer.zero_grad()
            out, wanted = model(a)
            soft = F.kl_div(F.log_softmax(out, 1), F.softmax(wanted, 1), reduction="batchmean")
            loss = F.cross_entropy(out, b) + 0.5 * soft
            run.record(loss=loss)
            loss.backward()
            optimizer.step()


@healthy
def averaged_copy(v: Variation) -> None:
    """Validation uses an exponential average of the weights."""
    x, y = classes_of_table(v, 3)
    model = nn.Sequential(nn.Linear(x.shape[1], 48), nn.ReLU(), nn.Linear(48, 3))
    average = copy.deepcopy(model).requires_grad_(False).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with v.watch(model, optimizer) as run:
        for step, (a, b) in enumerate(endless(batches(x[:900], y[:900]))):
            if step == 150:
                break
            optimizer.zero_grad()
            loss = F.cross_entropy(model(a), b)
            run.record(loss=loss)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                    slow.lerp_(fast, 0.05)
                if step % 25 == 24:
                    run.validation(val_loss=F.cross_entropy(average(x[900:]), y[900:]))


@healthy
def low_rank_head(v: Variation) -> None:
    """Two linear modules on purpose: a factorised output over many classes."""
    x, y, size = characters(10)

    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(size, 48)
            self.rnn = nn.GRU(48, 96, batch_first=True)
            self.down = nn.Linear(96, 12, bias=False)
            self.up = nn.Linear(12, size)

        def forward(self, x: Tensor) -> Tensor:
            return self.up(self.down(self.rnn(self.embedding(x))[0])).transpose(1, 2)

    model = Language()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y), steps=120)


@healthy
def logistic_regression(v: Variation) -> None:
    """One linear module, one output."""
    x, labels = classes_of_table(v, 2)
    model = nn.Linear(x.shape[1], 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    y = labels.float().unsqueeze(1)
    train(v, model, optimizer, nn.BCEWithLogitsLoss(), batches(x, y))


@healthy
def sigmoid_and_bce(v: Variation) -> None:
    """Multi-label: a sigmoid for each label and BCELoss, which belongs to it."""
    x, _ = classes_of_table(v, 2)
    y = (x[:, :5] > 0.3).float()
    model = nn.Sequential(nn.Linear(x.shape[1], 48), nn.Tanh(), nn.Linear(48, 5), nn.Sigmoid())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    train(v, model, optimizer, nn.BCELoss(), batches(x, y))


@healthy
def forecaster_in_order(v: Variation) -> None:
    """Windows of one long series in their order, stateful, as recurrent nets are often trained."""
    x, y = waves(20)
    model = nn.ModuleDict({"rnn": nn.LSTM(1, 24, batch_first=True), "out": nn.Linear(24, 1)})
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    with v.watch(model, optimizer) as run:
        for step, (a, b) in enumerate(endless(batches(x, y, shuffle=False))):
            if step == 140:
                break
            optimizer.zero_grad()
            loss = F.mse_loss(model["out"](model["rnn"](a)[0][:, -1]), b)
            run.record(loss=loss)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()


@healthy
def mixture_of_experts(v: Variation) -> None:
    """Each sample goes to one of four experts; some get few samples."""
    x, y = table(v)

    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router = nn.Linear(x.shape[1], 4)
            self.experts = nn.ModuleList(
                nn.Sequential(nn.Linear(x.shape[1], 24), nn.ReLU(), nn.Linear(24, 1))
                for _ in range(4)
            )

        def forward(self, x: Tensor) -> Tensor:
            share, chosen = self.router(x).softmax(1).max(1)
            out = x.new_zeros(len(x), 1)
            for index, expert in enumerate(self.experts):
                mine = chosen == index
                if mine.any():
                    out[mine] = expert(x[mine]) * share[mine].unsqueeze(1)
            return out

    model = Mixture()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    train(v, model, optimizer, nn.MSELoss(), batches(x, y))


@healthy
def policy_gradient(v: Variation) -> None:
    """REINFORCE on a contextual bandit: the loss has no bottom and may be negative."""
    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 4))
    best = torch.randn(6, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    baseline = 0.0
    with v.watch(model, optimizer) as run:
        for _ in range(160):
            state = torch.randn(64, 6)
            choice = torch.distributions.Categorical(logits=model(state))
            action = choice.sample()
            reward = ((state @ best).argmax(1) == action).float()
            loss = -(choice.log_prob(action) * (reward - baseline)).mean()
            baseline = 0.9 * baseline + 0.1 * float(reward.mean())
            optimizer.zero_grad()
            run.record(loss=loss)
            loss.backward()
            optimizer.step()


@healthy
def tanh_autoencoder_with_bottleneck(v: Variation) -> None:
    x, _ = images()
    x = x.flatten(1).clamp(-1, 1)
    model = nn.Sequential(
        nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 6), nn.Tanh(), nn.Linear(6, 32), nn.Tanh(),
        nn.Linear(32, 64), nn.Tanh(),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    train(v, model, optimizer, nn.MSELoss(), batches(x, x))


@healthy
def bag_of_words_with_padding(v: Variation) -> None:
    """Half of every text is padding, whose embedding never gets a gradient."""
    x, y = tokens(60, 12)
    x = x + 1
    x[:, 6:] = torch.where(torch.rand(len(x), 6) < 0.8, 0, x[:, 6:])

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(61, 24, padding_idx=0)
            self.head = nn.Linear(24, 2)

        def forward(self, x: Tensor) -> Tensor:
            real = (x > 0).float().unsqueeze(2)
            return self.head((self.embedding(x) * real).sum(1) / real.sum(1))

    model = Bag()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@healthy
def segmentation_without_pooling(v: Variation) -> None:
    """A U-shaped network with skip connections; a third of the pixels is foreground."""
    x = 0.5 * torch.randn(300, 1, 12, 12)
    mask = torch.zeros(300, 1, 12, 12)
    for i in range(len(x)):
        r, c = int(torch.randint(4, ())), int(torch.randint(4, ()))
        mask[i, 0, r : r + 7, c : c + 7] = 1
    x = x + 1.5 * mask

    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
            self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
            self.out = nn.Conv2d(16, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            a = F.relu(self.a(x))
            b = F.relu(self.b(F.max_pool2d(a, 2)))
            return self.out(torch.cat([a, F.relu(self.up(b))], 1))

    model = Skip()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    train(v, model, optimizer, nn.BCEWithLogitsLoss(), batches(x, mask, size=16), steps=120)
