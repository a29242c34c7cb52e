"""Documents whose build is a span, and each document one below it, read in two processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from spans import span

project = "Documents"
html_theme = "basic"
html_last_updated_fmt = None
building = span("build")


def words(name, doctree):
    """Count the words of the document ``name``, in a span below its own."""
    with span(f"{name}/words", name):
        return len(doctree.astext().split())


def read(app, doctree):
    """Note how many words the document has, as counted in a pool."""
    name = app.env.docname
    with span(name, "build"), ThreadPoolExecutor(1) as pool:
        app.env.metadata[name]["words"] = pool.submit(words, name, doctree).result()


def in_page(app, name, template, context, doctree):
    """Write the number of words into the page."""
    count = app.env.metadata.get(name, {}).get("words")
    if count is not None:
        context["body"] += f"<p>{count} words</p>"


def setup(app):
    """Connect to the events of the build."""
    building.__enter__()
    app.connect("doctree-read", read)
    app.connect("html-page-context", in_page)
    app.connect("build-finished", lambda *_: building.__exit__(None, None, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
