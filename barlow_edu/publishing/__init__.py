"""From the notebooks to a class: student and instructor versions, copies, slides, the website."""
