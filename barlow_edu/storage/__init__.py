"""Files, safely: run folders, checkpoints, image trees, downloads, streams."""
