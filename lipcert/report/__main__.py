"""``python -m lipcert.report``: write the published schemas anew, after a change of `lipcert.results`."""

from pathlib import Path

from lipcert.report.json import write_schemas

if __name__ == "__main__":
    write_schemas(Path(__file__).parent / "schemas")
