from __future__ import annotations

import subprocess
import sys


def test_the_server_s_modules_start_no_thread():
    """NumPy starts threads when imported; one that does not block SIGTERM would end the process by it."""
    code = (
        "import sys, trocar.runtime.server.cli, trocar.runtime.server.app\n"
        "assert 'numpy' not in sys.modules, sorted(m for m in sys.modules if m.startswith('trocar'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
