"""Pages of pictures and sounds that open from the file system."""
import html
from typing import Any, Sequence

STYLE = """
:root { --fg: #1c2530; --soft: #5c6873; --line: #dfe4ea; --bg: #f5f7f9;
        --card: #fff; --accent: #2563eb; }
@media (prefers-color-scheme: dark) {
  :root { --fg: #e3e8ee; --soft: #9aa7b4; --line: #37414d; --bg: #14191f;
          --card: #1d242c; --accent: #7aa2ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--fg);
       font: 16px/1.5 system-ui, 'Segoe UI', Roboto, sans-serif; }
main, header > div { max-width: 1180px; margin: 0 auto; padding: 0 20px; }
header { background: linear-gradient(120deg, #14325c, #7a2e6b);
         color: #fff; padding: 36px 0 30px; }
header h1 { margin: 0 0 6px; font-size: 30px; }
header p { margin: 0; max-width: 760px; opacity: .92; }
p.note { color: var(--soft); margin: 0 0 14px; max-width: 860px; }
.key { display: inline-block; width: 12px; height: 12px; margin: 0 5px 0 14px;
       border-radius: 3px; vertical-align: -1px; }
.key:first-child { margin-left: 0; }
footer { color: var(--soft); font-size: 13.5px; padding: 6px 0 40px; }
code { font-size: .92em; }
"""


def escape(value: Any) -> str:
    """Any value as text of a page or of an attribute.

    Args:
        value (Any): It is turned into a string; what is no Unicode text
            (half of a surrogate pair, of a file name that is no UTF-8)
            becomes a question mark.

    Returns:
        str: html.
    """
    text = str(value).encode('utf-8', 'replace').decode('utf-8')
    return html.escape(text)


def key(color: Sequence[int], text: str) -> str:
    """One entry of a legend.

    Args:
        color (Sequence[int]): RGB, 0..255.
        text (str): What the color stands for.

    Returns:
        str: html.
    """
    return (f'<span class="key" style="background: rgb{tuple(color)}"></span>'
            f'{escape(text)}')


def html_page(title: str, header: str, body: str, tool: str, footer: str = '',
              style: str = '') -> str:
    """A whole page.

    Args:
        title (str): Title of the window, plain text.
        header (str): What the colored bar on top shows, html.
        body (str): What follows, html.
        tool (str): Script that writes the page, named in the footer.
        footer (str): More for the footer, html. Defaults to ''.
        style (str): Style sheet, added to ``STYLE``. Defaults to ''.

    Returns:
        str: The document.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f'<meta name="generator" content="{tool}">'
        f'<title>{escape(title)}</title><style>{STYLE}{style}</style></head>'
        f'<body><header><div>{header}</div></header><main>{body}<footer>'
        f'Written by <code>{tool}</code>. {footer}</footer></main></body>'
        '</html>\n')
