"""Growth: the group reflects as its first network did, and takes one more specialist in.

Shapes: as in `evolution`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from whit.procedures.reflection.answers import Answers
from whit.procedures.reflection.calibration import margins, standard_error
from whit.procedures.reflection.evolution import (
    Members,
    chances_of,
    chosen_strategies,
    right_on_r2,
    specialist,
)
from whit.procedures.reflection.found_situations import (
    ReflectionOptions,
    Situations,
    find_situations,
    unsure_of,
)
from whit.procedures.reflection.specialists import specialist_weights
from whit.procedures.reflection.strategies import Strategy, routed_chances

SMALLEST = 1e-12

Choice = tuple[Situations, tuple[Strategy, ...]]


def group_answers(
    answers: Sequence[Answers], found: Situations, strategies: Sequence[Strategy]
) -> Answers:
    """Return what the group says, as scores log p, with member 0's features.

    Args:
        answers: of every member, on the same samples.
        found: says which situation a sample is in.
        strategies: members that answer, for each situation.
    """
    chances = routed_chances(chances_of(answers), found.of(answers[0]), strategies)
    return Answers(chances.clamp_min(SMALLEST).log(), answers[0].features)


def grow(
    members: Members,
    choice: Choice,
    class_names: tuple[str, ...],
    options: ReflectionOptions,
    generator: torch.Generator,
) -> Choice:
    """Take specialists in, one a round, until R2 gains no more than one standard error.

    Each round: temperature, confusion and one situation more are those of the group's answers on
    R1; the situation that the group is least sure of gets a specialist, drawn by the group's
    doubts; strategies are chosen anew on R2 for all situations. Which situation an input is in
    stays a matter of member 0's scores, and what is familiar to it stays so.

    Args:
        members: is added to.
        choice: situations and strategies so far.
        class_names: in the order of the classes.
        options: of the group; growth ends at `options.most` members.
        generator: of augmentation and batch norm samples.

    Returns:
        Situations and strategies of the last round that gained enough, to which `members` is put
        back.
    """
    held = len(members.parts.choose)
    before = right_on_r2(members, *choice) / held
    while len(members) < options.most:
        found = _reflected(members, choice, class_names, options, generator.initial_seed())
        if found is None:
            break
        members.add(_next_specialist(members, choice, found, options, generator))
        after = (found, chosen_strategies(members, found))
        right = right_on_r2(members, *after) / held
        if right <= before + standard_error(before, held):
            members.drop_last()
            break
        choice, before = after, right
    return choice


def _reflected(
    members: Members,
    choice: Choice,
    class_names: tuple[str, ...],
    options: ReflectionOptions,
    seed: int,
) -> Situations | None:
    """Find one situation more than before; None where there is nothing left to tell apart."""
    wider = replace(options, groups=1 + len(choice[0].groups))
    answers = group_answers(members.reflect, *choice)
    target = members.parts.reflect.target.cpu()
    doubtful = int(unsure_of(answers, target, options.precision)[0].sum())
    enough = doubtful if options.situations == "kmeans" else len(class_names)
    if doubtful == 0 or enough < wider.groups:
        return None
    found = find_situations(answers, target, class_names, wider, seed)
    return found.decided_like(choice[0])


def _next_specialist(
    members: Members,
    choice: Choice,
    found: Situations,
    options: ReflectionOptions,
    generator: torch.Generator,
) -> torch.nn.Module:
    reflected = group_answers(members.reflect, *choice)
    doubts = 1 - margins(reflected.chances(found.temperature))
    least_sure = int((doubts[:, None] * found.belonging(reflected)).sum(0).argmax())
    fit = members.parts.fit
    # Every member is asked of the same augmented samples.
    start = generator.get_state()
    answers = []
    for network in members.networks:
        generator.set_state(start)
        answers.append(members.asked(network, fit, generator))
    seen = group_answers(answers, *choice)
    weights = specialist_weights(
        1 - margins(seen.chances(found.temperature)),
        found.belonging(seen)[:, least_sure],
        fit.target.cpu(),
        found.groups[least_sure],
        options.eps,
    )
    return specialist(members, weights, options, generator)
