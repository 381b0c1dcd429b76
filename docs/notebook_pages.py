"""Makes a page of the site of each notebook: its text, its code, and what the code printed.

mkdocs.yml names this file among its hooks. The notebook itself stays beside the page.
"""

import json
from pathlib import Path
from typing import Any


def as_markdown(notebook: dict[str, Any]) -> str:
    """The cells of a notebook as Markdown; of the outputs only text."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
        shown = "".join(map(_text, cell.get("outputs", []))).rstrip("\n")
        if shown:
            parts.append(f"```text\n{shown}\n```")
    return "\n\n".join(parts) + "\n"


def _text(output: dict[str, Any]) -> str:
    lines = output["text"] if "text" in output else output.get("data", {}).get("text/plain", "")
    return "".join(lines)


def on_files(files: Any, config: Any) -> Any:
    """Adds NAME.md for every NAME.ipynb; called by mkdocs."""
    from mkdocs.structure.files import File

    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        notebook = json.loads(Path(file.abs_src_path).read_text(encoding="utf-8"))
        name = file.src_uri.removesuffix(".ipynb") + ".md"
        files.append(File.generated(config, name, content=as_markdown(notebook)))
    return files


def on_page_markdown(markdown: str, **given: Any) -> str:
    """Lets links to notebooks lead to their pages; called by mkdocs."""
    return markdown.replace(".ipynb)", ".md)")
