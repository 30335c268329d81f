"""The cells that must run before some cells of a notebook can."""

from barlow_edu.publishing.notebook import names, tags


def needed(notebook, wanted):
    """Ids of the code cells that must run for the cells with the ids ``wanted``, in order, those included.

    Follows names backwards from cell to cell; cells tagged ``setup`` always belong to it.
    """
    wanted, wanted_names, ids = set(wanted), set(), []
    for cell in reversed([c for c in notebook.cells if c.cell_type == "code"]):
        defined, used = names(cell.source)
        if cell.id in wanted or "setup" in tags(cell) or defined & wanted_names:
            wanted_names = (wanted_names - defined) | used
            ids.insert(0, cell.id)
    return ids
