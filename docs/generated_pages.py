"""mkdocs hook: the pages that are made from the sources, so that nobody keeps them up by hand.

Method pages are the cards beside the methods, `api.md` is made from `whit.__all__`, and `cli.md`
from the command line's own help.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
METHODS = ROOT / "src" / "whit" / "methods"
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the cards into the navigation, one section for each family."""
    section: list[object] = [{"Overview": "methods/index.md"}]
    families: dict[str, list[dict[str, str]]] = {}
    for card in cards():
        if card.parent == METHODS:
            section.append({title(card): page_path(card)})
            continue
        family = card.parent.name.replace("_", " ")
        families.setdefault(family, []).append({title(card): page_path(card)})
    section.extend({name: pages} for name, pages in families.items())
    config.nav = [{"Methods": section} if "Methods" in entry else entry for entry in config.nav]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to what mkdocs builds."""
    pages = {page_path(card): card_page(card) for card in cards()}
    pages |= {"methods/index.md": overview_page(), "api.md": api_page(), "cli.md": cli_page()}
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def cards() -> list[Path]:
    """Find the cards: a card lies beside the method of the same name."""
    return [card for card in sorted(METHODS.rglob("*.md")) if card.with_suffix(".py").exists()]


def page_path(card: Path) -> str:
    """Address of a card in the built site."""
    return f"methods/{card.relative_to(METHODS).as_posix()}"


def title(card: Path) -> str:
    """The first heading of a card, else the name of the method."""
    heading = re.search(r"^# +(.+)$", card.read_text(), re.MULTILINE)
    return heading.group(1).strip() if heading else card.stem


def front_matter(card: Path) -> dict[str, str]:
    """The `key: value` lines at the top of a card."""
    found = FRONT_MATTER.match(card.read_text())
    lines = found.group(0).splitlines()[1:-1] if found else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def card_page(card: Path) -> str:
    """A card as a page: its front matter becomes a table, its source is documented below."""
    body = FRONT_MATTER.sub("", card.read_text()).lstrip()
    if not body.startswith("# "):
        body = f"# {card.stem}\n\n{body}"
    first, _, rest = body.partition("\n")
    rows = "".join(f"| {key} | {value} |\n" for key, value in front_matter(card).items())
    table = f"\n| | |\n|---|---|\n{rows}\n" if rows else "\n"
    module = ".".join(["whit", *card.relative_to(METHODS.parent).with_suffix("").parts])
    return f"{first}\n{table}{rest}\n\n## Source\n\n::: {module}\n"


def overview_page() -> str:
    """One line for each method."""
    lines = ["# Methods", "", "One file, one test and one card for each.", ""]
    if cards():
        lines += ["| Method | Family | Paper |", "|---|---|---|"]
    for card in cards():
        link = card.relative_to(METHODS).as_posix()
        paper = front_matter(card).get("paper", "").replace("|", "\\|")
        family = "" if card.parent == METHODS else card.parent.name
        lines.append(f"| [{title(card)}]({link}) | {family} | {paper} |")
    return "\n".join([*lines, ""])


def api_page() -> str:
    """Every public name, documented where it is defined."""
    import whit

    homes = sorted((name, home) for name, home in whit._HOME.items())
    head = "# Python interface\n\n`import whit` costs no torch: names are imported on first use.\n"
    names = "\n".join(f"::: {home}.{name}\n" for name, home in homes)
    return f"{head}\n{names}\n## Without torch\n\n::: whit.runtime\n"


def cli_page() -> str:
    """The help texts of the command line."""
    import typer
    from typer.cli import get_docs_for_click

    from whit.cli import app as module

    app = next(value for value in vars(module).values() if isinstance(value, typer.Typer))
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="whit")
    return get_docs_for_click(obj=command, ctx=context, name="whit", title="Command line")
