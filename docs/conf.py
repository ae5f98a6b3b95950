"""The site: `make docs` builds it into build/docs, without a warning."""

import inspect

import tfmtl

project = "tfmtl"
author = "The tfmtl authors"
version = release = tfmtl.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["conf.py"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # Keras writes Markdown
autodoc_typehints = "none"  # docstrings say what an argument is, and its shape
autodoc_default_options = {"show-inheritance": True, "no-value": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Call", "params_style")]

html_theme = "furo"
html_title = f"tfmtl {version}"
html_static_path: list[str] = []


def setup(app):
    """Keras' layers have a `__new__(*args, **kwargs)`, which says nothing: show `__init__`'s."""

    def signature(app, what, name, obj, options, arguments, returned):
        if what != "class" or not inspect.isclass(obj) or "__init__" not in vars(obj):
            return None
        found = inspect.signature(obj.__init__)
        rest = [p.replace(annotation=p.empty) for p in list(found.parameters.values())[1:]]
        return str(found.replace(parameters=rest, return_annotation=found.empty)), None

    app.connect("autodoc-process-signature", signature)
