"""The faces of a result: JSON with published schemas, a page, Markdown and JUnit."""
