"""Runs by name: recipes, their variants, and what a command line changes. Standard library only."""

import importlib
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pipeline.recipes
from pipeline.config import Run, Settings, UserError, digest, variant
from pipeline.published import FigureTable, Headline, PublishedReaders, PublishedTable

BASE_SYSTEM = "quickstart"
"""burduja2020 at a size that two cores manage."""
SMALL = "small"
"""The variant of another system that is so."""


@dataclass(frozen=True)
class Variant:
    """How the run `<recipe>-<variant>` differs from its recipe, or from the recipe's variant `of`."""

    changes: Mapping[str, Any]
    of: str = ""
    folds: tuple[int, ...] = ()
    """Trained when none are asked for; empty: those of what it differs from."""


def recipe_names() -> list[str]:
    """Return the names of all recipes, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(pipeline.recipes.__path__))


def variant_names(recipe_name: str) -> list[str]:
    """Return the names of a recipe's variants, in its own order; `<recipe>-<variant>` is a run."""
    return list(_module(recipe_name).VARIANTS)


def recipe(name: str) -> Run:
    """Return the recipe of that name, or `<recipe>-<variant>`; raises UserError with the known names."""
    base = base_recipe(name)
    return _variant_run(base, name[len(base) + 1 :])


def base_recipe(name: str) -> str:
    """Return the recipe that a name or the name of its variant belongs to; raises UserError with the known names."""
    bases = [known for known in recipe_names() if name == known or name.startswith(f"{known}-")]
    if not bases:
        raise UserError(f"RECIPE={name}: no such recipe; recipes are {', '.join(recipe_names())}")
    base = max(bases, key=len)
    if name != base and name[len(base) + 1 :] not in variant_names(base):
        raise UserError(
            f"RECIPE={name}: no such variant of {base}; its variants are {', '.join(variant_names(base)) or 'none'}"
        )
    return base


def _variant_run(recipe_name: str, name: str) -> Run:
    if not name:
        return _module(recipe_name).RECIPE
    own = _module(recipe_name).VARIANTS[name]
    parent = _variant_run(recipe_name, own.of)
    return Run(f"{recipe_name}-{name}", variant(parent.settings, **own.changes), (parent,))


def _module(recipe_name: str) -> Any:
    return importlib.import_module(f"pipeline.recipes.{recipe_name}")


def recipe_folds(name: str) -> tuple[int, ...]:
    """Return the folds that a recipe, or a variant of it, trains when none are asked for."""
    base = base_recipe(name)
    own = name[len(base) + 1 :]
    while own:
        chosen = _module(base).VARIANTS[own]
        if chosen.folds:
            return chosen.folds
        own = chosen.of
    return _module(base).FOLDS


def published_tables(recipe_name: str) -> tuple[PublishedTable, ...]:
    """Return the paper's tables whose rows a recipe's variants are."""
    return _module(recipe_name).TABLES


def figure_tables(name: str) -> tuple[FigureTable, ...]:
    """Return the paper's tables of several figures, of a recipe or of a variant's recipe."""
    return getattr(_module(base_recipe(name)), "FIGURES", ())


def headlines(name: str) -> tuple[Headline, ...]:
    """Return the figures that a recipe's system is known by, of a recipe or of a variant's recipe."""
    return getattr(_module(base_recipe(name)), "HEADLINES", ())


def figure_recipes(name: str) -> dict[str, str]:
    """Return by the variant that a table of figures names the recipe that stands for it beside `name`.

    Beside a variant such as `<recipe>-small`, it is `<recipe>-small-<variant>`, where there is one.
    """
    base = base_recipe(name)
    own, known = name[len(base) + 1 :], ("", *variant_names(base))
    wanted = dict.fromkeys(row.variant for table in figure_tables(name) for row in table.rows)
    named = {key: "-".join(part for part in (own, key) if part) for key in wanted}
    return {
        key: "-".join(part for part in (base, variant) if part) for key, variant in named.items() if variant in known
    }


def system_recipes() -> list[str]:
    """Return a recipe of each published system that two cores can train, the base system's first."""
    small = [f"{name}-{SMALL}" for name in recipe_names() if SMALL in variant_names(name)]
    return [BASE_SYSTEM, *small]


def published_readers(recipe_name: str) -> PublishedReaders | None:
    """Return the reader study of the paper of a recipe, or of a variant's recipe; None where it has none."""
    return getattr(_module(base_recipe(recipe_name)), "READER_TABLE", None)


def make_run(recipe_name: str, changes: dict[str, str] | None = None, name: str | None = None, seed: int = 0) -> Run:
    """Return the run of a recipe or variant, or one that stands beside it under a name of its own.

    `changes` (dotted field to text) make `<recipe>+<8 hex>`, or `name`; a seed other than 0 adds `-s<seed>`.
    Raises UserError for unknown recipes, fields, values, and for names that are taken or cannot be a folder's.
    """
    run = recipe(recipe_name)
    if changes:
        settings = variant(run.settings, **changes)
        run = _changed(run, changes, f"+{digest({key: _field_value(settings, key) for key in changes})}")
    if name:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
            raise UserError(f"NAME={name!r}: use letters, digits and . _ + - only, a letter or digit first")
        if name in _taken_names():
            raise UserError(f"NAME={name}: a recipe has that name; choose another")
        run = Run(name, run.settings, run.parents if changes else (run,))
    if seed:
        run = _changed(run, {"train.seed": seed}, f"-s{seed}")
    return run


def _changed(run: Run, changes: Mapping[str, Any], suffix: str) -> Run:
    """Return a run with changes. Its parents are the run itself, and the run's parents with the same changes.

    So a variant and its recipe still share what they share, where the same changes were made to both.
    """
    parents = tuple(_changed(parent, changes, suffix) for parent in run.parents)
    return Run(run.name + suffix, variant(run.settings, **changes), (run, *parents))


def _taken_names() -> set[str]:
    return {name if not own else f"{name}-{own}" for name in recipe_names() for own in ("", *variant_names(name))}


def _field_value(settings: Settings, dotted: str) -> Any:
    section, _, name = dotted.partition(".")
    return getattr(getattr(settings, section), name)
