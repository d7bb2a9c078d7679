"""The stub of the extension says what the built module holds."""

import subprocess
import sys


def test_the_stub_is_that_of_the_built_module():
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "langptune_rs._core"], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
