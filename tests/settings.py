"""Settings beside one another."""

import dataclasses

from pipeline.config import Settings


def changed(one: Settings, other: Settings) -> set[str]:
    """Return the dotted names of the settings that differ."""
    return {
        f"{section.name}.{field.name}"
        for section in dataclasses.fields(one)
        for field in dataclasses.fields(getattr(one, section.name))
        if getattr(getattr(one, section.name), field.name) != getattr(getattr(other, section.name), field.name)
    }
