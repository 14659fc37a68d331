"""Several networks as paths through shared modules.

A student is a chain of modules. Students that have a module in common hold the same object, so it
is trained by all of them and counts once. Where two students begin with the same modules, their
common beginning is computed once.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from whit.errors import NotApplicable, SpecError

Route = tuple[int, ...]
NORMS = (nn.modules.batchnorm._BatchNorm,)
WIDE = 2  # axes from which a parameter is a weight and not a bias or a norm's scale


class ModularNetwork(nn.Module):
    """Runs all students on the same inputs.

    Args:
        students: chains; the same module object in several of them is shared.

    Attributes:
        active: numbers of the students that run while training; None for all. In evaluation mode
            all run.
        calls: how many modules the last forward call ran.

    Shapes: inputs [batch, ...] -> [students, batch, ...] (of the active ones, in their order).

    Raises:
        SpecError: there is no student, or one is no plain chain.
    """

    def __init__(self, students: Sequence[nn.Sequential]) -> None:
        """Hold the students."""
        super().__init__()
        if not students or not all(is_chain(s) for s in students):
            raise SpecError(
                "ModularNetwork was given "
                + (", ".join(type(s).__name__ for s in students) or "no students")
                + "; expected one torch.nn.Sequential or more."
            )
        self.students = nn.ModuleList(students)
        self.active: tuple[int, ...] | None = None
        self.calls = 0

    @classmethod
    def of_stages(
        cls, stages: Sequence[Sequence[nn.Module]], routes: Sequence[Route]
    ) -> ModularNetwork:
        """Return the students that go through your own stages along these routes.

        Args:
            stages: for each stage its interchangeable modules, of the same shapes.
            routes: one a student; entry l is the number of its module in stage l.

        Raises:
            SpecError: a route has another length or an unknown number, or no route takes a module.
        """
        sizes = [len(modules) for modules in stages]
        check_routes(sizes, routes)
        return cls(
            [nn.Sequential(*[m[r] for m, r in zip(stages, route, strict=True)]) for route in routes]
        )

    def __len__(self) -> int:
        return len(self.students)

    def running(self) -> tuple[int, ...]:
        """Return the numbers of the students that a forward call would run now."""
        if self.training and self.active is not None:
            return self.active
        return tuple(range(len(self)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the students' outputs, stacked."""
        # By the modules passed so far: two students meet here as long as they share all of them.
        made: dict[tuple[int, ...], Tensor] = {}
        outputs = []
        for k in self.running():
            passed: tuple[int, ...] = ()
            value = x
            for module in self.students[k].children():
                passed = (*passed, id(module))
                if passed not in made:
                    made[passed] = module(value)
                value = made[passed]
            outputs.append(value)
        self.calls = len(made)
        return torch.stack(outputs)

    def student(self, number: int) -> nn.Sequential:
        """Return a copy of one student that shares nothing, an ordinary `nn.Sequential`."""
        chosen = self.students[number]
        assert isinstance(chosen, nn.Sequential)
        return copy.deepcopy(chosen)


def is_chain(model: nn.Module) -> bool:
    """Say whether a model runs its top-level children one after the other, and nothing else."""
    return isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward


def cut_into_stages(model: nn.Module, stages: int) -> list[list[str]]:
    """Return the names of a chain's top-level children, stage by stage, the head last.

    A block begins at each child that has weights; what has none (activations, pooling) and norms
    belong to the block before. The last block is the head, and the others are dealt evenly over
    the stages, the later ones larger.

    Args:
        model: an `nn.Sequential`.
        stages: at most so many before the head, >= 1; fewer where there are fewer blocks.

    Raises:
        NotApplicable: the model is no chain, or it has no block before its head.
    """
    if not is_chain(model):
        raise NotApplicable(
            f"The model is a {type(model).__name__}, whose forward call cannot be cut into stages; "
            "expected a torch.nn.Sequential, which runs its children one after the other. Make it "
            "one, or give stages of your own to ModularNetwork.of_stages."
        )
    blocks: list[list[str]] = []
    waiting: list[str] = []
    for name, child in model.named_children():
        if any(p.dim() >= WIDE for p in child.parameters()):
            blocks.append([*waiting, name])
            waiting = []
        elif blocks:
            blocks[-1].append(name)
        else:
            waiting.append(name)
    if len(blocks) < 2:
        raise NotApplicable(
            f"The model has {len(blocks)} children with weights; expected two or more: the last is "
            "each student's own head, and those before it are shared."
        )
    body, head = blocks[:-1], blocks[-1]
    count = min(stages, len(body))
    ends = [len(body) * (number + 1) // count for number in range(count)]
    parts = [body[begin:end] for begin, end in pairwise([0, *ends])]
    return [*(sum(part, []) for part in parts), head]


def share_modules(
    models: Sequence[nn.Sequential],
    names: Sequence[Sequence[str]],
    routes: Sequence[Route],
    own_norms: bool = False,
) -> ModularNetwork:
    """Let alike networks share their children along routes, in place.

    Module m of a stage is that of network m; what follows the last stage stays each network's own.

    Args:
        models: one a student, built alike.
        names: children of each stage, as `cut_into_stages` gives them (without the head).
        routes: one a student; entry l is the number of its module in stage l.
        own_norms: batch norms belong to (module, student): the weights of a module are shared, its
            norms are not, and nothing behind a norm is computed in common.

    Raises:
        SpecError: the routes do not fit; see `check_routes`.
    """
    sizes = [max(route[stage] for route in routes) + 1 for stage in range(len(names))]
    check_routes(sizes, routes)
    pool = [dict(model.named_children()) for model in models]
    for k, (model, route) in enumerate(zip(models, routes, strict=True)):
        for stage, module in zip(names, route, strict=True):
            for name in stage:
                shared = pool[module][name]
                own = pool[k][name]
                model.add_module(name, _with_norms_of(own, shared) if own_norms else shared)
    return ModularNetwork(models)


def _with_norms_of(own: nn.Module, shared: nn.Module) -> nn.Module:
    """Return the shared module with the own one's batch norms; itself where it has none."""
    if shared is own or not any(isinstance(m, NORMS) for m in shared.modules()):
        return shared
    if isinstance(shared, NORMS):
        return own
    # Everything but the norms keeps its identity in the copy.
    norms = {id(m): n for m, n in zip(shared.modules(), own.modules(), strict=True)
             if isinstance(m, NORMS)}  # fmt: skip
    kept = {id(t): t for t in (*shared.parameters(), *shared.buffers())}
    return copy.deepcopy(shared, {**kept, **norms})


def draw_routes(sizes: Sequence[int], students: int, generator: torch.Generator) -> list[Route]:
    """Draw one route a student; every module is used, and no two routes are alike while possible.

    The first routes to be drawn place each module of each stage once; the others are uniform
    among the routes that are not taken; then the students are put in a random order.

    Args:
        sizes: modules of each stage, 1 or more each.
        students: how many, at least the largest size.
        generator: makes the draw repeatable.

    Raises:
        SpecError: there are fewer students than modules, so that some would stay unused.
    """
    most = max(sizes)
    if students < most:
        raise SpecError(
            f"{students} students were asked for with {most} modules a stage, so some modules would"
            " be used by none. Use at least as many students as modules."
        )

    def drawn(size: int) -> int:
        return int(torch.randint(size, (1,), generator=generator))

    columns = []
    for size in sizes:
        placed = torch.randperm(size, generator=generator).tolist()
        columns.append([*placed, *(drawn(size) for _ in range(most - size))])
    routes: list[Route] = list(zip(*columns, strict=True))
    while len(routes) < students:
        route = tuple(drawn(size) for size in sizes)
        if route not in routes or len(set(routes)) == prod(sizes):
            routes.append(route)
    order = torch.randperm(students, generator=generator).tolist()
    return [routes[k] for k in order]


def check_routes(sizes: Sequence[int], routes: Sequence[Route]) -> None:
    """Refuse routes that do not fit the stages.

    Args:
        sizes: modules of each stage.
        routes: one a student.

    Raises:
        SpecError: a route has another length or an unknown number, or no route takes a module.
    """
    for route in routes:
        fits = len(route) == len(sizes)
        if not fits or not all(0 <= r < size for r, size in zip(route, sizes, strict=True)):
            raise SpecError(
                f"The route {tuple(route)} was given for stages of {list(sizes)} modules; expected "
                "one number a stage, counted from 0."
            )
    for stage, size in enumerate(sizes):
        unused = sorted(set(range(size)) - {route[stage] for route in routes})
        if unused:
            raise SpecError(
                f"No route takes module {unused[0]} of stage {stage}; it would never be trained. "
                "Leave it out, or send a student through it."
            )
