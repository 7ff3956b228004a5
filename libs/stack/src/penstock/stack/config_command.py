"""`python -m penstock.stack config check | schema`: the configuration file, before it is used."""

from __future__ import annotations

import argparse
import json
import sys

from penstock.service.program import USAGE_ERROR
from penstock.stack.config_check import check_file
from penstock.stack.config_schema import schema_text


def run_config(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0, or 2 where the file has a fault."""
    if arguments.config_command == "schema":
        sys.stdout.write(schema_text())
        return 0
    problems = check_file(arguments.file, arguments.home)
    if arguments.json:
        faults = [problem.as_json() for problem in problems]
        print(json.dumps({"file": str(arguments.file), "faults": faults}))
        return USAGE_ERROR if problems else 0
    for problem in problems:
        print(problem.line(arguments.file), file=sys.stderr)
    if not problems:
        print(f"{arguments.file}: no fault")
    return USAGE_ERROR if problems else 0
