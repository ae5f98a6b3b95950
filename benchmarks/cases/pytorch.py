"""The backbone in PyTorch, with its own optimizer and with TorchJD's aggregators."""

import os

import torch
from torch import nn

from benchmarks.cases import Case
from benchmarks.rows import Shape, batches

torch.set_num_threads(os.cpu_count())


class MMoE(nn.Module):
    """Experts as one product, the gates' mixing as a batched one."""

    def __init__(self, shape: Shape, sparse: bool):
        super().__init__()
        self.shape = shape
        self.embeddings = nn.ModuleList(
            nn.Embedding(shape.vocabulary, shape.width, sparse=sparse) for _ in range(shape.columns)
        )
        self.experts = nn.Linear(shape.input_width, shape.experts * shape.units)
        self.gates = nn.ModuleList(
            nn.Linear(shape.input_width, shape.experts) for _ in range(shape.tasks)
        )
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Linear(shape.units, shape.tower), nn.ReLU(), nn.Linear(shape.tower, 1))
            for _ in range(shape.tasks)
        )

    def features(self, ids, numbers):
        """What the gates read and what they mix: the last shared tensors."""
        embedded = [table(ids[:, i]) for i, table in enumerate(self.embeddings)]
        hidden = torch.cat([*embedded, numbers], 1)
        experts = torch.relu(self.experts(hidden))
        # Of its own, so that a gradient at it is that of the gates alone.
        return hidden.view_as(hidden), experts.view(-1, self.shape.experts, self.shape.units)

    def losses(self, features, labels):
        hidden, experts = features
        found = []
        for i, (gate, tower) in enumerate(zip(self.gates, self.towers)):
            mixture = torch.softmax(gate(hidden), 1).unsqueeze(1)
            logits = tower(torch.bmm(mixture, experts).squeeze(1)).squeeze(1)
            found.append(nn.functional.binary_cross_entropy_with_logits(logits, labels[:, i]))
        return found

    def forward(self, ids, numbers, labels):
        return torch.stack(self.losses(self.features(ids, numbers), labels)).sum()

    def shared_parameters(self):
        return [*self.embeddings.parameters(), *self.experts.parameters()]

    def task_parameters(self):
        return [
            [*gate.parameters(), *tower.parameters()]
            for gate, tower in zip(self.gates, self.towers)
        ]


def make(shape: Shape, sparse: bool = False):
    torch.manual_seed(shape.seed)
    ids, numbers, labels = (torch.from_numpy(each) for each in batches(shape))
    return MMoE(shape, sparse), list(zip(ids.long(), numbers, labels))


def plain(shape: dict, sparse: bool = False, compiled: bool = False) -> Case:
    """A step of the sum of the losses.

    Args:
        shape: of :class:`Shape`.
        sparse: row-sparse gradients and ``SparseAdam`` for the embeddings.
        compiled: forward and backward through ``torch.compile``.
    """
    shape = Shape(**shape)
    model, rows = make(shape, sparse)
    if sparse:
        tables = list(model.embeddings.parameters())
        dense = [
            each
            for part in (model.experts, model.gates, model.towers)
            for each in part.parameters()
        ]
        optimizers = [torch.optim.SparseAdam(tables, 1e-3), torch.optim.Adam(dense, 1e-3)]
    else:
        optimizers = [torch.optim.Adam(model.parameters(), 1e-3)]
    loss = torch.compile(model) if compiled else model

    def step(batch):
        for each in optimizers:
            each.zero_grad()
        loss(*batch).backward()
        for each in optimizers:
            each.step()

    return Case(over(rows, step), figures={"parameters": parameters(model)})


def torchjd(shape: dict, aggregator: str, arguments: dict | None = None, chunk: int | None = None):
    """A step of TorchJD: the shared parameters' gradients aggregated, each task's own plain.

    Args:
        shape: of :class:`Shape`.
        aggregator: its class name, and
        arguments: what it is made with.
        chunk: how many of the tasks' gradients are taken at once; all by default.
    """
    from torchjd import aggregation
    from torchjd.autojac import jac_to_grad, mtl_backward

    shape = Shape(**shape)
    model, rows = make(shape)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    combine = getattr(aggregation, aggregator)(**(arguments or {}))
    shared, own = model.shared_parameters(), model.task_parameters()

    def backward(batch, combine):
        features = model.features(*batch[:2])
        losses = model.losses(features, batch[2])
        mtl_backward(
            losses,
            features,
            tasks_params=own,
            shared_params=shared,
            parallel_chunk_size=chunk,
        )
        jac_to_grad(shared, combine)

    def step(batch):
        optimizer.zero_grad()
        backward(batch, combine)
        optimizer.step()

    # Summed, they are the gradients of the sum.
    backward(rows[0], aggregation.Sum())
    found = [each.grad.clone() for each in model.parameters()]
    optimizer.zero_grad()
    model(*rows[0]).backward()
    for mine, theirs in zip(found, model.parameters()):
        torch.testing.assert_close(mine, theirs.grad, rtol=1e-4, atol=1e-6)
    return Case(over(rows, step), figures={"parameters": parameters(model)})


def parameters(model) -> int:
    return sum(each.numel() for each in model.parameters())


def over(rows, step):
    """Takes steps over a few batches, again and again."""
    taken = 0

    def run(steps):
        nonlocal taken
        for _ in range(steps):
            step(rows[taken % len(rows)])
            taken += 1

    return run
