"""The playground's modules without a page: in Node where there is one, else in a Chromium."""

import json
import shutil
import subprocess

import pytest
from watched import FLAGS, installed

from barlow_edu.teaching import playground

MODULES = ("worker", "page")  # between them they import all others


def run(code, given=None, module="worker"):
    """What ``code`` returns, as JSON tells it. It sees the modules by name, and ``given``."""
    whole = f"{playground.bundle(module)}\nconst given = {json.dumps(given)};\n"
    whole += f"return (async () => {{ {code} }})();"
    if shutil.which("node"):
        call = f"(async () => {{ {whole} }})().then((x) => console.log(JSON.stringify(x)))"
        done = subprocess.run(["node", "-"], input=call, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])
    return in_chromium(whole)


def in_chromium(whole):
    """The same in a page that is empty."""
    from playwright.sync_api import sync_playwright

    if not installed():
        pytest.skip("There is neither Node nor Chromium.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=installed(), args=FLAGS)
        value = browser.new_page().evaluate(f"() => {{ {whole} }}")
        browser.close()
    return value
