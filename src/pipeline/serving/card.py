"""Render the model card as an HTML page with embedded pictures."""

import base64
import html
import re
from importlib.resources import files
from pathlib import Path
from string import Template

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def page(path: Path, name: str) -> str:
    """Return the card at `path` as HTML, without its front matter.

    HTML in the card is shown as text. Its pictures are embedded if they are PNG files below its folder.
    """
    from markdown_it import MarkdownIt

    text = re.sub(r"\A---\n.*?\n---\n", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    folder = path.parent.resolve()

    def inline(found: re.Match[str]) -> str:
        picture = (folder / html.unescape(found[1])).resolve()
        if picture.suffix != ".png" or not picture.is_relative_to(folder) or not picture.is_file():
            return 'src=""'
        return f'src="data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"'

    whole = Template(files("pipeline.serving").joinpath("card.html").read_text(encoding="utf-8"))
    return whole.substitute(name=html.escape(name), body=re.sub(r'src="([^"]*)"', inline, body))
