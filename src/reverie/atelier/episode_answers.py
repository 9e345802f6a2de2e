"""Answers to in-context episodes in words: does a caption name the right thing with the right detail?"""

from __future__ import annotations

from .episode_pictures import detail_of
from .episodes import Episode, theme_of
from .language_parse import parse


def said(caption: str, episode: Episode) -> tuple[bool, bool]:
    """(object right, detail right) of a caption. What the grammar cannot read, or several things, is wrong."""
    try:
        demand = parse(caption)
    except ValueError:
        return False, False
    if len(demand.include) != 1:
        return False, False
    clause, theme, wanted = demand.include[0], theme_of(episode.task), episode.answer
    told = getattr(demand if theme in ("background", "style") else clause, theme)
    return clause.kind == wanted.things[0].kind and clause.count == 1, told == detail_of(wanted, theme)
