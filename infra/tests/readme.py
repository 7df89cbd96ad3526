"""Writes the tables of inputs and outputs into the modules' READMEs, from their variables.tf and outputs.tf.

    readme.py [--check] MODULE...

With --check it changes nothing, and fails where a table is not up to date.
"""

import re
import sys
from pathlib import Path

BEGIN, END = "<!-- inputs and outputs -->", "<!-- end -->"


def blocks(path: Path, kind: str):
    """The blocks of a file that `terraform fmt` has formatted: name and attributes, each as it is written."""
    for name, body in re.findall(rf'^{kind} "(\w+)" {{\n(.*?)^}}', path.read_text(), re.M | re.S):
        attributes = re.findall(r"^  (\w+) += (.+?)(?=^  \w+ +=|^  validation|^$|\Z)", body, re.M | re.S)
        yield name, {attribute: " ".join(value.split()) for attribute, value in attributes}


def text(value: str) -> str:
    """A string as HCL writes it, as it reads in a table."""
    return value.strip('"').replace('\\"', '"').replace("|", "\\|")


def tables(module: Path) -> str:
    lines = ["## Inputs", "", "| name | what it is | type | default |", "|---|---|---|---|"]
    for name, variable in blocks(module / "variables.tf", "variable"):
        kind = "object" if "object(" in variable["type"] else variable["type"]
        kind = f"map of {kind}" if variable["type"].startswith("map(object") else kind
        default = f"`{variable['default']}`" if "default" in variable else "–"
        lines.append(f"| `{name}` | {text(variable['description'])} | {kind} | {default} |")
    lines += ["", "## Outputs", "", "| name | what it is |", "|---|---|"]
    for name, output in blocks(module / "outputs.tf", "output"):
        lines.append(f"| `{name}` | {text(output['description'])} |")
    return "\n".join(lines)


def main() -> int:
    check = "--check" in sys.argv
    stale = []
    for module in (Path(argument) for argument in sys.argv[1:] if argument != "--check"):
        readme = module / "README.md"
        before = readme.read_text()
        head, _, rest = before.partition(BEGIN)
        after = f"{head}{BEGIN}\n{tables(module)}\n{END}{rest.partition(END)[2]}"
        if after != before and check:
            stale.append(str(readme))
        elif after != before:
            readme.write_text(after)
    if stale:
        print(f"not up to date: {', '.join(stale)}; write them with `python3 tests/readme.py MODULE...`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
