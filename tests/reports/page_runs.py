"""Small real runs, hand-made tickets and an HTML reader that the tests of the page share."""

import re
from html.parser import HTMLParser
from pathlib import Path

import torch
from torch import nn

from rtl_plugin import DataGroups, GeometricSchedule, Ticket, TicketSet, discover, retrain
from rtl_plugin.diagnostics.collapse_rule import CollapseRule
from rtl_plugin.randomness import forked
from rtl_plugin.run_folder import RunFolder

HOSTILE = "<script>alert(1)</script>"
NAMES = (HOSTILE, "Straße 🚗 \"quoted\" & 'more'", "plain")

# Of a comparison: one row, and rows of three kinds.
ROW = {
    "task": "toy", "sparsity": 0.5, "method": "tickets", "metric": "accuracy", "mean": 0.7,
    "low": 0.6, "high": 0.8, "seeds": [0, 1], "parameters": 12,
}  # fmt: skip
ROWS = [
    {
        "task": "toy", "sparsity": sparsity, "method": method, "metric": metric, "mean": 0.7,
        "low": low, "high": high, "seeds": [0, 1], "parameters": 1234, "bytes": 99,
    }
    for method, sparsity, metric, low, high in [
        ("adaptive <b>tickets</b>", 0.5, "accuracy", 0.6, 0.8),
        ("adaptive <b>tickets</b>", 0.5, "worst_group", None, None),
        ("dense", None, "accuracy", 0.69, 0.71),
    ]
]  # fmt: skip


def network():
    with forked(0):
        return nn.Sequential(
            *(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU()),
            *(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)),
        )


def batches(shift, seed):
    x = torch.randn(2, 16, 6, generator=torch.Generator().manual_seed(seed))
    return [(part.roll(shift, dims=1), (part[:, :3].sum(dim=1) > 0).long()) for part in x]


def groups(names=NAMES):
    splits = [{name: batches(k, seed) for k, name in enumerate(names)} for seed in (0, 1)]
    return DataGroups.from_loaders(splits[0], validation=splits[1])


def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def adam(params):
    return torch.optim.Adam(params, 0.02)


def accuracy(model, batches):
    hits = torch.cat([model(x).argmax(dim=1) == y for x, y in batches])
    return float(hits.float().mean())


# Rings at slight changes, so that short runs have alarms.
EAGER = CollapseRule(fall=0.2, rise=0.05, noise=0.0, window=0.05, warm_up=1)


def run(folder, names=NAMES, rounds=4, sparsity=0.8, **others):
    settings = {"steps": 3, "optimizer": adam, "progress": False, "loss": loss, **others}
    return discover(
        network(),
        groups(names),
        settings.pop("loss"),
        schedule=GeometricSchedule(sparsity, rounds=rounds),
        run_folder=folder,
        **settings,
    )


def full_run(folder, names=NAMES):
    """Everything that a run folder can hold, but a comparison."""
    settings = {"rounds": 6, "sparsity": 0.85, "stop_before_collapse": EAGER}
    tickets = run(folder, names, evaluate=accuracy, **settings)
    retrain(
        network(), tickets, groups(names), loss, epochs=2, optimizer=adam, run_folder=folder,
        progress=False,
    )  # fmt: skip
    return tickets


class Killed(BaseException):
    """What stops a run from outside."""


def killed_run(folder, after, names=NAMES):
    """A run that is killed after so many losses."""
    calls = []

    def failing(model, batch):
        calls.append(None)
        if len(calls) > after:
            raise Killed
        return loss(model, batch)

    try:
        run(folder, names, loss=failing)
    except Killed:
        return
    raise AssertionError("the run was not killed")


def many_tickets(folder, count, rounds=6, layers=6):
    """Tickets of families, hand-made, with a history as `discover` writes it."""
    generator = torch.Generator().manual_seed(0)
    shapes = {f"blocks.{j}.conv.weight": (10, 20) for j in range(layers)}
    size = 200 * layers
    family = torch.rand(5, size, generator=generator)
    scores = torch.stack(
        [family[k % 5] + torch.rand(size, generator=generator) for k in range(count)]
    )
    names = [f"customer {k:03d}" for k in range(count)]
    history = []
    for round in range(1, rounds + 1):
        kept = round_count(size, round)
        for k, name in enumerate(names):
            history.append(
                {
                    "round": round, "group": name, "asked": 1 - kept / size,
                    "achieved": 1 - kept / size, "kept": kept, "loss": 0.3 + 0.001 * k,
                    "metric": 0.9 - 0.0001 * k * round, "at_floor": [], "left": False,
                    "trained_at": 1 - round_count(size, round - 1) / size,
                    "similarity": 0.5 - 0.01 * round, "excess": 0.1 + 0.001 * k, "alarm": None,
                }
            )  # fmt: skip
    masks = torch.zeros(count, size, dtype=torch.bool)
    masks.scatter_(1, scores.topk(round_count(size, rounds), dim=1).indices, True)
    parts = [dict(zip(shapes, row.reshape(layers, 10, 20), strict=True)) for row in masks]
    tickets = TicketSet(
        [Ticket(name, part) for name, part in zip(names, parts, strict=True)], history=history
    )
    tickets.save(RunFolder(folder, "discover").tickets)
    return tickets


def round_files(folder, rows, names, left=()):
    """Files of rounds and a log, hand-made, as an unfinished `discover` leaves them."""
    files = RunFolder(folder, "discover")
    files.open({"groups": {"names": list(names)}})
    for round, name in rows:
        row = {"round": round, "group": name, "achieved": 1 - 0.8**round, "kept": 9, "loss": 0.5}
        mask = torch.arange(10) >= 2 * round
        tickets = TicketSet([Ticket(name, {"w": mask})], history=[row])
        tickets.save(files.round_ticket(round, names.index(name)))
        gone = {"alarm": None, "left": (round, name) in left}
        files.log("compared", round=round, group=name, **gone)


def round_count(size, round):
    return int(size * 0.7**round)


class Node:
    """An element of the page."""

    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children, self.texts = [], []

    def all(self, tag):
        found = [child for child in self.children if child.tag == tag]
        return found + [deep for child in self.children for deep in child.all(tag)]

    def every(self):
        yield self
        for child in self.children:
            yield from child.every()

    @property
    def text(self):
        return "".join(t if isinstance(t, str) else t.text for t in self.texts)


class Page(HTMLParser):
    """A page as a tree; fails where a tag is not closed as it was opened."""

    VOID = ("meta", "input", "br", "link", "img")

    def __init__(self, content):
        super().__init__()
        self.root = self._open = Node("", {}, None)
        self.doctype = None
        self.feed(content)
        self.close()
        assert self._open is self.root, f"<{self._open.tag}> is not closed"

    def handle_decl(self, decl):
        self.doctype = decl

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {attrs}"
        node = Node(tag, dict(attrs), self._open)
        self._open.children.append(node)
        self._open.texts.append(node)
        if tag not in self.VOID:
            self._open = node

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self._open.tag == tag, f"</{tag}> closes <{self._open.tag}>"
        self._open = self._open.parent

    def handle_data(self, data):
        self._open.texts.append(data)

    def with_id(self, key):
        (found,) = [node for node in self.root.every() if node.attributes.get("id") == key]
        return found

    def has_id(self, key):
        return any(node.attributes.get("id") == key for node in self.root.every())

    def table(self, key):
        """Headers, and rows of text with plain spaces."""
        table = self.with_id(f"{key}-table")
        headers = [plain(cell.text) for cell in table.all("thead")[0].all("th")]
        rows = [
            [plain(cell.text) for cell in row.children] for row in table.all("tbody")[0].all("tr")
        ]
        return headers, rows


def plain(text):
    return re.sub(r"\s+", " ", text).strip().replace("\N{MINUS SIGN}", "-")


def page_of(path):
    return Page(Path(path).read_text(encoding="utf-8"))


def cells(page, key, column):
    """One column of a table."""
    headers, rows = page.table(key)
    return [row[headers.index(column)] for row in rows]


def same_tickets(first, second):
    assert first.names == second.names
    for name in first:
        for parameter, mask in first[name].masks.items():
            assert torch.equal(mask, second[name].masks[parameter]), (name, parameter)


def snapshot(folder):
    """Every file with its bytes and its time of change, and every folder."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        if path.is_file()
        else path.stat().st_mtime_ns
        for path in sorted(Path(folder).rglob("*"))
    }
