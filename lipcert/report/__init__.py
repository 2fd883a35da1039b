"""The faces of a result: JSON with published schemas, pages, Markdown, JUnit, tables of samples, figures."""
