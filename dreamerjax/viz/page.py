"""Builds self-contained HTML pages: charts as inline SVG, films and images as data URIs, and text from templates."""

import base64
import hashlib
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent
CHART_INCHES = (4.2, 2.4)  # of every chart: two fit next to each other on a desktop, one on a phone
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dreamerjax",
    "font.size": 9,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
}
MIME = {".mp4": "video/mp4", ".png": "image/png", ".jpg": "image/jpeg"}

# Matplotlib's colours -> CSS variables, which have lighter values in dark mode.
COLOURS = {
    "#000000": "currentColor",
    "#666666": "var(--muted)",
    "#1f77b4": "var(--c0)",
    "#ff7f0e": "var(--c1)",
    "#2ca02c": "var(--c2)",
    "#d62728": "var(--c3)",
    "#9467bd": "var(--c4)",
}


def chart(draw: Callable[[Axes], None], alt: str) -> Markup:
    """Draws a chart in the page's colours and font.

    Args:
        draw: draws into the axes.
        alt: a text alternative for screen readers.

    Returns:
        An SVG element without external references.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=CHART_INCHES, layout="constrained")
        draw(figure.subplots())
        return _svg(figure, alt)


class Chart(NamedTuple):
    """A chart with title and caption."""

    title: str
    svg: Markup
    caption: str = ""
    level: str = ""  # of the verdict in the caption: ok, warning or unclear


def data_uri(content: bytes, suffix: str) -> str:
    """A film or image as a data URI; empty without content.

    Args:
        content: of the file.
        suffix: of its name, one of `MIME`.
    """
    return f"data:{MIME[suffix]};base64,{base64.b64encode(content).decode()}" if content else ""


def render(template: str, content: Mapping[str, Any]) -> str:
    """Renders a template of this folder; every text that is not `Markup` is escaped.

    Raises:
        jinja2.TemplateError: the template uses a variable that the content does not define.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(content)


def _svg(figure: Figure, alt: str) -> Markup:
    """A figure as an SVG element: full width, in the page's font, with IDs that are unique in the page."""
    written = io.StringIO()
    FigureCanvasSVG(figure).print_svg(written, metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"]))
    svg = written.getvalue()
    opening = Markup('<svg class="chart" role="img" aria-label="{}" viewBox="{}">')
    viewed = re.search(r'viewBox="([^"]*)"', svg)
    assert viewed, "matplotlib always writes a viewBox"
    svg = svg[svg.index(">", svg.index("<svg ")) + 1 :]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg).replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(|href=")#([^)"]*)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    name = hashlib.sha256(alt.encode()).hexdigest()[:6]
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>c{name}-", svg)
    svg = re.sub("|".join(COLOURS), lambda found: COLOURS[found[0]], svg)
    return opening.format(alt, viewed[1]) + Markup(re.sub(r"\s*\n\s*", "\n", svg))
