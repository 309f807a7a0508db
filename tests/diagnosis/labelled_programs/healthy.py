"""Programs with which nothing is wrong, though each does something that looks odd."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labelled_programs.catalog import healthy
from labelled_programs.variation import Variation, validation


@healthy
def plain_classifier(v: Variation) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    loss_fn = v.cross_entropy()
    v.fit(model, v.optimizer(model.parameters()), loss_fn, v.loader(task), accuracy=True,
          validate=validation(model, loss_fn, task))  # fmt: skip


@healthy
def warm_up(v: Variation) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    optimizer = v.optimizer(model.parameters())
    steps = v.choose(40, 80)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min((i + 1) / steps, 1.0))
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task), scheduler=scheduler)


@healthy
def cosine_to_zero(v: Variation) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    optimizer = v.optimizer(model.parameters())
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, v.steps)
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task), scheduler=scheduler)


@healthy
def frozen_backbone(v: Variation) -> None:
    task = v.digits()
    backbone = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
                             nn.Flatten())  # fmt: skip
    backbone.requires_grad_(False)
    head = nn.Sequential(nn.Linear(1024, 32), nn.ReLU(), nn.Linear(32, 10))
    model = nn.Sequential(backbone, head)
    if v.choose(True, False):
        backbone.eval()
    parameters = head.parameters() if v.choose(True, False) else model.parameters()
    optimizer = torch.optim.Adam(parameters, lr=2e-3)
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task), steps=100)


@healthy
def gradient_accumulation(v: Variation) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    optimizer = v.optimizer(model.parameters())
    loss_fn, loader, every = v.cross_entropy(), v.loader(task, batch=16), v.choose(2, 4)
    count = 0
    with v.watch(model, optimizer, loss_fn=loss_fn, loader=loader) as run:
        while count < 100 * every:
            for inputs, targets in loader:
                loss = loss_fn(model(inputs), targets) / every
                loss.backward()
                run.record(loss=loss * every)
                count += 1
                if count % every == 0:
                    optimizer.step()
                    optimizer.zero_grad()


@healthy
def small_loss_from_the_start(v: Variation) -> None:
    """Fine-tuning what is good already, gently."""
    task = v.digits()
    model = nn.Sequential(nn.Flatten(), v.mlp(64, 10, hidden=[64]))
    before = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(150):
        before.zero_grad()
        F.cross_entropy(model(task.inputs), task.targets).backward()
        before.step()
    optimizer = torch.optim.Adam(model.parameters(), lr=v.between(1e-5, 1e-4))
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task))


@healthy
def clipped_recurrent(v: Variation) -> None:
    task = v.sequences(v.choose(12, 20))

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTM(2, 24, batch_first=True)
            self.last = nn.Linear(24, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.cell(x)[0][:, -1])

    model = Recurrent()
    optimizer = torch.optim.Adam(model.parameters(), lr=v.between(3e-3, 1e-2))
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task), clip=v.choose(0.25, 1.0), steps=150)


@healthy
def hard_clipping(v: Variation) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=v.between(1e-3, 3e-3))
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task), clip=v.choose(0.01, 0.1, 1.0))


@healthy
def sigmoid_autoencoder(v: Variation) -> None:
    task = v.digits()
    task.inputs = task.inputs.flatten(1)
    task.targets = task.inputs
    code = v.choose(4, 8)
    model = nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, code), nn.Linear(code, 32), nn.ReLU(),
        nn.Linear(32, 64), nn.Sigmoid(),
    )  # fmt: skip
    loss_fn = v.choose(nn.MSELoss(), nn.BCELoss())
    optimizer = torch.optim.Adam(model.parameters(), lr=v.between(2e-3, 5e-3))
    v.fit(model, optimizer, loss_fn, v.loader(task))


@healthy
def adversarial_pair(v: Variation) -> None:
    """A small GAN: two optimizers, alternating, one of them watched or both."""
    points = torch.randn(512, 2) * torch.tensor([1.0, 0.3]) + torch.tensor([1.0, -1.0])
    generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    critic = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    model = nn.ModuleDict({"generator": generator, "critic": critic})
    g_step = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.99))
    d_step = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.99))
    loss_fn = nn.BCEWithLogitsLoss()
    watched = v.choose([g_step, d_step], [g_step])
    with v.watch(model, watched, loss_fn=loss_fn) as run:
        for _ in range(120):
            real = points[torch.randint(0, 512, (32,))]
            fake = generator(torch.randn(32, 4))
            d_step.zero_grad()
            d_loss = loss_fn(critic(real), torch.ones(32, 1)) + loss_fn(
                critic(fake.detach()), torch.zeros(32, 1)
            )
            d_loss.backward()
            d_step.step()
            g_step.zero_grad()
            g_loss = loss_fn(critic(fake), torch.ones(32, 1))
            g_loss.backward()
            run.record(loss=g_loss, critic_loss=d_loss)
            g_step.step()


@healthy
def sparse_embedding(v: Variation) -> None:
    count = v.choose(200, 500)
    tokens = torch.randint(0, count, (800, 6))
    task = v._split(tokens, (tokens % 3).sum(1) % 2, 2)

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(count, 16, sparse=True)
            self.last = nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.table(x).mean(1))

    model = Bag()
    optimizer = torch.optim.SGD(model.parameters(), lr=v.between(0.3, 1.0))
    task.targets = (task.inputs % 2).sum(1).gt(3).long()
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task))


@healthy
def mixed_precision(v: Variation) -> None:
    """Autocast to bfloat16 with a loss scaled by hand, unscaled before the step."""
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    optimizer = v.optimizer(model.parameters())
    criterion, scale = v.cross_entropy(), 1024.0
    loader = v.loader(task)
    with v.watch(model, optimizer, loss_fn=criterion, loader=loader) as run:
        for _ in range(5):
            for inputs, targets in loader:
                optimizer.zero_grad()
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    loss = criterion(model(inputs).float(), targets)
                (scale * loss).backward()
                for parameter in model.parameters():
                    assert parameter.grad is not None
                    parameter.grad /= scale
                optimizer.step()
                run.record(loss=loss)


@healthy
def small_transformer(v: Variation) -> None:
    task = v.sequences(8)

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter = nn.Linear(2, 24)
            self.position = nn.Parameter(0.02 * torch.randn(8, 24))
            layer = nn.TransformerEncoderLayer(
                24, 2, 48, dropout=0.1, batch_first=True, norm_first=v.choose(True, False)
            )
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.norm = nn.LayerNorm(24)
            self.last = nn.Linear(24, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.encoder(self.enter(x) + self.position)
            return self.last(self.norm(x).mean(1))

    model = Transformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=v.between(1e-3, 3e-3))
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task, batch=32), steps=100)


@healthy
def one_batch_on_purpose(v: Variation) -> None:
    task = v.classification()
    task.inputs, task.targets = task.inputs[: v.batch], task.targets[: v.batch]
    model = v.mlp(task.features, task.classes)
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(),
          v.loader(task, shuffle=False))  # fmt: skip


@healthy
def linear_regression(v: Variation) -> None:
    task = v.regression()
    model = nn.Linear(task.features, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=v.between(0.01, 0.1))
    v.fit(model, optimizer, nn.MSELoss(), v.loader(task))


@healthy
def normalised_inside(v: Variation) -> None:
    """Raw pixels, but the model (or its first module) normalises them."""
    task = v.digits()
    task.inputs = task.inputs * 255
    inside = v.choose(True, False)

    class Normalising(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.Identity() if inside else nn.BatchNorm1d(64)
            self.body = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)
            return self.body(x / 255 if inside else self.norm(x))

    model = Normalising()
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@healthy
def adapters_on_a_frozen_model(v: Variation) -> None:
    """Low-rank adapters; everything else is frozen."""
    task = v.digits()

    class Adapted(nn.Module):
        def __init__(self, inside: int, outside: int) -> None:
            super().__init__()
            self.base = nn.Linear(inside, outside).requires_grad_(False)
            self.down = nn.Linear(inside, 4, bias=False)
            self.up = nn.Linear(4, outside, bias=False)
            nn.init.zeros_(self.up.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x) + self.up(self.down(x))

    model = nn.Sequential(nn.Flatten(), Adapted(64, 64), nn.ReLU(), Adapted(64, 32), nn.ReLU(),
                          nn.Linear(32, 10))  # fmt: skip
    trainable = [p for p in model.parameters() if p.requires_grad]
    v.fit(model, torch.optim.Adam(trainable, lr=5e-3), v.cross_entropy(), v.loader(task))


@healthy
def zero_last_module(v: Variation) -> None:
    """The last module starts at zero, so that the first outputs are all alike."""
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    nn.init.zeros_(model[-1].weight)
    nn.init.zeros_(model[-1].bias)
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@healthy
def residual_batchnorm_net(v: Variation) -> None:
    task = v.digits()

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(width)
            self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.norm2 = nn.BatchNorm2d(width)
            nn.init.zeros_(self.norm2.weight)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.norm(self.first(x)), inplace=True)
            return F.relu(x + self.norm2(self.second(y)))

    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), Block(8), Block(8),
                          nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10))  # fmt: skip
    loss_fn = v.cross_entropy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    v.fit(model, optimizer, loss_fn, v.loader(task, batch=32), steps=60,
          validate=validation(model, loss_fn, task), validate_every=20)  # fmt: skip


@healthy
def weighted_rare_class(v: Variation) -> None:
    """A rare class that the loss weights up."""
    inputs = torch.randn(900, 8)
    score = inputs @ torch.randn(8)
    targets = (score > score.quantile(0.95)).long()
    task = v._split(inputs, targets, 2)
    counts = torch.bincount(task.targets)
    v.gives_loss = True
    loss_fn = nn.CrossEntropyLoss(weight=counts.sum() / (2.0 * counts))
    model = v.mlp(8, 2)
    v.fit(model, v.optimizer(model.parameters()), loss_fn, v.loader(task))


@healthy
def self_normalising_deep(v: Variation) -> None:
    """Fifteen modules deep, initialised for it."""
    task = v.classification()
    model = v.mlp(task.features, task.classes, hidden=[48] * 15)
    for module in model:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task), steps=120)


@healthy
def label_smoothing_and_dropout(v: Variation) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes, between=lambda _width: [nn.Dropout(0.3)])
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)
    v.fit(model, v.optimizer(model.parameters()), loss_fn, v.loader(task),
          validate=validation(model, loss_fn, task))  # fmt: skip


@healthy
def counts_with_poisson_loss(v: Variation) -> None:
    inputs = torch.randn(800, 6)
    rate = (inputs @ (0.3 * torch.randn(6))).exp()
    task = v._split(inputs, torch.poisson(rate).unsqueeze(1), 1)
    model = v.mlp(6, 1)
    loss_fn = nn.PoissonNLLLoss()
    v.fit(model, v.optimizer(model.parameters(), factor=0.5), loss_fn, v.loader(task))


@healthy
def in_order_but_mixed(v: Variation) -> None:
    """No shuffling, but the file was mixed once."""
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(),
          v.loader(task, shuffle=False))  # fmt: skip


@healthy
def contrastive_pairs(v: Variation) -> None:
    """Two views of each sample; the label is the position in the batch."""
    task = v.classification()
    model = v.mlp(task.features, 32)

    def loss_fn(outputs: Tensor, _targets: Tensor) -> Tensor:
        noisy = outputs + 0.05 * torch.randn_like(outputs)
        scores = F.normalize(outputs, dim=1) @ F.normalize(noisy, dim=1).T / 0.1
        return F.cross_entropy(scores, torch.arange(len(scores)))

    v.fit(model, v.optimizer(model.parameters()), loss_fn, v.loader(task, batch=32))


@healthy
def variational_autoencoder(v: Variation) -> None:
    task = v.digits()
    task.inputs = task.inputs.flatten(1)

    class Variational(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(64, 48), nn.ReLU())
            self.mean, self.log_variance = nn.Linear(48, 6), nn.Linear(48, 6)
            self.decoder = nn.Sequential(nn.Linear(6, 48), nn.ReLU(), nn.Linear(48, 64))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            hidden = self.encoder(x)
            mean, log_variance = self.mean(hidden), self.log_variance(hidden)
            code = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
            return self.decoder(code), mean, log_variance

    model = Variational()
    optimizer = torch.optim.Adam(model.parameters(), lr=v.between(1e-3, 3e-3))
    with v.watch(model, optimizer) as run:
        for _ in range(6):
            for inputs, _ in v.loader(task, batch=64):
                optimizer.zero_grad()
                outputs, mean, log_variance = model(inputs)
                kept = F.binary_cross_entropy_with_logits(outputs, inputs, reduction="sum")
                spread = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
                loss = (kept + spread) / len(inputs)
                loss.backward()
                optimizer.step()
                run.record(loss=loss)


@healthy
def token_classifier(v: Variation) -> None:
    """Integer inputs, an embedding, a recurrent net."""
    tokens = torch.randint(1, 30, (600, 8))
    task = v._split(tokens, (tokens < 5).any(1).long(), 2)

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(30, 16)
            self.cell = nn.GRU(16, 24, batch_first=True)
            self.last = nn.Linear(24, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.cell(self.table(x))[1][0])

    model = Tokens()
    optimizer = torch.optim.Adam(model.parameters(), lr=v.between(3e-3, 8e-3))
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task), steps=120)


@healthy
def forecast_in_order(v: Variation) -> None:
    """Windows of one long signal, in the order of time."""
    signal = torch.sin(torch.arange(1200) / v.between(5, 20)) + 0.1 * torch.randn(1200)
    windows = signal.unfold(0, 13, 1)
    v.gives_loader = True
    task = v._split(windows[:, :12], windows[:, 12:], 1)
    task.inputs, task.targets = windows[:900, :12, None], windows[:900, 12:]

    class Forecast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRU(1, 16, batch_first=True)
            self.last = nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.cell(x)[0][:, -1])

    model = Forecast()
    optimizer = torch.optim.Adam(model.parameters(), lr=v.between(3e-3, 1e-2))
    v.fit(model, optimizer, nn.MSELoss(), v.loader(task), steps=100)


@healthy
def second_order_closure(v: Variation) -> None:
    """LBFGS calls its closure several times a step."""
    task = v.regression()
    model = v.mlp(task.features, 1, hidden=[16], activation=nn.Tanh)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
    loss_fn = nn.MSELoss()
    with v.watch(model, optimizer, loss_fn=loss_fn) as run:
        for _ in range(40):

            def closure() -> Tensor:
                optimizer.zero_grad()
                loss = loss_fn(model(task.inputs), task.targets)
                loss.backward()
                run.record(loss=loss)
                return loss

            optimizer.step(closure)


@healthy
def backbone_without_gradients(v: Variation) -> None:
    """Features are computed under no_grad(); only the head is given to the optimizer."""
    task = v.digits()

    class Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 96), nn.ReLU())
            self.head = nn.Linear(96, 10)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                features = self.backbone(x)
            return self.head(features)

    model = Probe()
    optimizer = torch.optim.Adam(model.head.parameters(), lr=v.between(3e-3, 1e-2))
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task))


@healthy
def several_outputs(v: Variation) -> None:
    """A dictionary of outputs, two losses, a shared trunk."""
    task = v.classification()

    class Trunk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(task.features, 48), nn.SiLU())
            self.scores = nn.Linear(48, task.classes)
            self.copy = nn.Linear(48, task.features)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            hidden = self.trunk(x)
            return {"scores": self.scores(hidden), "copy": self.copy(hidden)}

    model = Trunk()
    optimizer = v.optimizer(model.parameters())
    with v.watch(model, optimizer) as run:
        for _ in range(6):
            for inputs, targets in v.loader(task):
                optimizer.zero_grad(set_to_none=False)
                outputs = model(inputs)
                scored = F.cross_entropy(outputs["scores"], targets)
                loss = scored + 0.3 * F.mse_loss(outputs["copy"], inputs.flatten(1))
                loss.backward()
                optimizer.step()
                run.record(loss=loss)


@healthy
def queries_before_anything_else(v: Variation) -> None:
    """Attention as in BERT: its queries come first, and get little gradient in every block.

    What it adds to its input starts at zero, and has a table that does not learn.
    """
    task = v.digits()

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = nn.Linear(32, 32), nn.Linear(32, 32)
            self.value, self.mixed = nn.Linear(32, 32), nn.Linear(32, 32)
            self.inner, self.outer = nn.Linear(32, 64), nn.Linear(64, 32)
            self.first, self.second = nn.LayerNorm(32), nn.LayerNorm(32)

        def forward(self, x: Tensor) -> Tensor:
            seen = F.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))
            x = self.first(x + self.mixed(seen))
            return self.second(x + self.outer(F.gelu(self.inner(x))))

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.levels, self.places = nn.Embedding(17, 32), nn.Embedding(64, 32)
            self.token = nn.Parameter(torch.zeros(1, 1, 32))
            self.bias = nn.Parameter(torch.zeros(64, 32))
            self.blocks = nn.Sequential(Block(), Block())
            self.head = nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            levels = (x.flatten(1) * 16).long().clamp(0, 16)
            hidden = self.levels(levels) + self.places(torch.arange(64)) + self.bias
            first = self.token.expand(len(x), -1, -1)
            return self.head(self.blocks(torch.cat([first, hidden], 1))[:, 0])

    model = Reader()
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    model.places.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=v.between(3e-4, 2e-3))
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task), steps=30)
