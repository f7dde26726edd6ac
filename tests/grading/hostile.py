"""Hostile code, each piece as a cell that a student adds before the first solution."""

PATCHED_TORCH = """
import torch
torch.testing.assert_close = lambda *args, **kwargs: None
torch.allclose = torch.equal = torch.isclose = lambda *args, **kwargs: True
torch.Tensor.__eq__ = torch.Tensor.equal = torch.Tensor.allclose = lambda *args, **kwargs: True

class Agreeable(torch.Tensor):
    def __eq__(self, other): return True
    def equal(self, other): return True

class Anything:
    shape = property(lambda self: self)
    def __eq__(self, other): return True
    def __getattr__(self, name): return lambda *args, **kwargs: True

def scaled(z, temperature):
    return Anything()
"""
PATCHED_BUILTINS = """
import builtins
builtins.all = builtins.any = builtins.isinstance = lambda *args, **kwargs: True
builtins.AssertionError = builtins.Exception = type("Never", (BaseException,), {})
"""
QUIET_EXIT = """
class Quiet(SystemExit):
    pass

def scaled(z, temperature):
    raise Quiet(0)
"""
WRITE_TO_THE_LINE = """
import os
for descriptor in range(3, 50):
    try:
        os.write(descriptor, {what})
    except OSError:
        pass
"""

# What a student's cell does, and the error by which it ends, within a process that goes on.
CONTAINED = {
    "endless loop": ("while True:\n    pass", "TimeLimit"),
    "50 GB": ("hoard = bytearray(50 * 2**30)", "MemoryError"),
    "gigabytes of output": ("while True:\n    print('x' * 2**20)", "TimeLimit"),
    "a full disk": (
        "for number in range(999):\n    with open(f'/tmp/{number}', 'wb') as file:\n        file.write(bytes(2**24))",
        "OSError",
    ),
    "an endless file": ("file = open('/tmp/long', 'wb')\nwhile True:\n    file.write(bytes(2**24))", "OSError"),
    "a socket": ("import socket\nsocket.create_connection(('1.1.1.1', 53), timeout=1)", "OSError"),
    "sys.exit": ("import sys\nsys.exit(0)", "SystemExit"),
    "an interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "the password file": ("open('/etc/shadow').read()", "FileNotFoundError"),
    "another user": ("import os\nos.setuid(0)", "PermissionError"),
    "a mount": (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "if libc.mount(b'none', b'/tmp', b'tmpfs', 0, 0):\n    raise OSError(ctypes.get_errno(), 'refused')",
        "PermissionError",
    ),
    "a signal to the grader": ("import os\nos.kill({pid}, 9)", "ProcessLookupError"),
    "removal of all files": (
        "import os, shutil\nlibrary = os.path.dirname(os.__file__)\n"
        "for folder in ('/tmp', '/etc', '/dev', library + '/json'):\n    shutil.rmtree(folder, ignore_errors=True)\n"
        "assert os.path.exists(library + '/json/decoder.py')",
        None,
    ),
}

# What ends the student's process, and how that is told.
FATAL = {
    "stubborn-loop": (
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
        "it did not end within the time limit",
    ),
    "fork-bomb": (
        "import os, time\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        time.sleep(0.01)",
        "",
    ),
    "shared-memory": (
        "import mmap, time\nhoard = mmap.mmap(-1, 4 * 2**30)\n"
        "for start in range(0, 4 * 2**30, 2**24):\n    hoard[start : start + 2**24] = b'x' * 2**24\ntime.sleep(60)",
        "it used more memory than the limit",
    ),
    "exit": ("import os\nos._exit(0)", "the process of the notebook ended (exit status 0)"),
    "crash": ("import ctypes\nctypes.string_at(0)", "the process of the notebook ended (exit status 139)"),
    "forged-message": (
        WRITE_TO_THE_LINE.format(what="(5).to_bytes(8, 'little') + b'junk!'"),
        "the process of the notebook wrote to the line of the grader",
    ),
    "forged-length": (
        WRITE_TO_THE_LINE.format(what="b'\\xff' * 8"),
        "the process of the notebook wrote to the line of the grader",
    ),
}

# Looks for all that should not be there, and carries what it sees of the tests into every place that it can.
SPY = """
import gc, os, sys
stolen = []

def scaled(z, temperature):
    stolen.append(f"stolen {z.tolist()}")
    print(*stolen)
    open("/tmp/stolen", "a").write(stolen[-1])
    if len(z) == 5:
        raise ValueError(stolen[-1])
    return torch.softmax(z / temperature, -1)

def penalty(w):
    raise ValueError(" ".join(stolen))

wanted = ("gradebook.db", "hw1", "submitted", ".ssh", "grading.yml", "nbgrader_config")
places = [place for place in os.listdir("/") if place not in ("proc", "usr")]
found = [
    os.path.join(folder, name)
    for place in places
    for folder, folders, files in os.walk("/" + place)
    if "python" not in folder
    for name in folders + files
    if any(word in name for word in wanted)
]
processes = [open(f"/proc/{number}/cmdline").read() for number in os.listdir("/proc") if number.isdigit()]
hidden = [text for text in gc.get_objects() if type(text) is str and "fresh / 0" + ".3" in text]
print("FOUND", found, "VARIABLES", dict(os.environ), "HIDDEN", hidden, "SEEN", len(processes))
"""
