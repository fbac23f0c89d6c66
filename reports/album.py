"""The figures of a page and its template."""

from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from reports import figures

MOST_SVG = 2_000_000  # characters of all figures in the page; the others are files only
WIDE_INCHES = 7.0


class Album:
    """The figures of a page: each a file as SVG and PNG, and in the page itself as long as there is room."""

    def __init__(self, folder: Path):
        self.folder, self.room, self.names = folder, MOST_SVG, []

    def add(self, figure: Figure, name: str, title: str, about: str = "") -> dict[str, object]:
        """Save a figure as `name`; give what the macro `picture` shows. A wide one scrolls on a phone, in its own box."""
        wide = figure.get_figwidth() > WIDE_INCHES
        svg = figures.save(figure, self.folder, name)
        svg = svg if len(svg) <= self.room else ""
        self.room -= len(svg)
        self.names.append(name)
        return {"name": name, "title": title, "about": about, "wide": wide, "svg": svg}


def template(name: str) -> jinja2.Template:
    """A file of this room, in which what is filled in is escaped and must be there."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
    )  # fmt: skip
    return environment.get_template(name)
