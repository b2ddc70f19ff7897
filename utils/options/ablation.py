"""The switches of --ablation, as their text says; what they change is found where the models are known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from utils.errors import ConfigError

DESIGNS = ("factorial", "one-at-a-time", "cumulative")
NAME = re.compile(r"[^\W_][\w .-]{0,29}")  # a part of file names
SETTING = re.compile(r"(?P<target>[A-Za-z_][\w.]*(?:@\w+=[^.=]+)?\.[A-Za-z_]\w*)=(?P<value>.+)")
EXAMPLE = "write --ablation zeros:AKConv.padding=zeros slow:hyp.offset_lr=0.01 neck:my-neck.yaml"


@dataclass(frozen=True, kw_only=True)
class Switch:
    """Something that a model has or has not."""

    name: str
    values: tuple[tuple[str, str], ...] = ()  # targets as of --sweep, each with its value
    yamls: tuple[str, ...] = ()  # model yamls: what they have other than the base is switched on

    @property
    def slug(self) -> str:
        """The name as a part of a model's label."""
        return self.name.replace(" ", "-")


def parse_switches(words: Sequence[str], *, need_settings: bool) -> list[Switch]:
    """Parse `NAME:SETTING;SETTING...`; a setting is `Module.keyword=value`, `hyp.name=value`, or a model yaml.

    A ConfigError is raised if a name is missing, invalid or used twice, or a setting is wrong or, unless it may be,
    missing.
    """
    switches: list[Switch] = []
    for word in words:
        name, _, text = word.partition(":")
        name = name.strip()
        settings = [setting.strip() for setting in text.split(";") if setting.strip()]
        if not NAME.fullmatch(name) or (need_settings and not settings):
            raise ConfigError("--ablation", f"{word!r} is not NAME:SETTING", fix=EXAMPLE)
        matches = {setting: SETTING.fullmatch(setting) for setting in settings}
        yamls = tuple(setting for setting, match in matches.items() if match is None)
        for wrong in (text for text in yamls if not text.lower().endswith((".yaml", ".yml"))):
            what = f"{name}: {wrong!r} is neither Module.keyword=value nor a model yaml"
            raise ConfigError("--ablation", what, fix=EXAMPLE)
        values = tuple((match["target"], match["value"]) for match in matches.values() if match)
        switch = Switch(name=name, values=values, yamls=yamls)
        if switch.slug.lower() in [other.slug.lower() for other in switches]:
            raise ConfigError("--ablation", f"has two switches named {name}", fix="rename one")
        switches.append(switch)
    return switches
