"""The wheel carries the notebooks as students get them: exercises open, no solutions, nothing for teachers alone."""

import shutil
import sys
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StudentNotebooks(BuildHookInterface):
    """Puts the student build of ``notebooks/`` into the wheel as ``barlow_edu/_notebooks``."""

    def initialize(self, version, build_data):
        """Called before the wheel is written; an editable installation reads the notebooks of the clone."""
        self.folder = Path(tempfile.mkdtemp(prefix="barlow_edu_wheel_"))
        if version != "editable":
            sys.path.insert(0, self.root)
            from barlow_edu.publishing.versions import build

            build("student", Path(self.root) / "notebooks", self.folder)
            (self.folder / "README.md").unlink()  # ``course student`` writes it anew
            build_data["force_include"][str(self.folder)] = "barlow_edu/_notebooks"

    def finalize(self, version, build_data, artifact_path):
        """Called when the wheel is there."""
        shutil.rmtree(self.folder)
